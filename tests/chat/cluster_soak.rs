//! A Redis Cluster in turmoil under two instances of `chat`: masters killed and frozen, failovers, slots that move. What was
//! acknowledged is kept, calls are answered in time, and no process of ours is started again.
//!
//! `TEST_CLUSTER_SECONDS` says how long it lasts (12 s), `TEST_CLUSTER_DURABILITY` which `store.durability` is set (`replicated`; with
//! `local` what is lost is told, and allowed). `scripts/soak-cluster.sh` lets it last ten minutes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rand::RngExt as _;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use test_redis::RedisCluster;
use tests::{Answer, Auditor, Backend, Client, TestApp, eventually};

const USERS: usize = 12;
/// A busy machine must not be taken for a dead master while slots move: that would break the move off.
const NODES: [&str; 6] =
    ["--appendonly", "yes", "--appendfsync", "always", "--cluster-node-timeout", "5000"];
/// In which a call is answered, whatever happens to the store: a second and a fifth.
const PROMISED: Duration = Duration::from_millis(1200);
/// What a busy machine may add to that.
const LIMIT: Duration = Duration::from_secs(5);
/// Longer than a finish is repeated.
const ATTEMPT: Duration = Duration::from_secs(45);
/// How long the cluster may take to be whole again.
const WHOLE: Duration = Duration::from_secs(30);

/// What the callers share.
struct Load {
    /// One at each instance.
    clients: Vec<[Client; 2]>,
    auditors: Vec<Auditor>,
    calls: Mutex<Calls>,
    over: AtomicBool,
}

/// How calls were answered that wait for nothing but the store.
#[derive(Debug, Default)]
struct Calls {
    answered: usize,
    refused: usize,
    late: usize,
    slowest: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_in_turmoil_loses_nothing_that_was_acknowledged() {
    let durability = std::env::var("TEST_CLUSTER_DURABILITY").unwrap_or("replicated".to_owned());
    let cluster = Arc::new(RedisCluster::start_with(&NODES));
    let app = TestApp::builder(Backend::Redis).chats(2).set("store.url", cluster.url());
    let app = app.set("store.durability", &durability).start().await;
    app.model.usually(Answer::echo_every(Duration::from_millis(10)));
    let mut clients = Vec::new();
    for number in 0..USERS {
        let client = app.login(&format!("user-{number}")).await;
        clients.push([client.at(app.chat(0)), client.at(app.chat(1))]);
    }
    let auditors = (0..USERS).map(|_| Auditor::new()).collect();
    let (calls, over) = (Mutex::default(), AtomicBool::new(false));
    let load = Arc::new(Load { clients, auditors, calls, over });
    let workers: Vec<_> =
        (0..USERS).map(|number| tokio::spawn(work(Arc::clone(&load), number))).collect();
    let end = Instant::now() + seconds();
    let disturbed = tokio::task::spawn_blocking({
        let cluster = Arc::clone(&cluster);
        move || disturb(&cluster, end)
    });
    let disturbed = disturbed.await.unwrap();
    load.over.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.await.unwrap();
    }
    let kept: usize = load.auditors.iter().map(Auditor::count).sum();
    let calls = std::mem::take(&mut *load.calls.lock().unwrap());
    eprintln!("{durability}: {disturbed:?}, {kept} turns acknowledged, {calls:?}");
    assert!(kept > USERS, "{kept} turns");
    assert!(calls.slowest < LIMIT, "{calls:?}");
    let processes = [app.auth_process(), app.chat_process(0), app.chat_process(1)];
    assert!(processes.iter().all(|process| process.status().is_none()), "{}", app.logs());
    let wrong = audit(&app, &load).await;
    eprintln!("{} of them are lost, doubled or other than acknowledged: {wrong:#?}", wrong.len());
    assert!(wrong.is_empty() || durability == "local");
}

fn seconds() -> Duration {
    let told = std::env::var("TEST_CLUSTER_SECONDS").ok();
    Duration::from_secs(told.and_then(|text| text.parse().ok()).unwrap_or(12))
}

async fn audit(app: &TestApp, load: &Load) -> Vec<String> {
    let stranger = app.stranger();
    eventually(WHOLE, "all nodes answer", || async {
        (stranger.get("/readyz").await.json()["checks"]["store"] == "ok").then_some(())
    })
    .await;
    let mut wrong = Vec::new();
    for (auditor, clients) in load.auditors.iter().zip(&load.clients) {
        wrong.extend(auditor.differences(&clients[0]).await);
    }
    wrong
}

/// How long after a master is back the others may still put a replica in its place.
const VOTED_OUT: Duration = Duration::from_secs(4);

type Happening = fn(&RedisCluster);

/// One thing after the other happens to a master, each once the cluster has got over the last. How often each did.
fn disturb(cluster: &RedisCluster, end: Instant) -> BTreeMap<&'static str, usize> {
    let mut done = BTreeMap::new();
    let happenings: [(&str, Happening); 4] =
        [("kills", kill), ("failovers", fail_over), ("freezes", freeze), ("reshards", reshard)];
    for (name, happen) in happenings.into_iter().cycle() {
        if Instant::now() >= end {
            break;
        }
        happen(cluster);
        cluster.wait_whole();
        // Whoever was taken for dead may still be replaced; slots that are on the way then are for a person to mend.
        std::thread::sleep(VOTED_OUT);
        cluster.wait_whole();
        *done.entry(name).or_default() += 1;
    }
    done
}

fn any<T: Copy>(all: &[T]) -> T {
    all[rand::rng().random_range(0..all.len())]
}

/// Shorter or longer than the others take to replace a master that does not answer.
fn pause() {
    std::thread::sleep(Duration::from_millis(rand::rng().random_range(100..9000)));
}

fn kill(cluster: &RedisCluster) {
    let victim = any(&cluster.with_role(true));
    victim.kill();
    pause();
    victim.restart();
}

fn freeze(cluster: &RedisCluster) {
    let victim = any(&cluster.with_role(true));
    victim.freeze();
    pause();
    victim.thaw();
}

fn fail_over(cluster: &RedisCluster) {
    let replica = any(&cluster.with_role(false));
    let mut asked: Option<Instant> = None;
    test_redis::wait_until(WHOLE, "it is the master", || {
        // One that the others do not agree on in time is given up after 5 s.
        if asked.is_none_or(|asked| asked.elapsed() > Duration::from_secs(6)) {
            replica.tell("CLUSTER FAILOVER");
            asked = Some(Instant::now());
        }
        replica.tell("ROLE").contains("master")
    });
}

fn reshard(cluster: &RedisCluster) {
    // It is refused while a node takes another one for dead that has just come back.
    test_redis::wait_until(WHOLE, "slots are moved", || {
        let masters = cluster.with_role(true);
        let from = rand::rng().random_range(0..masters.len());
        let to = masters[(from + 1) % masters.len()];
        let moved = cluster.reshard(masters[from], to, 300).output().expect("redis-cli");
        if !moved.status.success() {
            let said = String::from_utf8_lossy(&moved.stdout);
            eprintln!("no slots are moved: {:?}", said.lines().rev().find(|line| line.len() > 9));
            if said.contains("clusterManagerMoveSlot failed") {
                eprintln!("{}", cluster.fix());
            }
        }
        moved.status.success()
    });
}

/// One user: messages one after the other, on either instance, half of them repeated under their keys until they are answered.
async fn work(load: Arc<Load>, number: usize) {
    let (mut session, auditor) = (0, &load.auditors[number]);
    for count in 0.. {
        if load.over.load(Ordering::SeqCst) {
            return;
        }
        let client = any(&load.clients[number].each_ref());
        if count % 4 == 0 {
            load.call(client.request(Method::GET, "/chat/sessions")).await;
            let visitor = json!({"user_id": format!("visitor-{number}-{count}")});
            let login = client.at_auth().request(Method::POST, "/auth/login");
            load.call(login.json(&visitor)).await;
        }
        let (name, message) = (format!("s{session}"), format!("{count} of {number}"));
        let key = (count % 2 == 0).then(|| format!("key-{number}-{count}"));
        match answer(&load, number, &name, &message, key.as_deref()).await {
            Some(reply) => auditor.acknowledge(&name, &message, &reply),
            // Its turn may be open still: the next message is not to wait for that.
            None => session += 1,
        }
    }
}

/// The whole answer, where the caller was told that it is.
async fn answer(
    load: &Load,
    number: usize,
    session: &str,
    message: &str,
    key: Option<&str>,
) -> Option<String> {
    let begun = Instant::now();
    let mut tries = 0;
    while begun.elapsed() < ATTEMPT {
        let client = any(&load.clients[number].each_ref());
        let body = json!({"session_id": session, "message": message});
        let mut request = client.request(Method::POST, "/chat/message?stream=true").json(&body);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        // A repetition also waits for what became of the first try.
        let response = match tries {
            0 => load.call(request).await,
            _ => request.send().await.expect("an answer"),
        };
        let text = tokio::time::timeout(ATTEMPT, response.text()).await;
        let text = text.expect("every stream ends").expect("a body that ends well");
        let reply = ended(&text);
        if reply.is_some() || key.is_none() {
            return reply;
        }
        tries += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    None
}

impl Load {
    /// Sends a request, and notes how long its answer took to begin.
    async fn call(&self, request: RequestBuilder) -> Response {
        let begun = Instant::now();
        let response = request.send().await.expect("an answer");
        let (took, status) = (begun.elapsed(), response.status().as_u16());
        assert!(matches!(status, 200 | 503), "{response:?}");
        let mut calls = self.calls.lock().unwrap();
        calls.answered += 1;
        calls.refused += usize::from(status == 503);
        calls.late += usize::from(took > PROMISED);
        calls.slowest = calls.slowest.max(took);
        response
    }
}

/// The text of a stream that says at its end that the answer is whole.
fn ended(stream: &str) -> Option<String> {
    let data = stream.lines().filter_map(|line| line.strip_prefix("data:"));
    let events: Vec<Value> = data.filter_map(|data| serde_json::from_str(data).ok()).collect();
    let whole = events.last()?["finish_reason"] == "stop";
    let tokens = events.iter().filter_map(|event| event["token"].as_str());
    whole.then(|| tokens.collect())
}

//! Instances are stopped and started one after the other, under load: behind a proxy nobody sees a failure.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tests::{
    Answer, Backend, Client, LoadBalancer, PATIENCE, Process, TestApp, eventually, free_port, raw,
    text_of,
};
use tokio::task::JoinSet;

/// Twenty streams and twenty sockets in mid-answer: all of them are finished, or told.
#[tokio::test]
async fn a_drain_finishes_every_stream_and_socket() {
    let app = TestApp::builder(Backend::Redis)
        .set("llm.ollama.max_concurrency", 64)
        .set("chat.sockets_per_user", 50)
        .start()
        .await;
    let gate = tests::Gate::new();
    app.model.usually(Answer::gated(["one ", "two ", "three"], &gate));
    let alice = app.login("alice").await;
    let (mut streams, mut sockets) = (Vec::new(), Vec::new());
    for number in 0..20 {
        let mut stream = alice.stream(&format!("stream{number}"), "count").await;
        stream.started().await;
        streams.push(stream);
        let mut socket = alice.socket().await;
        let id = socket.say(&format!("socket{number}"), "count").await;
        sockets.push((socket, id));
    }
    app.model.wait_chats(40).await;
    app.chat_process(0).terminate();
    let ready = eventually(Duration::from_secs(2), "it says that it drains", || async {
        let ready = alice.get("/readyz").await;
        (ready.status == 503).then(|| ready.json())
    })
    .await;
    assert_eq!(ready["missing"], serde_json::json!(["draining"]));
    alice.send("new", "too late").await.problem(503, "shutting_down");
    alice.get("/chat/sessions/new").await.problem(404, "session_not_found");
    assert_eq!(alice.get("/livez").await.status, 200);
    gate.open();
    for stream in &mut streams {
        let rest = stream.rest().await;
        rest.last().unwrap().expect_done("stop");
        assert_eq!(text_of(&rest), "one two three");
    }
    for (socket, id) in &mut sockets {
        socket.ending_of(id).await.expect_done("stop");
        assert_eq!(socket.closed(PATIENCE).await.code, 1001);
    }
    assert_eq!(app.chat_process(0).wait_exit(PATIENCE).await, Some(0));
}

/// The instances of a rolling restart: each keeps its address.
struct Instance {
    process: Process,
    address: SocketAddr,
    environment: BTreeMap<String, String>,
}

impl Instance {
    async fn start(app: &TestApp) -> Self {
        let address: SocketAddr = format!("127.0.0.1:{}", free_port()).parse().unwrap();
        let mut environment = app.environment();
        environment.insert("CHATBOT__CHAT__LISTEN".into(), address.to_string());
        environment.insert("CHATBOT__CHAT__AUTH_URL".into(), format!("http://{}", app.auth()));
        let process = Process::spawn("chat", &[], &environment);
        let instance = Self { process, address, environment };
        instance.wait_ready().await;
        instance
    }

    async fn restart(&mut self) {
        self.process.terminate();
        let code = self.process.wait_exit(Duration::from_secs(40)).await;
        assert_eq!(code, Some(0));
        self.process = Process::spawn("chat", &[], &self.environment);
        self.wait_ready().await;
    }

    async fn wait_ready(&self) {
        self.process.address("chat", false).await;
        eventually(PATIENCE, "the instance is ready", || async {
            let request = "GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
            (raw::ask(self.address, request).await.status == 200).then_some(())
        })
        .await;
    }
}

/// Messages, one after the other until told to stop; each must be answered.
async fn send_on(client: Client, session: String, over: Arc<AtomicBool>, done: Arc<AtomicUsize>) {
    while !over.load(Ordering::SeqCst) {
        let reply = client.send(&session, "hello").await;
        assert_eq!(reply.status, 200, "{session}: {}", reply.text());
        done.fetch_add(1, Ordering::SeqCst);
    }
}

/// Streams, one after the other; each must come to its ending.
async fn stream_on(client: Client, session: String, over: Arc<AtomicBool>, done: Arc<AtomicUsize>) {
    while !over.load(Ordering::SeqCst) {
        let mut stream = client.stream(&session, "hello").await;
        let rest = stream.rest().await;
        rest.last().unwrap().expect_done("stop");
        done.fetch_add(1, Ordering::SeqCst);
    }
}

/// Two instances behind the proxy.
async fn two_instances() -> (TestApp, [Instance; 2]) {
    let app = TestApp::builder(Backend::Redis)
        .set("llm.ollama.max_concurrency", 64)
        .set("server.trusted_proxies", "127.0.0.1/32")
        .set("chat.lease", "2s")
        .start()
        .await;
    let instances = [Instance::start(&app).await, Instance::start(&app).await];
    (app, instances)
}

async fn proxied() -> (TestApp, [Instance; 2], LoadBalancer) {
    let (app, instances) = two_instances().await;
    let haproxy = LoadBalancer::haproxy([instances[0].address, instances[1].address]).await;
    (app, instances, haproxy)
}

/// How often that message stands in the session, and with which answers.
async fn stands(user: &Client, session: &str, message: &str) -> (usize, Vec<String>) {
    let talk = user.talk(session).await;
    let asked = talk.iter().filter(|(_, text)| text == message).count();
    let answers = talk.into_iter().filter(|(role, _)| role == "assistant");
    (asked, answers.map(|(_, text)| text).collect())
}

#[tokio::test]
async fn a_turn_that_fails_behind_the_proxy_is_sent_again_and_stands_once() {
    let (app, instances, haproxy) = proxied().await;
    let alice = app.login("alice").await.at(haproxy.address());
    // Three tries, of which each asks the model twice.
    let refusal = || Answer::refuse(503, "retry-after: 0\r\n", "{}");
    app.model.answer_to("never", refusal());
    alice.send("work", "never").await.problem(503, "llm_unavailable");
    assert_eq!(stands(&alice, "work", "never").await, (1, vec![]));
    for _ in 0..2 {
        app.model.next(refusal());
    }
    assert_eq!(alice.say("work", "soon").await, "You said: soon");
    let answers = vec!["You said: soon".to_owned()];
    assert_eq!(stands(&alice, "work", "soon").await, (1, answers));
    // What is no turn is not sent again: nobody would get two sessions.
    app.redis().cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    alice.post("/chat/sessions", &serde_json::json!({})).await.problem(503, "store_full");
    let mut refused = 0.0;
    for instance in &instances {
        let admin = alice.at(instance.process.address("chat", true).await);
        refused += tests::measured_at(&admin, "http_problems_total", "code=\"store_full\"").await;
    }
    assert_eq!(refused, 1.0);
}

#[tokio::test]
async fn a_killed_instance_behind_the_proxy_costs_no_answer() {
    let (app, instances, haproxy) = proxied().await;
    costs_no_answer(&app, &instances, &haproxy).await;
}

#[tokio::test]
async fn a_killed_instance_behind_nginx_costs_no_answer() {
    let (app, instances) = two_instances().await;
    let nginx = LoadBalancer::nginx([instances[0].address, instances[1].address]).await;
    costs_no_answer(&app, &instances, &nginx).await;
}

async fn costs_no_answer(app: &TestApp, instances: &[Instance; 2], proxy: &LoadBalancer) {
    let gate = tests::Gate::new();
    app.model.next(Answer::gated(["one ", "two"], &gate));
    let alice = app.login("alice").await.at(proxy.address());
    let asked = alice.clone();
    let reply = tokio::spawn(async move { asked.send("work", "count").await });
    app.model.wait_chats(1).await;
    gate.release(1);
    let mut killed = 0;
    for instance in instances {
        let admin = instance.process.address("chat", true).await;
        let measured = alice.at(admin).get("/metrics").await.text();
        if measured.contains("chat_turns_running 1") {
            instance.process.kill();
            killed += 1;
        }
    }
    assert_eq!(killed, 1, "one of them has the turn");
    let reply = reply.await.unwrap();
    assert_eq!(reply.expect(200)["reply"], "You said: count");
    let answers = vec!["You said: count".to_owned()];
    assert_eq!(stands(&alice, "work", "count").await, (1, answers));
}

/// Some clients send the head of a request and its body in two packets: the instance that would have got the head may be gone when
/// the body comes.
#[tokio::test]
async fn a_request_in_two_packets_outlives_the_instance_that_its_head_was_meant_for() {
    let (app, instances, haproxy) = proxied().await;
    let alice = app.login("alice").await;
    let mut halves = Vec::new();
    for number in 0..8 {
        let body = format!("{{\"session_id\":\"s{number}\",\"message\":\"hello\"}}");
        let head = format!(
            "POST /chat/message HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            alice.token(),
            body.len()
        );
        let mut raw = raw::Raw::connect(haproxy.address()).await;
        raw.send(head).await;
        halves.push((raw, body));
    }
    // The proxy has the heads by then, and could have passed them on.
    tokio::time::sleep(Duration::from_millis(200)).await;
    instances[0].process.terminate();
    let code = instances[0].process.wait_exit(Duration::from_secs(40)).await;
    assert_eq!(code, Some(0));
    for (raw, body) in &mut halves {
        raw.send(body.as_bytes()).await;
        let reply = raw.read_reply().await;
        assert_eq!(reply.status, 200, "{}{}", reply.head, String::from_utf8_lossy(&reply.body));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_behind_a_proxy_fails_nobody() {
    let (app, mut instances, haproxy) = proxied().await;
    app.model.usually(Answer::echo_every(Duration::from_millis(40)));
    let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut load = JoinSet::new();
    for number in 0..6 {
        let user = app.login(&format!("user{number}")).await;
        let user = user.at(haproxy.address());
        let (over, done) = (Arc::clone(&over), Arc::clone(&done));
        if number % 2 == 0 {
            load.spawn(send_on(user, format!("s{number}"), over, done));
        } else {
            load.spawn(stream_on(user, format!("s{number}"), over, done));
        }
    }
    let more = |count: usize| {
        let done = &done;
        let wanted = done.load(Ordering::SeqCst) + count;
        async move {
            eventually(PATIENCE, "the load goes on", || async {
                (done.load(Ordering::SeqCst) >= wanted).then_some(())
            })
            .await;
        }
    };
    more(12).await;
    for _ in 0..2 {
        for instance in &mut instances {
            instance.restart().await;
            // The next one may go once the proxy has found this one again.
            instance.process.log_line(&["\"/chat/message\""]).await;
            more(12).await;
        }
    }
    over.store(true, Ordering::SeqCst);
    while let Some(ended) = load.join_next().await {
        ended.expect("everybody was answered");
    }
}

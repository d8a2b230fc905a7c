//! Everything at once, for as long as is wanted: instances killed, callers who cancel and leave, a model server that
//! fails in every way. Then nothing runs, nothing waits, nothing is held, and nothing acknowledged is lost.
//!
//! `TEST_SOAK_SECONDS` says how long it lasts (10 s); `scripts/soak-turns.sh` lets it last ten minutes.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rand::RngExt as _;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tests::{
    Answer, Auditor, Backend, Client, FakeModel, PATIENCE, RedisOptions, TestApp, completion_of,
    eventually,
};

const WORKERS: usize = 12;
const QUOTA: u64 = 1_000_000_000_000;
/// Longer than any turn here may take, a lease and a restart included.
const ATTEMPT: Duration = Duration::from_secs(20);

/// What the callers share.
struct Load {
    client: Client,
    doors: Mutex<Vec<SocketAddr>>,
    auditor: Auditor,
    asked: AtomicUsize,
    over: AtomicBool,
}

#[tokio::test]
async fn after_kills_cancels_and_faults_nothing_runs_and_nothing_acknowledged_is_lost() {
    let durable = RedisOptions { durable: true, ..RedisOptions::default() };
    let settings = [
        ("chat.lease", "2s"),
        ("chat.disconnect_grace", "200ms"),
        ("llm.ollama.max_concurrency", "3"),
        ("llm.ollama.first_token_timeout", "2s"),
        ("llm.ollama.idle_timeout", "1s"),
        ("llm.ollama.breaker_failures", "0"),
        ("server.max_connections_per_address", "1000"),
    ];
    let app = TestApp::builder(Backend::Redis).redis(durable).chats(2);
    let app = app.set("rate_limit.tokens_per_day", QUOTA);
    let mut app =
        settings.iter().fold(app, |app, (name, value)| app.set(name, value)).start().await;
    misbehave(&app.model);
    let load = Arc::new(Load {
        client: app.login("alice").await,
        doors: Mutex::new(doors(&app)),
        auditor: Auditor::new(),
        asked: AtomicUsize::new(0),
        over: AtomicBool::new(false),
    });
    let workers: Vec<_> =
        (0..WORKERS).map(|number| tokio::spawn(work(Arc::clone(&load), number))).collect();
    let (end, mut kills) = (Instant::now() + seconds(), 0);
    while Instant::now() < end {
        let pause = rand::rng().random_range(500..4000);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        app.restart_chat(rand::rng().random_range(0..2)).await;
        *load.doors.lock().unwrap() = doors(&app);
        kills += 1;
    }
    load.over.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.await.unwrap();
    }
    let (asked, kept) = (load.asked.load(Ordering::SeqCst), load.auditor.count());
    assert!(kills > 1 && kept > 20, "{kills} kills, {kept} turns kept");
    nothing_is_left(&app, &load).await;
    eprintln!("{kills} kills, {asked} requests, {kept} turns acknowledged and all there");
}

fn seconds() -> Duration {
    let told = std::env::var("TEST_SOAK_SECONDS").ok();
    Duration::from_secs(told.and_then(|text| text.parse().ok()).unwrap_or(10))
}

fn doors(app: &TestApp) -> Vec<SocketAddr> {
    (0..app.instances()).map(|number| app.chat(number)).collect()
}

/// What the first word of a message makes the model server do.
const FAULTS: [&str; 7] = ["cut", "reset", "hang", "stall", "busy", "error", "garbage"];

fn misbehave(model: &FakeModel) {
    model.usually(Answer::echo_every(Duration::from_millis(10)));
    let half = || Answer::partial(["half ", "said "]);
    let answers = [
        half().drop_connection(),
        half().reset(),
        Answer::new().hang(),
        half().hang(),
        Answer::refuse(503, "retry-after: 1\r\n", "{}"),
        half().error("out of memory"),
        half().body("<html>"),
    ];
    for (fault, answer) in FAULTS.into_iter().zip(answers) {
        model.answer_to(&format!("{fault} please"), answer);
    }
}

async fn nothing_is_left(app: &TestApp, load: &Load) {
    app.wait_ready().await;
    let client = load.client.at(app.chat(0));
    for session in (0..WORKERS).map(|number| format!("s{number}")) {
        let reply = eventually(PATIENCE, "the session goes on", || async {
            let reply = client.send(&session, "go on").await;
            (reply.status != 503).then_some(reply)
        })
        .await;
        assert_eq!(reply.expect(200)["reply"], "You said: go on");
    }
    for number in 0..app.instances() {
        for gauge in ["llm_queued", "llm_running", "chat_turns_running", "chat_completions_running"]
        {
            eventually(PATIENCE, &format!("{gauge} is back at 0"), || async {
                (app.measured(number, gauge, "").await == 0.0).then_some(())
            })
            .await;
        }
    }
    app.model.wait_idle(Duration::from_secs(2)).await;
    eventually(PATIENCE, "nothing of the quota is held", || async {
        let usage = client.get("/chat/usage").await.expect(200);
        let number = |value: &Value| value.as_u64().unwrap();
        let today = &usage["today"];
        let spent = number(&today["prompt_tokens"]) + number(&today["completion_tokens"]);
        (number(&usage["quota"]["left"]) + spent == QUOTA).then_some(())
    })
    .await;
    load.auditor.check(&client).await;
}

/// One caller, who asks on every wire, reads to the end or leaves, until the end.
async fn work(load: Arc<Load>, number: usize) {
    let session = format!("s{number}");
    for count in 0.. {
        if load.over.load(Ordering::SeqCst) {
            return;
        }
        let fault = match rand::rng().random_range(0..2 * FAULTS.len()) {
            fault if fault < FAULTS.len() => format!("{} please ", FAULTS[fault]),
            _ => String::new(),
        };
        let message = format!("{fault}{count} of {number}");
        let door = {
            let doors = load.doors.lock().unwrap();
            doors[rand::rng().random_range(0..doors.len())]
        };
        let client = load.client.at(door);
        let manner = rand::rng().random_range(0..8);
        load.asked.fetch_add(1, Ordering::SeqCst);
        let attempt = ask(&client, &session, &message, manner);
        match tokio::time::timeout(ATTEMPT, attempt).await {
            Ok(Some(reply)) => load.auditor.acknowledge(&session, &message, &reply),
            // Refused, cut off, or the instance is not there just now.
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Asks in that manner; the answer, where a turn was said to have ended well.
async fn ask(client: &Client, session: &str, message: &str, manner: u32) -> Option<String> {
    let body = json!({"session_id": session, "message": message});
    let post = |path: &str, body: &Value| client.request(Method::POST, path).json(body);
    let steps = rand::rng().random_range(1..6);
    match manner {
        0 | 1 => {
            let request = post("/chat/message", &body);
            let key = format!("key {message}").replace(' ', "-");
            let response = request.header("idempotency-key", key).send().await.ok()?;
            let answer: Value = response.json().await.ok()?;
            let ended_well = answer["finish_reason"] == "stop";
            ended_well.then(|| answer["reply"].as_str().map(str::to_owned))?
        }
        2 | 3 => {
            let response = post("/chat/message?stream=true", &body).send().await.ok()?;
            ended(&read(response, usize::MAX).await)
        }
        4 => {
            let response = post("/chat/message?stream=true", &body).send().await.ok()?;
            read(response, steps).await;
            None
        }
        5 => {
            let mut response = post("/chat/message?stream=true", &body).send().await.ok()?;
            let start = String::from_utf8(response.chunk().await.ok()??.to_vec()).ok()?;
            let start: Value = serde_json::from_str(start.lines().find_map(data)?).ok()?;
            client
                .request(
                    Method::POST,
                    &format!("/chat/messages/{}/cancel", start["message_id"].as_str()?),
                )
                .send()
                .await
                .ok()?;
            ended(&read(response, usize::MAX).await)
        }
        6 => {
            let asked = post("/v1/chat/completions", &completion_of(message, false)).send();
            let patience = Duration::from_millis(20 * steps as u64);
            let _ = tokio::time::timeout(patience, asked).await;
            None
        }
        _ => {
            let body = completion_of(message, true);
            let response = post("/v1/chat/completions", &body).send().await.ok()?;
            read(response, if steps < 3 { steps } else { usize::MAX }).await;
            None
        }
    }
}

fn data(line: &str) -> Option<&str> {
    line.strip_prefix("data: ").or(line.strip_prefix("data:"))
}

/// As much of a body as comes in that many reads; then the connection is given up.
async fn read(mut response: Response, reads: usize) -> String {
    let mut body = Vec::new();
    for _ in 0..reads {
        match response.chunk().await {
            Ok(Some(bytes)) => body.extend(bytes),
            _ => break,
        }
    }
    String::from_utf8_lossy(&body).into_owned()
}

/// The text of a stream that says at its end that the answer is whole.
fn ended(stream: &str) -> Option<String> {
    let events: Vec<Value> =
        stream.lines().filter_map(|line| serde_json::from_str(data(line)?).ok()).collect();
    let last = events.last()?;
    let whole = last["is_final"] == true && last["finish_reason"] == "stop";
    let tokens = events.iter().filter_map(|event| event["token"].as_str());
    whole.then(|| tokens.collect())
}

//! Processes killed at any moment under load: what was acknowledged is stored once, pairs stay whole, sessions go on.
//!
//! `TEST_KILL_SECONDS` says how long the load lasts (12 s).

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use rand::RngExt as _;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tests::{
    Answer, Auditor, Backend, Client, Event, PATIENCE, RedisOptions, TestApp, eventually, text_of,
};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};

const LEASE: Duration = Duration::from_secs(2);
const WORKERS: usize = 6;
/// Longer than any turn here may take, a lease and a restart included.
const ATTEMPT: Duration = Duration::from_secs(20);

/// What the workers share: where the services are now, what they were told, and whether they shall go on.
struct Load {
    client: Client,
    doors: Mutex<Vec<SocketAddr>>,
    auditor: Auditor,
    over: AtomicBool,
}

/// What came of an attempt.
enum Came {
    /// The whole answer.
    Answer(String),
    /// A refusal or a failure that is the turn's own.
    No,
    /// Nobody knows.
    Unknown,
}

#[tokio::test]
async fn instances_killed_under_load_lose_nothing_that_was_acknowledged() {
    killed_under_load(Backend::Redis, async |app, round| app.restart_chat(round % 2).await).await;
}

#[tokio::test]
async fn an_embedded_store_killed_under_load_loses_nothing_that_was_acknowledged() {
    killed_under_load(Backend::Embedded, async |app, _| app.restart_chat(0).await).await;
}

#[tokio::test]
async fn a_redis_killed_under_load_loses_nothing_that_was_acknowledged() {
    killed_under_load(Backend::Redis, async |app, _| app.redis().restart().await).await;
}

async fn killed_under_load(on: Backend, kill_and_restart: impl AsyncFn(&mut TestApp, usize)) {
    let redis = RedisOptions { durable: true, ..RedisOptions::default() };
    let mut app = TestApp::builder(on)
        .redis(redis)
        .chats(2)
        .set("chat.lease", format!("{}s", LEASE.as_secs()))
        .start()
        .await;
    app.model.usually(Answer::echo_every(Duration::from_millis(15)));
    let load = Arc::new(Load {
        client: app.login("alice").await,
        doors: Mutex::new(doors(&app)),
        auditor: Auditor::new(),
        over: AtomicBool::new(false),
    });
    let workers: Vec<_> =
        (0..WORKERS).map(|number| tokio::spawn(work(Arc::clone(&load), number))).collect();
    let (end, mut rounds) = (Instant::now() + seconds(), 0);
    while Instant::now() < end {
        let pause = rand::rng().random_range(100..1500);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        kill_and_restart(&mut app, rounds).await;
        *load.doors.lock().unwrap() = doors(&app);
        rounds += 1;
    }
    load.over.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.await.unwrap();
    }
    app.wait_ready().await;
    sessions_go_on(&app, &load).await;
    assert!(
        rounds > 2 && load.auditor.count() > 20,
        "{rounds} kills, {} turns",
        load.auditor.count()
    );
    eprintln!("{on:?}: {rounds} kills, {} turns acknowledged", load.auditor.count());
}

async fn sessions_go_on(app: &TestApp, load: &Load) {
    let client = load.client.at(app.chat(app.instances() - 1));
    let begun = Instant::now();
    for session in (0..WORKERS).map(|number| format!("own-{number}")).chain(["shared".to_owned()]) {
        let reply = eventually(PATIENCE, "the session goes on", || async {
            let reply = client.send(&session, "go on").await;
            (reply.status != 503).then_some(reply)
        })
        .await;
        assert_eq!(reply.expect(200)["reply"], "You said: go on");
    }
    assert!(begun.elapsed() < LEASE + Duration::from_secs(8), "{:?}", begun.elapsed());
    load.auditor.check(&client).await;
}

fn doors(app: &TestApp) -> Vec<SocketAddr> {
    (0..app.instances()).map(|number| app.chat(number)).collect()
}

fn seconds() -> Duration {
    let told = std::env::var("TEST_KILL_SECONDS").ok();
    Duration::from_secs(told.and_then(|text| text.parse().ok()).unwrap_or(12))
}

/// One who talks on all wires, in a session of its own and in one with all others, until the end.
async fn work(load: Arc<Load>, number: usize) {
    let mut at: HashMap<SocketAddr, Client> = HashMap::new();
    for count in 0.. {
        if load.over.load(Ordering::SeqCst) {
            return;
        }
        let message = format!("{count} of {number}");
        let session = if count % 4 == 3 { "shared".to_owned() } else { format!("own-{number}") };
        let key = (count % 2 == 0).then(|| format!("key-{number}-{count}"));
        let mut tries = 0;
        let came = loop {
            let client = somewhere(&load, &mut at);
            let attempt =
                attempt((number + count) % 3, &client, &session, &message, key.as_deref());
            let came = tokio::time::timeout(ATTEMPT, attempt).await.unwrap_or(Came::Unknown);
            tries += 1;
            // Only a key makes it safe to ask again.
            match came {
                Came::Unknown if key.is_some() && tries < 50 => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                came => break came,
            }
        };
        match came {
            Came::Answer(reply) => {
                assert_eq!(reply, format!("You said: {message}"));
                load.auditor.acknowledge(&session, &message, &reply);
            }
            Came::No => {}
            Came::Unknown => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

fn somewhere(load: &Load, at: &mut HashMap<SocketAddr, Client>) -> Client {
    let doors = load.doors.lock().unwrap().clone();
    let door = doors[rand::rng().random_range(0..doors.len())];
    at.entry(door).or_insert_with(|| load.client.at(door)).clone()
}

async fn attempt(
    wire: usize,
    client: &Client,
    session: &str,
    message: &str,
    key: Option<&str>,
) -> Came {
    let body = json!({"session_id": session, "message": message});
    let post = |path: &str| {
        let request = client.request(Method::POST, path).json(&body);
        match key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        }
    };
    let came = match wire {
        0 => whole(post("/chat/message")).await,
        1 => streamed(client, post("/chat/message?stream=true"), key.is_some()).await,
        _ => on_a_socket(client, body.clone(), key).await,
    };
    came.unwrap_or(Came::Unknown)
}

/// What a status says of the turn. What may change by itself is asked again; a turn that ended badly runs again.
fn refused(status: u64) -> Came {
    match status {
        409 | 429 | 500..600 => Came::Unknown,
        _ => Came::No,
    }
}

async fn whole(request: RequestBuilder) -> Option<Came> {
    let response = request.send().await.ok()?;
    let status = response.status().as_u16();
    let body: Value = response.json().await.ok()?;
    Some(match status {
        200 if body["finish_reason"] == "stop" => Came::Answer(body["reply"].as_str()?.to_owned()),
        200 => Came::No,
        status => refused(status.into()),
    })
}

/// Reads a stream as far as it goes; one without a key is taken up again where it broke off.
async fn streamed(client: &Client, request: RequestBuilder, keyed: bool) -> Option<Came> {
    let response = request.send().await.ok()?;
    if response.status() != 200 {
        return Some(refused(response.status().as_u16().into()));
    }
    let mut events = read(response).await;
    if let (false, Some(last), Some(first)) = (keyed, events.last(), events.first())
        && !last.is_last()
    {
        let path = format!("/chat/messages/{}/stream", first.data["message_id"].as_str()?);
        let resume = client.request(Method::GET, &path).header("last-event-id", last.id);
        events.extend(read(resume.send().await.ok()?).await);
    }
    Some(ending(&events))
}

async fn read(response: reqwest::Response) -> Vec<Event> {
    let (mut bytes, mut body) = (Vec::new(), response.bytes_stream());
    while let Some(Ok(piece)) = body.next().await {
        bytes.extend(piece);
    }
    // Of a stream that broke off, the last block may be cut.
    let text = String::from_utf8_lossy(&bytes);
    let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
    whole.split("\n\n").filter_map(event).collect()
}

fn event(block: &str) -> Option<Event> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
    Some(Event {
        id: field("id: ").and_then(|id| id.parse().ok()).unwrap_or(0),
        kind: field("event: ").unwrap_or("token").to_owned(),
        data: serde_json::from_str(field("data: ")?).ok()?,
    })
}

fn ending(events: &[Event]) -> Came {
    match events.last() {
        Some(last) if last.kind == "done" && last.data["finish_reason"] == "stop" => {
            Came::Answer(text_of(events))
        }
        Some(last) if last.kind == "done" => Came::No,
        _ => Came::Unknown,
    }
}

async fn on_a_socket(client: &Client, mut frame: Value, key: Option<&str>) -> Option<Came> {
    let mut request = format!("ws://{}/chat/ws", client.address()).into_client_request().ok()?;
    let token = format!("Bearer {}", client.token()).parse().ok()?;
    request.headers_mut().insert("authorization", token);
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.ok()?;
    if let Some(key) = key {
        frame["idempotency_key"] = json!(key);
    }
    socket.send(Message::text(frame.to_string())).await.ok()?;
    let mut events = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else {
            continue;
        };
        let frame: Value = serde_json::from_str(&text).ok()?;
        if frame["type"] == "auth" {
            continue;
        }
        if frame["type"] == "error" && frame["id"].is_null() {
            return Some(refused(frame["status"].as_u64()?));
        }
        events.push(Event::from_frame(&frame));
        if events.last()?.is_last() {
            break;
        }
    }
    Some(ending(&events))
}

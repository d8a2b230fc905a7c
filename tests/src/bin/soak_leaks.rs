//! A soak: whole answers, streams, sockets and logins for a long time, then rest; fails where something leaks.
//!
//! `soak [minutes]` (30). Prints what each process holds at the start, under load and at rest, and how its memory grew.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program for people at a terminal, and a client with tasks of its own"
)]

use std::{
    collections::BTreeMap,
    env,
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::RngExt;
use redis::Value;
use serde_json::json;
use tests::{Answer, Backend, Client, Process, Socket, TestApp};
use tokio::{
    task::{JoinError, JoinSet},
    time::sleep,
};

const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// At rest everything that was said to end by itself has ended: graces (10 s), idle connections of the clients.
const REST: Duration = Duration::from_secs(30);
/// The load of this part of the time fills caches, pools and the allocator's own stock.
const WARM_UP: f64 = 0.2;
/// What memory may grow by, in bytes a minute.
const SLOPE: f64 = 1024.0 * 1024.0;
/// Files and tasks that may be more at rest than they were before: connections kept for the next call.
const KEPT: f64 = 10.0;

/// What the load shares.
struct Load {
    over: AtomicBool,
    turns: AtomicU64,
    streams: AtomicU64,
    sockets: AtomicU64,
    logins: AtomicU64,
    failures: Mutex<BTreeMap<String, u64>>,
}

impl Load {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::SeqCst)
    }

    fn failed(&self, what: String) {
        *self.failures.lock().unwrap().entry(what).or_insert(0) += 1;
    }
}

async fn pause(most: u64) {
    let ms = rand::rng().random_range(1..=most);
    sleep(Duration::from_millis(ms)).await;
}

/// One of eight sessions; each is deleted now and then, so that the store does not grow for ever.
fn session() -> String {
    format!("s{}", rand::rng().random_range(0..8))
}

async fn talk(user: Client, load: Arc<Load>) {
    while load.goes_on() {
        let name = session();
        let reply = user.send(&name, "How are you today, and why?").await;
        match reply.status {
            200 => drop(load.turns.fetch_add(1, Ordering::SeqCst)),
            // The session was deleted or is busy; the store or the model was in trouble.
            404 | 409 | 502 | 503 => {}
            status => load.failed(format!("a turn: {status} {}", reply.json()["code"])),
        }
        if rand::rng().random_bool(0.03) {
            user.delete(&format!("/chat/sessions/{name}")).await;
        }
        pause(800).await;
    }
}

async fn stream(user: Client, load: Arc<Load>) {
    while load.goes_on() {
        let body =
            json!({"session_id": session(), "message": "Tell me something.", "on_disconnect": 1});
        let request = user.request(http::Method::POST, "/chat/message?stream=true");
        let Ok(answer) = request.json(&body).send().await else {
            load.failed("a stream: no answer".into());
            continue;
        };
        match answer.status().as_u16() {
            200 => {}
            404 | 409 | 502 | 503 => continue,
            status => {
                load.failed(format!("a stream: {status}"));
                continue;
            }
        }
        let mut events = tests::EventStream::open(answer).await;
        let whim = rand::rng().random_range(0..5);
        match whim {
            // Leaves in mid-answer.
            0 => drop(events.next().await),
            // Leaves, and comes back for the rest.
            1 => {
                let id = events.started().await;
                drop(events);
                let path = format!("/chat/messages/{id}/stream?last_event_id=1");
                // Not there any more where the session was deleted meanwhile.
                user.get(&path).await;
            }
            _ => while events.next().await.is_some() {},
        }
        load.streams.fetch_add(1, Ordering::SeqCst);
        pause(800).await;
    }
}

async fn socket(user: Client, load: Arc<Load>) {
    while load.goes_on() {
        let bearer = ("authorization", format!("Bearer {}", user.token()));
        let mut socket = match Socket::try_open(user.address(), &[bearer]).await {
            Ok(socket) => socket,
            Err((503, _)) => continue,
            Err((status, _)) => {
                load.failed(format!("a socket: {status}"));
                continue;
            }
        };
        for turn in 0..3 {
            let reference = format!("r{turn}");
            let message = json!({"session_id": session(), "message": "Hello there.", "ref": reference, "on_disconnect": 0});
            socket.send(&message).await;
            let first = socket.with_ref(&reference).await;
            if first["type"] != "start" {
                continue;
            }
            if rand::rng().random_bool(0.1) {
                break;
            }
            socket.rest_of(first["message_id"].as_str().unwrap()).await;
            load.sockets.fetch_add(1, Ordering::SeqCst);
        }
        drop(socket);
        pause(1000).await;
    }
}

/// New users, again and again: what is remembered of each must not stay.
async fn log_in(stranger: Client, load: Arc<Load>) {
    let auth = stranger.at_auth();
    let mut number = 0_u64;
    while load.goes_on() {
        number += 1;
        let user = json!({"user_id": format!("visitor{}", number % 5000)});
        let login = auth.post("/auth/login", &user).await;
        if login.status != 200 {
            if login.status != 503 {
                load.failed(format!("a login: {}", login.status));
            }
            continue;
        }
        let tokens = login.json();
        let token = tokens["access_token"].as_str().unwrap();
        let request = stranger.request(http::Method::GET, "/chat/sessions");
        let seen = stranger.fetch(request.bearer_auth(token)).await;
        let refreshed =
            auth.post("/auth/refresh", &json!({"refresh_token": tokens["refresh_token"]})).await;
        let request = auth.request(http::Method::POST, "/auth/logout");
        let left = auth.fetch(request.bearer_auth(token)).await;
        for (what, status) in
            [("seen", seen.status), ("refreshed", refreshed.status), ("left", left.status)]
        {
            if status >= 300 && status != 503 {
                load.failed(format!("a login, {what}: {status}"));
            }
        }
        load.logins.fetch_add(1, Ordering::SeqCst);
        pause(1000).await;
    }
}

/// Bad days: connections to the store cut, models that break.
async fn trouble(app: &TestApp) {
    app.redis().cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    app.model.next(Answer::partial(["It", " breaks"]).reset());
}

/// What one process holds.
#[derive(Clone, Copy)]
struct Held {
    memory: f64,
    files: f64,
    tasks: f64,
}

struct Sample {
    at: f64,
    processes: Vec<Held>,
    redis_connections: f64,
    redis_memory: f64,
}

const NAMES: [&str; 3] = ["auth", "chat 1", "chat 2"];

async fn sample(app: &TestApp, begun: Instant) -> Sample {
    let doors = [app.auth_admin(), app.chat_admin(0), app.chat_admin(1)];
    let who: [&Process; 3] = [app.auth_process(), app.chat_process(0), app.chat_process(1)];
    let mut processes = Vec::new();
    for (door, process) in doors.into_iter().zip(who) {
        let text = app.stranger().at(door).get("/metrics").await.text();
        processes.push(Held {
            memory: process.memory() as f64,
            files: process.files() as f64,
            tasks: number(&text, "tokio_tasks_alive "),
        });
    }
    let Value::BulkString(info) = app.redis().cli(&["INFO"]).await else {
        panic!("Redis says nothing")
    };
    let info = String::from_utf8(info).unwrap();
    Sample {
        at: begun.elapsed().as_secs_f64() / 60.0,
        processes,
        redis_connections: number(&info, "connected_clients:"),
        redis_memory: number(&info, "used_memory:"),
    }
}

fn number(text: &str, name: &str) -> f64 {
    let found = text.lines().find_map(|line| line.strip_prefix(name));
    found.and_then(|number| number.trim().parse().ok()).unwrap()
}

fn print(when: &str, sample: &Sample) {
    for (name, held) in NAMES.iter().zip(&sample.processes) {
        println!(
            "{when:>10} {:6.1} min  {name:7} {:7.1} MiB  {:4} files  {:5} tasks",
            sample.at,
            held.memory / 1024.0 / 1024.0,
            held.files,
            held.tasks
        );
    }
    println!(
        "{when:>10} {:6.1} min  redis   {:7.1} MiB  {:4} connections",
        sample.at,
        sample.redis_memory / 1024.0 / 1024.0,
        sample.redis_connections
    );
}

/// Least squares: by how much y grows for one x.
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let mean = |pick: fn(&(f64, f64)) -> f64| points.iter().map(pick).sum::<f64>() / n;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let rise: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let run: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    rise / run
}

async fn start_load(app: &Arc<TestApp>, load: &Arc<Load>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for who in 0..4 {
        let user = app.login(&format!("user{who}")).await.at(app.chat(who % 2));
        for _ in 0..2 {
            tasks.spawn(talk(user.clone(), Arc::clone(load)));
            tasks.spawn(stream(user.clone(), Arc::clone(load)));
            tasks.spawn(socket(user.clone(), Arc::clone(load)));
        }
    }
    tasks.spawn(log_in(app.stranger(), Arc::clone(load)));
    tasks
}

/// A caller that waited in vain is missed from then on; the measuring goes on.
fn gave_up(load: &Load, ended: Result<(), JoinError>) {
    if ended.is_err() {
        load.failed("a caller waited in vain".into());
    }
}

/// What leaked, in words.
fn leaks(before: &Sample, loaded: &[Sample], rest: &Sample, load: &Load) -> Vec<String> {
    let mut leaks = Vec::new();
    let warm = (loaded.len() as f64 * WARM_UP) as usize;
    for (i, name) in NAMES.iter().enumerate() {
        let memory: Vec<_> =
            loaded.iter().skip(warm).map(|s| (s.at, s.processes[i].memory)).collect();
        let slope = slope(&memory);
        println!("     slope  {name:7} {:+.1} KiB a minute", slope / 1024.0);
        let (base, end) = (before.processes[i], rest.processes[i]);
        for (is_leak, what) in [
            (slope > SLOPE, format!("memory grows by {:.0} KiB a minute", slope / 1024.0)),
            (
                end.files > base.files + KEPT,
                format!("{} files at rest, {} before", end.files, base.files),
            ),
            (
                end.tasks > base.tasks + KEPT,
                format!("{} tasks at rest, {} before", end.tasks, base.tasks),
            ),
        ] {
            if is_leak {
                leaks.push(format!("{name}: {what}"));
            }
        }
    }
    if rest.redis_connections > before.redis_connections {
        leaks.push(format!(
            "{} connections to Redis at rest, {} before",
            rest.redis_connections, before.redis_connections
        ));
    }
    let failures = load.failures.lock().unwrap();
    leaks.extend(failures.iter().map(|(what, times)| format!("{what}, {times} times")));
    leaks
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let minutes: f64 = env::args().nth(1).map_or(30.0, |text| text.parse().expect("minutes"));
    let app = TestApp::builder(Backend::Redis)
        .chats(2)
        .set("llm.ollama.max_concurrency", 16)
        .set("telemetry.log_filter", "warn,common::http::serve=info")
        .start()
        .await;
    app.model.usually(Answer::echo_every(Duration::from_millis(20)));
    let app = Arc::new(app);
    let load = Arc::new(Load {
        over: AtomicBool::new(false),
        turns: AtomicU64::new(0),
        streams: AtomicU64::new(0),
        sockets: AtomicU64::new(0),
        logins: AtomicU64::new(0),
        failures: Mutex::default(),
    });
    let begun = Instant::now();
    let before = sample(&app, begun).await;
    print("before", &before);
    let mut tasks = start_load(&app, &load).await;
    let mut loaded = Vec::new();
    let mut shown = 0;
    while begun.elapsed().as_secs_f64() < minutes * 60.0 {
        sleep(SAMPLE_EVERY).await;
        app.model.forget();
        loaded.push(sample(&app, begun).await);
        if loaded.len() % 2 == 0 {
            trouble(&app).await;
        }
        let last = loaded.last().unwrap();
        if last.at >= minutes * f64::from(shown) / 4.0 {
            print("under load", last);
            shown += 1;
        }
        while let Some(ended) = tasks.try_join_next() {
            gave_up(&load, ended);
        }
    }
    load.over.store(true, Ordering::SeqCst);
    while let Some(ended) = tasks.join_next().await {
        gave_up(&load, ended);
    }
    drop(tasks);
    sleep(REST).await;
    let rest = sample(&app, begun).await;
    print("at rest", &rest);
    let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    println!(
        "{} whole answers, {} streams, {} answers on sockets, {} logins",
        count(&load.turns),
        count(&load.streams),
        count(&load.sockets),
        count(&load.logins)
    );
    let leaks = leaks(&before, &loaded, &rest, &load);
    for leak in &leaks {
        println!("LEAK or failure: {leak}");
    }
    if leaks.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

//! Seeing inside: what the metrics say, that nobody can make them grow, and one id from the caller to the model server.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream};
use serde_json::json;
use tests::{Answer, Backend, Client, Gate, PATIENCE, RedisOptions, TestApp, eventually, raw};

on_both_stores!(
    what_happens_is_measured_and_what_ends_is_over,
    strangers_cannot_make_the_metrics_grow,
    logins_refreshes_and_refusals_are_counted,
    a_request_id_goes_from_the_caller_to_the_model_server,
);

/// Every sample by its name and labels.
async fn samples(admin: &Client) -> BTreeMap<String, f64> {
    let text = admin.get("/metrics").await.text();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// Waits until what the service does by itself every second has been measured once, so that it is no growth later.
async fn background_calls_measured(admin: &Client) {
    tests::eventually(PATIENCE, "a background call is measured", || async {
        let samples = samples(admin).await;
        let is_there = samples.keys().any(|name| name.contains("op=\"read_each\""));
        is_there.then_some(())
    })
    .await;
}

async fn what_happens_is_measured_and_what_ends_is_over(on: Backend) {
    let app = TestApp::start(on).await;
    let (alice, gate) = (app.login("alice").await, Gate::new());
    let admin = app.stranger().at(app.chat_admin(0));
    app.model.answer_to("count", Answer::gated(["one ", "two"], &gate));
    let mut stream = alice.stream("work", "count").await;
    stream.started().await;
    let mut socket = alice.socket().await;
    let id = socket.say("other", "count").await;
    app.model.wait_chats(2).await;
    let running = samples(&admin).await;
    assert_eq!(running["chat_turns_running"], 2.0);
    assert_eq!(running["chat_watchers_open"], 2.0);
    assert_eq!(running["chat_sockets_open"], 1.0);
    assert_eq!(running["llm_running{provider=\"ollama\"}"], 2.0);
    gate.open();
    stream.rest().await;
    socket.rest_of(&id).await;
    socket.close().await;
    app.model.answer_to("fail", Answer::refuse(500, "", "{\"error\":\"no\"}"));
    alice.send("work", "fail").await.problem(502, "llm_failed");
    let gauges = [
        "chat_turns_running",
        "chat_watchers_open",
        "chat_sockets_open",
        "llm_running{provider=\"ollama\"}",
        "llm_queued{provider=\"ollama\"}",
        "llm_breaker_open{provider=\"ollama\"}",
    ];
    let after = eventually(PATIENCE, "the gauges are back at 0", || async {
        let now = samples(&admin).await;
        let is_looked_at = now.get("llm_up{provider=\"ollama\"}") == Some(&1.0);
        let are_zero = gauges.iter().all(|gauge| now.get(*gauge).is_none_or(|value| *value == 0.0));
        (is_looked_at && are_zero).then_some(now)
    })
    .await;
    for (sample, least) in [
        ("chat_turns_total{ending=\"stop\"}", 2.0),
        ("chat_turns_total{ending=\"llm_failed\"}", 1.0),
        ("llm_requests_total{provider=\"ollama\",result=\"ok\"}", 2.0),
        ("llm_requests_total{provider=\"ollama\",result=\"failed\"}", 1.0),
        ("llm_tokens_total{kind=\"completion\"}", 1.0),
        ("llm_time_to_first_token_seconds_count{provider=\"ollama\"}", 2.0),
        ("llm_queue_wait_seconds_count{provider=\"ollama\"}", 3.0),
        ("http_problems_total{service=\"chat\",code=\"llm_failed\"}", 1.0),
        ("store_calls_total{op=\"commit\",result=\"ok\"}", 4.0),
    ] {
        let value = after.get(sample).copied().unwrap_or_default();
        assert!(value >= least, "{sample} is {value}: {after:#?}");
    }
    every_metric_is_described(&admin).await;
    let completion = json!({"model": "gemma3:1b", "messages": [{"role": "user", "content": "hi"}]});
    alice.post("/v1/chat/completions", &completion).await.expect(200);
    what_operators_read_of_is_measured(&app).await;
}

/// Every metric that operators are told of is there, with the labels that the alarms ask for.
async fn what_operators_read_of_is_measured(app: &TestApp) {
    let chat = app.stranger().at(app.chat_admin(0)).get("/metrics").await;
    let auth = app.stranger().at(app.auth_admin()).get("/metrics").await;
    let text = format!("{}\n{}", chat.text(), auth.text());
    let page = std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md"),
    )
    .unwrap();
    let words = page.split(|c: char| !c.is_ascii_lowercase() && c != '_');
    let named = words.filter(|word| {
        let kinds = ["http_", "chat_", "llm_", "store_", "history_", "process_", "tokio_"];
        let ends = [
            "_total", "_seconds", "_bucket", "_open", "_running", "_queued", "_up", "_bytes",
            "_fds", "_alive",
        ];
        kinds.iter().any(|kind| word.starts_with(kind))
            && ends.iter().any(|end| word.ends_with(end))
    });
    let mut count = 0;
    for name in named {
        let family = name.trim_end_matches("_bucket");
        assert!(text.contains(&format!("# TYPE {family} ")), "{name} is not measured");
        count += 1;
    }
    assert!(count > 30, "{count} names in the page");
    for series in [
        "http_problems_total{service=\"auth\",code=\"invalid_credentials\"}",
        "http_problems_total{service=\"auth\",code=\"too_many_attempts\"}",
        "http_problems_total{service=\"chat\",code=\"internal\"} 0",
        "chat_turns_closed_for_dead_instances_total 0",
        "history_records_skipped_total 0",
    ] {
        assert!(text.contains(series), "{series} is missing");
    }
}

async fn logins_refreshes_and_refusals_are_counted(on: Backend) {
    let app = TestApp::start(on).await;
    let (somebody, admin) = (app.stranger(), app.stranger().at(app.auth_admin()));
    let account = json!({"user_id": "alice", "password": "quiet-harbour-71"});
    somebody.post("/auth/register", &account).await.expect(201);
    somebody.post("/auth/register", &account).await.expect(409);
    somebody.post("/auth/login", &account).await.expect(200);
    for user in ["alice", "nobody-at-all"] {
        let wrong = json!({"user_id": user, "password": "quiet-harbour-72"});
        somebody.post("/auth/login", &wrong).await.expect(401);
    }
    let bob = somebody.post("/auth/login", &json!({"user_id": "bob"})).await;
    let bob = bob.expect(200);
    let refresh = json!({"refresh_token": bob["refresh_token"]});
    let next = somebody.post("/auth/refresh", &refresh).await.expect(200);
    let next = json!({"refresh_token": next["refresh_token"]});
    somebody.post("/auth/refresh", &next).await.expect(200);
    let reused = somebody.post("/auth/refresh", &refresh).await;
    reused.problem(401, "token_reused");
    let seen = samples(&admin).await;
    for (sample, value) in [
        ("auth_registrations_total{result=\"ok\"}", 1.0),
        ("auth_registrations_total{result=\"user_exists\"}", 1.0),
        ("auth_logins_total{result=\"ok\",way=\"password\"}", 1.0),
        ("auth_logins_total{result=\"invalid_credentials\",way=\"password\"}", 2.0),
        ("auth_refreshes_total{result=\"ok\"}", 2.0),
        ("auth_refreshes_total{result=\"token_reused\"}", 1.0),
        ("auth_revocations_total{kind=\"login\"}", 1.0),
        ("auth_password_hash_seconds_count", 5.0),
        ("auth_password_wait_seconds_count", 5.0),
    ] {
        assert_eq!(seen.get(sample), Some(&value), "{sample}: {seen:#?}");
    }
    // The harness logs in as well.
    assert!(seen["auth_logins_total{result=\"ok\",way=\"open\"}"] >= 1.0);
    every_metric_is_described(&admin).await;
}

async fn every_metric_is_described(admin: &Client) {
    let text = admin.get("/metrics").await.text();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().unwrap();
            assert!(text.contains(&format!("# HELP {name} ")), "{name} says nothing");
        }
    }
}

async fn strangers_cannot_make_the_metrics_grow(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let admin = app.stranger().at(app.chat_admin(0));
    let ask = |number: usize| {
        let client = alice.clone();
        async move {
            let path = match number % 4 {
                0 => format!("/p{number}"),
                1 => format!("/chat/sessions/s{number}"),
                2 => format!("/chat/messages/m{number}/stream?x={number}"),
                _ => format!("/auth/{number}"),
            };
            let method = match number % 3 {
                0 => format!("M{number}"),
                1 => "GET".to_owned(),
                _ => "DELETE".to_owned(),
            };
            let request = client.request(method.parse().unwrap(), &path);
            client.fetch(request.header("x-request-id", format!("id{number}"))).await;
        }
    };
    let burst =
        |numbers: std::ops::Range<usize>| stream::iter(numbers.map(ask)).buffer_unordered(16);
    burst(0..240).collect::<Vec<()>>().await;
    background_calls_measured(&admin).await;
    let before = samples(&admin).await.len();
    burst(240..4000).collect::<Vec<()>>().await;
    let after = samples(&admin).await.len();
    // A status that did not come before may still come; a path or a method may not.
    assert!(after <= before + 40, "{before} samples became {after}");
}

/// So many paths that nobody had asked for, in one go on one connection; all are answered.
async fn ask_for_new_paths(admin: SocketAddr, count: usize) {
    let mut requests = String::new();
    for number in 0..count {
        let (id, last) = (uuid::Uuid::new_v4(), number + 1 == count);
        let path = match number % 4 {
            0 => format!("/{id}"),
            1 => format!("/chat/{id}"),
            2 => format!("/chat/sessions/{id}/messages?limit={number}"),
            _ => format!("/v1/{id}?{id}"),
        };
        let close = if last { "connection: close\r\n" } else { "" };
        requests += &format!("GET {path} HTTP/1.1\r\nhost: a\r\n{close}\r\n");
    }
    let mut connection = raw::Raw::connect(admin).await;
    connection.send(requests).await;
    let answers = connection.read_to_close(PATIENCE * 3).await;
    let answers = String::from_utf8_lossy(&answers);
    assert_eq!(answers.matches("HTTP/1.1 40").count(), count);
}

#[tokio::test]
async fn a_hundred_thousand_paths_leave_metrics_and_memory_as_they_were() {
    let app = TestApp::builder(Backend::Redis)
        .set("telemetry.log_filter", "error,common::http::serve=info")
        .start()
        .await;
    let admin = app.stranger().at(app.chat_admin(0));
    let ask = |batches: usize| {
        let one = |_| ask_for_new_paths(app.chat(0), 500);
        stream::iter(0..batches).map(one).buffer_unordered(4)
    };
    ask(8).collect::<Vec<()>>().await;
    background_calls_measured(&admin).await;
    let before = (samples(&admin).await.len(), app.chat_process(0).memory() / 1024 / 1024);
    ask(200).collect::<Vec<()>>().await;
    let after = (samples(&admin).await.len(), app.chat_process(0).memory() / 1024 / 1024);
    // What the service does by itself may be measured for the first time meanwhile.
    assert!(after.0 <= before.0 + 40, "{before:?} became {after:?}");
    assert!(after.1 <= before.1 + 20, "{before:?} became {after:?}");
}

async fn a_request_id_goes_from_the_caller_to_the_model_server(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let request = alice
        .request(reqwest::Method::POST, "/chat/message")
        .header("x-request-id", "from-the-caller-1")
        .json(&json!({"message": "hello"}));
    let reply = alice.fetch(request).await;
    assert_eq!(reply.header("x-request-id"), "from-the-caller-1");
    let head = app.model.chats()[0].head.to_lowercase();
    assert!(head.contains("x-request-id: from-the-caller-1\r\n"), "{head}");
    app.chat_process(0).log_line(&["\"request_id\":\"from-the-caller-1\""]).await;
    // Nobody named one: the one that was made goes all the way.
    let reply = alice.send("work", "again").await;
    let made = reply.header("x-request-id");
    let head = app.model.chats()[1].head.to_lowercase();
    assert!(head.contains(&format!("x-request-id: {made}\r\n")), "{head}");
}

#[tokio::test]
async fn a_redis_that_may_evict_is_warned_of_and_gates_nothing() {
    let options = RedisOptions {
        configuration: "maxmemory-policy allkeys-lru\n".into(),
        ..RedisOptions::default()
    };
    let app = TestApp::builder(Backend::Redis).redis(options).start().await;
    for (admin, process) in [(app.chat(0), app.chat_process(0)), (app.auth(), app.auth_process())] {
        let admin = app.stranger().at(admin);
        eventually(Duration::from_secs(5), "it says so and is ready", || async {
            let ready = admin.get("/readyz").await;
            let said = ready.json()["checks"]["eviction"].as_str()?.contains("allkeys-lru");
            (said && ready.status == 200).then_some(())
        })
        .await;
        process.log_line(&["set maxmemory-policy to noeviction"]).await;
    }
}

#[tokio::test]
async fn a_redis_that_does_not_tell_whether_it_may_evict_is_warned_of() {
    let app = TestApp::start(Backend::Redis).await;
    let limited = ["ACL", "SETUSER", "limited", "on", ">canary", "~*", "&*", "+@all", "-info"];
    app.redis().cli(&limited).await;
    let chat = app.spawn_chat_on(format!("redis://limited:canary@{}/0", app.redis().address()));
    let door = app.stranger().at(chat.address("chat", false).await);
    eventually(PATIENCE, "it says so and is ready", || async {
        let ready = door.get("/readyz").await;
        let said = ready.json()["checks"]["eviction"].as_str()?.contains("unknown");
        (said && ready.status == 200).then_some(())
    })
    .await;
    chat.log_line(&["see that maxmemory-policy is noeviction"]).await;
}

//! What frames of a WebSocket cost, and how many answers one socket may watch.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Answer, Backend, Gate, Socket, TestApp, raw::Raw};

on_both_stores!(
    every_frame_that_asks_costs_one_of_the_rate_limit,
    without_a_token_a_frame_costs_the_address,
    a_second_resume_takes_the_place_of_the_first,
    one_socket_watches_a_bounded_number_of_answers,
    a_handshake_has_one_good_key,
);

const NOBODYS: &str = "qg7f86fs5h0f-1-9npy1bhb";

async fn limited(on: Backend, requests: u32) -> TestApp {
    let app = TestApp::builder(on)
        .set("rate_limit.requests", requests)
        .set("rate_limit.period", "10m")
        .without_waiting()
        .start()
        .await;
    app.wait_up().await;
    app
}

fn asking(kind: &str, token: &str) -> Value {
    match kind {
        "auth" => json!({"type": "auth", "token": token, "ref": kind}),
        "message" => json!({"message": "hello", "ref": kind}),
        _ => json!({"type": kind, "message_id": NOBODYS, "ref": kind}),
    }
}

async fn every_frame_that_asks_costs_one_of_the_rate_limit(on: Backend) {
    // The handshake is the first call.
    let app = limited(on, 5).await;
    let alice = app.login("alice").await;
    let mut socket = alice.socket().await;
    for kind in ["cancel", "resume"] {
        socket.send(&asking(kind, alice.token())).await;
        assert_eq!(socket.with_ref(kind).await["code"], "message_not_found");
    }
    socket.send(&asking("auth", alice.token())).await;
    assert_eq!(socket.of_type("auth").await["user_id"], "alice");
    socket.send(&asking("message", alice.token())).await;
    assert_eq!(socket.with_ref("message").await["type"], "start");
    for kind in ["cancel", "resume", "auth", "message"] {
        socket.send(&asking(kind, alice.token())).await;
        let refused = socket.with_ref(kind).await;
        assert_eq!(refused["code"], "rate_limited", "{kind}: {refused}");
        assert!(refused["retry_after"].as_u64() > Some(0), "{refused}");
    }
    alice.get("/chat/sessions").await.problem(429, "rate_limited");
}

async fn without_a_token_a_frame_costs_the_address(on: Backend) {
    let app = limited(on, 3).await;
    let mut socket = app.stranger().socket().await;
    for kind in ["cancel", "resume"] {
        socket.send(&asking(kind, "")).await;
        assert_eq!(socket.with_ref(kind).await["code"], "message_not_found");
    }
    socket.send(&asking("cancel", "")).await;
    assert_eq!(socket.with_ref("cancel").await["code"], "rate_limited");
}

/// Waits until every frame that was sent before has been handled.
async fn handled(socket: &mut Socket) {
    socket.send(&json!({"type": "cancel", "message_id": NOBODYS, "ref": "handled"})).await;
    socket.with_ref("handled").await;
}

async fn a_second_resume_takes_the_place_of_the_first(on: Backend) {
    let app = TestApp::builder(on).chats(2).start().await;
    for at in 0..app.instances() {
        let gate = Gate::new();
        let question = format!("count-{at}");
        app.model.answer_to(&question, Answer::gated(["one ", "two ", "three"], &gate));
        let alice = app.login("alice").await;
        let mut stream = alice.stream(&question, &question).await;
        let id = stream.started().await;
        let mut socket = alice.at(app.chat(at)).socket().await;
        for _ in 0..5 {
            socket.send(&json!({"type": "resume", "message_id": id, "last_event_id": 1})).await;
        }
        handled(&mut socket).await;
        gate.open();
        let events = socket.rest_of(&id).await;
        let ids: Vec<u64> = events.iter().map(|event| event.id).collect();
        let mut once = ids.clone();
        once.dedup();
        assert!(ids.is_sorted() && once == ids, "{ids:?}");
        events.last().unwrap().expect_done("stop");
        socket.silent_for(Duration::from_millis(300)).await;
    }
}

async fn one_socket_watches_a_bounded_number_of_answers(on: Backend) {
    let app = TestApp::builder(on).set("llm.ollama.max_concurrency", 80).start().await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["done"], &gate));
    let alice = app.login("alice").await;
    let mut ids = Vec::new();
    for number in 0..65 {
        let mut stream = alice.stream(&format!("s{number}"), "hello").await;
        ids.push(stream.started().await);
    }
    let mut socket = alice.socket().await;
    let resume = |id: &String, reference: &str| json!({"type": "resume", "message_id": id, "last_event_id": 1, "ref": reference});
    for id in &ids[..64] {
        socket.send(&resume(id, "r")).await;
    }
    socket.send(&resume(&ids[64], "last")).await;
    assert_eq!(socket.with_ref("last").await["code"], "overloaded");
    socket.send(&resume(&ids[0], "again")).await;
    handled(&mut socket).await;
    gate.open();
    for id in &ids[..64] {
        socket.ending_of(id).await.expect_done("stop");
    }
}

async fn a_handshake_has_one_good_key(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    const GOOD: &str = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let doubled = GOOD.repeat(2);
    let keys =
        ["", "sec-websocket-key: x\r\n", "sec-websocket-key: dGhlIHNhbXBsZQ==\r\n", &doubled];
    for key in keys {
        let mut raw = Raw::connect(app.chat(0)).await;
        raw.send(format!(
            "GET /chat/ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\n{key}authorization: Bearer {}\r\n\r\n",
            alice.token()
        ))
        .await;
        assert_eq!(raw.read_reply().await.status, 400, "{key}");
    }
    Raw::connect(app.chat(0)).await.upgrade(alice.token()).await;
}

//! Readers that are slow, silent or many: they pay for it themselves.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Answer, Backend, PATIENCE, TestApp, eventually, raw, text_of};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

on_both_stores!(
    a_reader_who_takes_nothing_is_cut_and_nobody_else_notices,
    a_reader_who_waited_is_not_slow_however_much_comes_at_once,
    a_socket_that_takes_nothing_is_cut,
    a_socket_that_takes_nothing_holds_up_no_other_caller_of_its_sessions,
    a_silent_model_is_covered_by_comments,
    the_first_token_is_not_held_back,
    connections_cut_in_the_middle_of_a_request_do_no_harm,
);

/// A connection with a small window that sends a request and reads nothing.
async fn deaf(app: &TestApp, request: String) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(app.chat(0)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads slowly enough to stay behind, and gives what came before the end.
async fn drain(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    tests::within(Duration::from_secs(60), "the connection ends", stream.read_to_end(&mut bytes))
        .await
        .ok();
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn a_reader_who_takes_nothing_is_cut_and_nobody_else_notices(on: Backend) {
    let app = TestApp::start(on).await;
    app.model.answer_to("flood", Answer::endless("0123", Duration::ZERO));
    let (alice, bob) = (app.login("alice").await, app.login("bob").await);
    let body =
        json!({"session_id": "work", "message": "flood", "on_disconnect": "cancel"}).to_string();
    let request = format!(
        "POST /chat/message?stream=true HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        alice.token(),
        body.len()
    );
    let stream = deaf(&app, request).await;
    app.model.wait_chats(1).await;
    let start = Instant::now();
    assert_eq!(bob.say("work", "hello").await, "You said: hello");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    eventually(Duration::from_secs(60), "the flood ends", || async {
        (app.model.open() == 0).then_some(())
    })
    .await;
    let seen = drain(stream).await;
    assert!(seen.starts_with("HTTP/1.1 200"), "{}", &seen[..seen.len().min(200)]);
    assert!(!seen.contains("event: done"), "a reader so far behind is cut");
}

/// Silence, and then more at once than a reader may be behind.
fn burst() -> Answer {
    Answer::new().wait(Duration::from_secs(2)).token("x".repeat(300_000)).done("stop")
}

async fn a_reader_who_waited_is_not_slow_however_much_comes_at_once(on: Backend) {
    let app = TestApp::start(on).await;
    app.model.usually(burst());
    let alice = app.login("alice").await;
    let (whole, streamed) = tokio::join!(alice.say("work", "hello"), async {
        text_of(&alice.stream("elsewhere", "hello").await.rest().await)
    });
    assert_eq!((whole.len(), streamed.len()), (300_000, 300_000));
}

#[tokio::test]
async fn who_waits_on_another_instance_is_not_slow_however_much_comes_at_once() {
    let app = TestApp::builder(Backend::Redis).chats(2).start().await;
    app.model.usually(burst());
    let alice = app.login("alice").await;
    let there = alice.at(app.chat(1));
    let body = json!({"session_id": "work", "message": "hello"});
    let keyed = alice
        .request(reqwest::Method::POST, "/chat/message?stream=true")
        .header("idempotency-key", "once");
    let mut here = alice.open(keyed.json(&body)).await;
    let id = here.started().await;
    let (whole, streamed, here) = tokio::join!(
        there.send_once("once", &body),
        async { there.resume(&id, 0).await.rest().await },
        here.rest()
    );
    let whole = whole.expect(200);
    assert_eq!(whole["reply"].as_str().map(str::len), Some(300_000));
    assert_eq!(text_of(&streamed).len(), 300_000);
    assert_eq!(text_of(&here).len(), 300_000);
}

async fn a_socket_that_takes_nothing_is_cut(on: Backend) {
    let app = TestApp::start(on).await;
    app.model.answer_to("flood", Answer::endless("0123", Duration::ZERO));
    let alice = app.login("alice").await;
    let request = format!(
        "GET /chat/ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nauthorization: Bearer {}\r\n\r\n",
        alice.token()
    );
    let mut stream = deaf(&app, request).await;
    let message =
        json!({"session_id": "work", "message": "flood", "on_disconnect": "cancel"}).to_string();
    stream
        .write_all(&raw::frame(0x81, true, message.len() as u64, message.as_bytes()))
        .await
        .unwrap();
    app.model.wait_chats(1).await;
    eventually(Duration::from_secs(60), "the flood ends", || async {
        (app.model.open() == 0).then_some(())
    })
    .await;
    let seen = drain(stream).await;
    assert!(seen.starts_with("HTTP/1.1 101"), "{}", &seen[..seen.len().min(200)]);
    assert!(!seen.contains("\"finish_reason\""), "a reader so far behind is cut");
}

async fn a_socket_that_takes_nothing_holds_up_no_other_caller_of_its_sessions(on: Backend) {
    let app = TestApp::start(on).await;
    let gate = tests::Gate::new();
    app.model.answer_to("first", Answer::gated(["x"], &gate));
    app.model.answer_to("flood", Answer::endless(&"x".repeat(1000), Duration::ZERO));
    let alice = app.login("alice").await;
    let mut first = alice.stream("work", "first").await;
    app.model.wait_chats(1).await;
    let handshake = format!(
        "GET /chat/ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nauthorization: Bearer {}\r\n\r\n",
        alice.token()
    );
    let mut stream = deaf(&app, handshake).await;
    // It waits for its turn in `work`, and then takes nothing of an answer elsewhere.
    for (session, message) in [("work", "second"), ("elsewhere", "flood")] {
        let message = json!({"session_id": session, "message": message}).to_string();
        let frame = raw::frame(0x81, true, message.len() as u64, message.as_bytes());
        stream.write_all(&frame).await.unwrap();
    }
    app.model.wait_chats(2).await;
    // Ended for its length: four times what may be unsent to one reader.
    eventually(PATIENCE, "the flood ends", || async { (app.model.open() == 1).then_some(()) })
        .await;
    gate.open();
    first.rest().await;
    let asked = Instant::now();
    assert_eq!(alice.say("work", "third").await, "You said: third");
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}

async fn a_silent_model_is_covered_by_comments(on: Backend) {
    let app = TestApp::start(on).await;
    app.model.usually(Answer::new().wait(Duration::from_secs(17)).token("late").done("stop"));
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "hello").await;
    stream.started().await;
    let token = stream.next_within(Duration::from_secs(30)).await.unwrap();
    assert_eq!(token.data["token"], "late");
    assert!(stream.comments >= 1, "no heartbeat in 17 s of silence");
    stream.rest().await;
}

async fn the_first_token_is_not_held_back(on: Backend) {
    let app = TestApp::start(on).await;
    let gate = tests::Gate::new();
    app.model.usually(Answer::gated(["x", "y"], &gate));
    let alice = app.login("alice").await;
    let request = alice.request(reqwest::Method::POST, "/chat/message?stream=true");
    let request = request.header("accept-encoding", "gzip, br").json(&json!({"message": "hello"}));
    let mut stream = alice.open(request).await;
    stream.started().await;
    app.model.wait_chats(1).await;
    gate.release(1);
    let start = Instant::now();
    assert_eq!(stream.next_but_queued().await.unwrap().data["token"], "x");
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    gate.open();
    assert_eq!(text_of(&stream.rest().await), "y");
}

async fn connections_cut_in_the_middle_of_a_request_do_no_harm(on: Backend) {
    let app = TestApp::builder(on).set("chat.disconnect_grace", "1s").start().await;
    let alice = app.login("alice").await;
    let body = json!({"session_id": "work", "message": "hello"}).to_string();
    let request = format!(
        "POST /chat/message?stream=true HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        alice.token(),
        body.len()
    );
    for cut in [1, 20, request.len() - body.len(), request.len() - 1, request.len()] {
        let mut raw = raw::Raw::connect(app.chat(0)).await;
        raw.send(&request.as_bytes()[..cut]).await;
        raw.reset();
    }
    alice.say("work", "after").await;
    app.model.wait_idle(Duration::from_secs(5)).await;
    assert!(!app.logs().contains("panicked"), "{}", app.logs());
}

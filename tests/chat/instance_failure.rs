//! Instances end, politely or not: who watches elsewhere is told, and the session goes on.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Answer, Auditor, Backend, Gate, PATIENCE, TestApp, eventually, text_of};

on_both_stores!(
    running_answers_are_finished_before_the_end,
    what_outlasts_the_drain_ends_as_interrupted,
    a_second_signal_ends_it_at_once,
    an_idle_socket_is_told_of_the_end,
    forty_readers_are_told_how_their_answers_ended,
);

#[tokio::test]
async fn an_answer_whose_instance_was_killed_ends_as_interrupted_elsewhere() {
    let app = TestApp::builder(Backend::Redis).chats(2).set("chat.lease", "3s").start().await;
    let gate = Gate::new();
    app.model.answer_to("count", Answer::gated(["one ", "two ", "three"], &gate));
    let alice = app.login("alice").await;
    let mut own = alice.stream("work", "count").await;
    let id = own.started().await;
    let elsewhere = alice.at(app.chat(1));
    let mut watch = elsewhere.resume(&id, 1).await;
    let mut socket = elsewhere.socket().await;
    socket.send(&json!({"type": "resume", "message_id": id, "last_event_id": 1})).await;
    gate.release(1);
    assert_eq!(watch.next_but_queued().await.unwrap().data["token"], "one ");
    let start = Instant::now();
    app.chat_process(0).kill();
    let rest = watch.rest().await;
    rest.last().unwrap().expect_error(503, "interrupted");
    assert_eq!(rest.last().unwrap().data["retryable"], true);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    socket.ending_of(&id).await.expect_error(503, "interrupted");
    assert_eq!(elsewhere.say("work", "go on").await, "You said: go on");
    let history = elsewhere.history("work").await;
    assert_eq!(
        (history[0]["content"].as_str(), history[1]["finish_reason"].as_str()),
        (Some("count"), Some("interrupted"))
    );
    assert!(text_of(&rest).len() <= "two ".len());
}

#[tokio::test]
async fn an_instance_that_froze_cannot_store_a_second_answer() {
    let app = TestApp::builder(Backend::Redis).chats(2).set("chat.lease", "2s").start().await;
    let gate = Gate::new();
    app.model.answer_to("count", Answer::gated(["one ", "two"], &gate));
    let alice = app.login("alice").await;
    let mut own = alice.stream("work", "count").await;
    own.started().await;
    app.chat_process(0).freeze();
    let elsewhere = alice.at(app.chat(1));
    assert_eq!(elsewhere.say("work", "go on").await, "You said: go on");
    let before = elsewhere.talk("work").await;
    gate.open();
    app.chat_process(0).thaw();
    let last = own.rest().await.pop().unwrap();
    assert_eq!(last.kind, "error", "{last:?}");
    assert_eq!(elsewhere.talk("work").await, before, "the stale answer was refused");
}

#[tokio::test]
async fn kills_under_load_lose_no_acknowledged_turn() {
    let mut app = TestApp::builder(Backend::Redis).chats(2).set("chat.lease", "1s").start().await;
    let (alice, auditor) = (app.login("alice").await, Auditor::new());
    for round in 0..6 {
        for number in 0..4 {
            let instance = alice.at(app.chat((round + number) % 2));
            let message = format!("round {round} message {number}");
            let reply = instance.send("work", &message).await.expect(200);
            auditor.acknowledge("work", &message, reply["reply"].as_str().unwrap());
        }
        let first = alice.at(app.chat(0));
        let left_open = first.stream("work", &format!("round {round} open")).await;
        app.restart_chat(0).await;
        drop(left_open);
    }
    auditor.check(&alice.at(app.chat(0))).await;
}

#[tokio::test]
async fn a_stop_while_the_store_is_frozen_tells_every_reader_how_it_ended() {
    let app = TestApp::builder(Backend::Redis).set("server.drain_timeout", "1s").start().await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["one ", "two"], &gate));
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "count").await;
    stream.started().await;
    let whole = alice.clone();
    let whole = tokio::spawn(async move { whole.send("whole", "count").await });
    let mut socket = alice.socket().await;
    let id = socket.say("other", "count").await;
    app.model.wait_chats(3).await;
    gate.release(1);
    assert_eq!(stream.next_but_queued().await.unwrap().data["token"], "one ");
    app.redis().freeze();
    app.chat_process(0).terminate();
    stream.ending().await.expect_error(503, "interrupted");
    socket.ending_of(&id).await.expect_error(503, "interrupted");
    whole.await.unwrap().problem(503, "interrupted");
    assert_eq!(app.chat_process(0).wait_exit(PATIENCE).await, Some(0));
}

async fn running_answers_are_finished_before_the_end(on: Backend) {
    let app = TestApp::start(on).await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["one ", "two"], &gate));
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "count").await;
    stream.started().await;
    let mut socket = alice.socket().await;
    let id = socket.say("other", "count").await;
    app.chat_process(0).terminate();
    eventually(PATIENCE, "it says that it drains", || async {
        (alice.get("/readyz").await.status == 503).then_some(())
    })
    .await;
    let refused = alice.send("third", "too late").await;
    refused.problem(503, "shutting_down");
    assert_eq!(refused.header("connection"), "close");
    gate.open();
    assert_eq!(text_of(&stream.rest().await), "one two");
    socket.ending_of(&id).await.expect_done("stop");
    let closed = socket.closed(PATIENCE).await;
    assert_eq!(closed.code, 1001, "{closed:?}");
    assert_eq!(app.chat_process(0).wait_exit(PATIENCE).await, Some(0));
    assert!(app.model.chats().iter().all(|chat| chat.last_message() != "too late"));
}

async fn what_outlasts_the_drain_ends_as_interrupted(on: Backend) {
    let mut app = TestApp::builder(on).set("server.drain_timeout", "1s").start().await;
    app.model.answer_to("count", Answer::partial(["half"]).hang());
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "count").await;
    stream.started().await;
    stream.next_but_queued().await.unwrap();
    let asking = alice.clone();
    let whole = tokio::spawn(async move { asking.send("whole", "count").await });
    app.model.wait_chats(2).await;
    app.chat_process(0).terminate();
    stream.ending().await.expect_error(503, "interrupted");
    whole.await.unwrap().problem(503, "interrupted");
    assert_eq!(app.chat_process(0).wait_exit(Duration::from_secs(10)).await, Some(0));
    app.restart_chat(0).await;
    let alice = app.stranger().with_token(alice.token());
    let answer = alice.history("work").await.remove(1);
    assert_eq!(
        (answer["content"].as_str(), answer["finish_reason"].as_str()),
        (Some("half"), Some("interrupted"))
    );
    assert_eq!(alice.say("work", "go on").await, "You said: go on");
}

async fn a_second_signal_ends_it_at_once(on: Backend) {
    let app = TestApp::start(on).await;
    app.model.usually(Answer::new().hang());
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "count").await;
    stream.started().await;
    app.chat_process(0).terminate();
    eventually(PATIENCE, "it drains", || async {
        (alice.get("/readyz").await.status == 503).then_some(())
    })
    .await;
    app.chat_process(0).terminate();
    app.chat_process(0).wait_exit(Duration::from_secs(3)).await;
}

async fn an_idle_socket_is_told_of_the_end(on: Backend) {
    let app = TestApp::start(on).await;
    let mut socket = app.login("alice").await.socket().await;
    let id = socket.say("work", "hello").await;
    socket.rest_of(&id).await;
    app.chat_process(0).terminate();
    let closed = socket.closed(PATIENCE).await;
    assert_eq!(closed.code, 1001, "{closed:?}");
    assert_eq!(app.chat_process(0).wait_exit(PATIENCE).await, Some(0));
}

/// 20 streams and 20 sockets in the middle of an answer, half of which the drain leaves time for.
async fn forty_readers_are_told_how_their_answers_ended(on: Backend) {
    let app = TestApp::builder(on)
        .set("server.drain_timeout", "3s")
        .set("llm.ollama.max_concurrency", 100)
        .start()
        .await;
    let gate = Gate::new();
    app.model.answer_to("short", Answer::gated(["one ", "two"], &gate));
    app.model.answer_to("endless", Answer::partial(["one "]).hang());
    let (mut streams, mut sockets) = (Vec::new(), Vec::new());
    for number in 0..20 {
        let user = app.login(&format!("user-{number}")).await;
        let text = if number % 2 == 0 { "short" } else { "endless" };
        let mut stream = user.stream("streamed", text).await;
        stream.started().await;
        let mut socket = user.socket().await;
        let id = socket.say("talked", text).await;
        streams.push((text, stream));
        sockets.push((text, socket, id));
    }
    app.model.wait_chats(40).await;
    let start = Instant::now();
    app.chat_process(0).terminate();
    eventually(PATIENCE, "it drains", || async {
        (app.stranger().get("/readyz").await.status == 503).then_some(())
    })
    .await;
    gate.open();
    let told = |text: &str, events: &[tests::Event]| match text {
        "short" => {
            assert_eq!(text_of(events), "one two");
            events.last().unwrap().expect_done("stop");
        }
        _ => events.last().unwrap().expect_error(503, "interrupted"),
    };
    for (text, mut stream) in streams {
        told(text, &stream.rest().await);
    }
    for (text, mut socket, id) in sockets {
        told(text, &socket.rest_of(&id).await);
        assert_eq!(socket.closed(PATIENCE).await.code, 1001);
    }
    assert_eq!(app.chat_process(0).wait_exit(PATIENCE).await, Some(0));
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

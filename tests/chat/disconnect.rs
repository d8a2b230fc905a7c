//! What a reader's leaving means to the model: `on_disconnect` and the grace decide.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Answer, Backend, Gate, PATIENCE, TestApp, eventually};

on_both_stores!(
    a_reader_who_leaves_stops_the_model_after_the_grace,
    a_reader_who_leaves_before_the_first_token_stops_the_model,
    a_whole_request_that_is_given_up_stops_the_model_at_once,
    continue_lets_the_model_finish,
    cancel_stops_the_model_at_once,
    seconds_are_a_grace_of_ones_own,
    somebody_who_comes_back_in_time_keeps_the_model_going,
    leaving_the_queue_means_never_being_asked,
    a_socket_that_closes_is_a_reader_who_left,
);

const SECOND: Duration = Duration::from_secs(1);

async fn app(on: Backend) -> TestApp {
    TestApp::builder(on).set("chat.disconnect_grace", "1s").start().await
}

/// Starts a streamed turn, reads its start and one token, and leaves.
async fn read_one_token_and_leave(
    app: &TestApp,
    on_disconnect: Option<Value>,
) -> (tests::Client, Gate) {
    let gate = Gate::new();
    app.model.usually(Answer::gated(["one ", "two ", "three"], &gate));
    let alice = app.login("alice").await;
    let mut body = json!({"session_id": "work", "message": "count"});
    if let Some(value) = on_disconnect {
        body["on_disconnect"] = value;
    }
    let mut stream = alice.stream_body(&body).await;
    stream.started().await;
    gate.release(1);
    assert_eq!(stream.next_but_queued().await.unwrap().data["token"], "one ");
    (alice, gate)
}

async fn ended_as(client: &tests::Client, reason: &str, content: &str) {
    eventually(PATIENCE, &format!("the answer ends as {reason}"), || async {
        let history = client.history("work").await;
        let answer = history.get(1)?;
        assert_eq!(
            (&answer["finish_reason"], &answer["content"]),
            (&json!(reason), &json!(content))
        );
        Some(())
    })
    .await;
}

async fn a_reader_who_leaves_stops_the_model_after_the_grace(on: Backend) {
    let app = app(on).await;
    let (alice, _gate) = read_one_token_and_leave(&app, None).await;
    let after = app.model.left_after("count", Instant::now(), PATIENCE).await;
    assert!(after > SECOND / 2 && after < SECOND * 3, "{after:?}");
    ended_as(&alice, "cancelled", "one ").await;
}

async fn a_reader_who_leaves_before_the_first_token_stops_the_model(on: Backend) {
    let app = app(on).await;
    app.model.usually(Answer::new().hang());
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "count").await;
    stream.started().await;
    app.model.wait_chats(1).await;
    drop(stream);
    let after = app.model.left_after("count", Instant::now(), PATIENCE).await;
    assert!(after < SECOND * 3, "{after:?}");
    app.model.usually(Answer::echo());
    alice.say("work", "again").await;
    let texts: Vec<String> = alice.talk("work").await.into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["count", "again", "You said: again"]);
}

async fn a_whole_request_that_is_given_up_stops_the_model_at_once(on: Backend) {
    let app = TestApp::start(on).await;
    app.model.usually(Answer::partial(["one "]).hang());
    let alice = app.login("alice").await;
    let asking = alice.clone();
    let request = tokio::spawn(async move { asking.send("work", "count").await });
    app.model.wait_chats(1).await;
    request.abort();
    let after = app.model.left_after("count", Instant::now(), PATIENCE).await;
    assert!(after < SECOND * 2, "{after:?}");
    let reason = eventually(PATIENCE, "the turn has ended", || async {
        let history = alice.history("work").await;
        history.get(1).map(|answer| answer["finish_reason"].clone())
    })
    .await;
    assert_eq!(reason, "cancelled");
}

async fn continue_lets_the_model_finish(on: Backend) {
    let app = app(on).await;
    let (alice, gate) = read_one_token_and_leave(&app, Some(json!("continue"))).await;
    app.grace_passes().await;
    assert_eq!(app.model.open(), 1, "still asked, past the grace");
    gate.open();
    ended_as(&alice, "stop", "one two three").await;
}

async fn cancel_stops_the_model_at_once(on: Backend) {
    let app = TestApp::start(on).await;
    let (alice, _gate) = read_one_token_and_leave(&app, Some(json!("cancel"))).await;
    let after = app.model.left_after("count", Instant::now(), PATIENCE).await;
    assert!(after < SECOND, "{after:?}");
    ended_as(&alice, "cancelled", "one ").await;
}

async fn seconds_are_a_grace_of_ones_own(on: Backend) {
    let app = TestApp::start(on).await;
    let (_alice, _gate) = read_one_token_and_leave(&app, Some(json!(2))).await;
    let after = app.model.left_after("count", Instant::now(), PATIENCE).await;
    assert!(after > SECOND && after < SECOND * 4, "{after:?}");
}

async fn somebody_who_comes_back_in_time_keeps_the_model_going(on: Backend) {
    let app = TestApp::builder(on).chats(2).set("chat.disconnect_grace", "2s").start().await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["one ", "two"], &gate));
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "count").await;
    let id = stream.started().await;
    drop(stream);
    let mut back = alice.at(app.chat(app.instances() - 1)).resume(&id, 1).await;
    app.grace_passes().await;
    assert_eq!(app.model.open(), 1, "still asked");
    gate.open();
    back.ending().await.expect_done("stop");
}

async fn leaving_the_queue_means_never_being_asked(on: Backend) {
    let app = TestApp::builder(on).set("llm.ollama.max_concurrency", 1).start().await;
    let gate = Gate::new();
    app.model.answer_to("first", Answer::gated(["done"], &gate));
    let alice = app.login("alice").await;
    let mut running = alice.stream("one", "first").await;
    running.started().await;
    app.model.wait_chats(1).await;
    let mut waiting = alice
        .stream_body(&json!({"session_id": "two", "message": "second", "on_disconnect": "cancel"}))
        .await;
    let id = waiting.started().await;
    assert_eq!(waiting.next().await.unwrap().kind, "queued");
    drop(waiting);
    eventually(PATIENCE, "the turn has ended", || async {
        // A look is a watcher too; it must not stay.
        let mut look = alice.resume(&id, 1).await;
        let seen = tokio::time::timeout(SECOND / 4, look.rest()).await.ok()?;
        seen.last().unwrap().expect_done("cancelled");
        Some(())
    })
    .await;
    gate.open();
    running.rest().await;
    alice.say("three", "third").await;
    assert!(app.model.chats().iter().all(|chat| chat.last_message() != "second"));
}

async fn a_socket_that_closes_is_a_reader_who_left(on: Backend) {
    let app = app(on).await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["one ", "two"], &gate));
    let alice = app.login("alice").await;
    let mut socket = alice.socket().await;
    let id = socket.say("work", "count").await;
    gate.release(1);
    socket.next_of(&id).await;
    socket.close().await;
    app.model.left_after("count", Instant::now(), SECOND * 5).await;
    ended_as(&alice, "cancelled", "one ").await;
}

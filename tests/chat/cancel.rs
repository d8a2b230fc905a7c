//! Stopping an answer by a call, from wherever its owner is.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use tests::{Answer, Backend, Gate, PATIENCE, TestApp, text_of};

on_both_stores!(
    an_answer_is_stopped_from_another_instance,
    a_whole_request_that_waits_gets_the_text_so_far,
    stopping_what_has_ended_changes_nothing,
    only_the_owner_stops_an_answer,
    a_turn_that_waits_for_its_place_can_be_stopped,
);

async fn an_answer_is_stopped_from_another_instance(on: Backend) {
    let app = TestApp::builder(on).chats(2).start().await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["one ", "two ", "three"], &gate));
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "count").await;
    let id = stream.started().await;
    gate.release(2);
    assert_eq!(stream.next_but_queued().await.unwrap().data["token"], "one ");
    assert_eq!(stream.next().await.unwrap().data["token"], "two ");
    let stopped = Instant::now();
    assert_eq!(alice.at(app.chat(app.instances() - 1)).cancel(&id).await.status, 202);
    let after = app.model.left_after("count", stopped, PATIENCE).await;
    assert!(after < Duration::from_secs(2), "{after:?}");
    let rest = stream.rest().await;
    rest.last().unwrap().expect_done("cancelled");
    let answer = alice.history("work").await.remove(1);
    assert_eq!(
        (answer["finish_reason"].as_str(), answer["content"].as_str()),
        (Some("cancelled"), Some("one two "))
    );
    app.model.usually(Answer::echo());
    alice.say("work", "go on").await;
    assert_eq!(
        app.model.asked("go on").messages()[1].1,
        "one two ",
        "the partial answer is part of the next prompt"
    );
}

async fn a_whole_request_that_waits_gets_the_text_so_far(on: Backend) {
    let app = TestApp::start(on).await;
    app.model.usually(Answer::partial(["one ", "two "]).hang());
    let alice = app.login("alice").await;
    let (asking, body) = (alice.clone(), json!({"session_id": "work", "message": "count"}));
    let whole = body.clone();
    let waiting = tokio::spawn(async move { asking.send_once("k", &whole).await });
    app.model.wait_chats(1).await;
    let joining = alice
        .request(Method::POST, "/chat/message?stream=true")
        .header("idempotency-key", "k")
        .json(&body);
    let mut watch = alice.open(joining).await;
    let id = watch.started().await;
    while watch.next().await.unwrap().data["token"] != "two " {}
    alice.cancel(&id).await.expect(202);
    let answer = waiting.await.unwrap().expect(200);
    assert_eq!(
        (answer["reply"].as_str(), answer["finish_reason"].as_str()),
        (Some("one two "), Some("cancelled"))
    );
}

async fn stopping_what_has_ended_changes_nothing(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "hello").await;
    let id = stream.started().await;
    assert_eq!(text_of(&stream.rest().await), "You said: hello");
    assert_eq!(alice.cancel(&id).await.status, 202);
    let history = alice.history("work").await;
    assert_eq!(history[1]["finish_reason"], "stop");
    let users = history[0]["message_id"].as_str().unwrap();
    alice.cancel(users).await.problem(404, "message_not_found");
    alice.get(&format!("/chat/messages/{users}/stream")).await.problem(404, "message_not_found");
}

async fn only_the_owner_stops_an_answer(on: Backend) {
    let app = TestApp::start(on).await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["one"], &gate));
    let (alice, bob) = (app.login("alice").await, app.login("bob").await);
    let mut stream = alice.stream("work", "count").await;
    let id = stream.started().await;
    bob.cancel(&id).await.problem(404, "message_not_found");
    let mut socket = bob.socket().await;
    socket.send(&json!({"type": "cancel", "message_id": id})).await;
    assert_eq!(socket.of_type("error").await["code"], "message_not_found");
    gate.open();
    stream.ending().await.expect_done("stop");
}

async fn a_turn_that_waits_for_its_place_can_be_stopped(on: Backend) {
    let app = TestApp::builder(on).set("llm.ollama.max_concurrency", 1).start().await;
    let gate = Gate::new();
    app.model.answer_to("first", Answer::gated(["done"], &gate));
    let alice = app.login("alice").await;
    let mut running = alice.stream("one", "first").await;
    running.started().await;
    let mut waiting = alice.stream("two", "second").await;
    let id = waiting.started().await;
    assert_eq!(alice.cancel(&id).await.status, 202);
    waiting.ending().await.expect_done("cancelled");
    gate.open();
    running.rest().await;
}

//! The walk that everybody takes first: log in, send a message, read the answer on every wire.

use serde_json::json;
use tests::{Answer, Backend, Event, Gate, TestApp, read_frames, text_of};

on_both_stores!(
    a_message_is_answered_whole,
    a_message_is_answered_in_a_stream,
    lines_of_json_carry_the_same_events,
    a_socket_carries_several_turns,
    a_socket_cancels,
    a_socket_resumes,
    messages_without_a_session_share_the_default_one,
);

async fn a_message_is_answered_whole(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let body = json!({"message": "Hello there", "user_id": "alice", "session_id": "work"});
    let reply = alice.post("/chat/message", &body).await;
    assert!(
        reply.header("cache-control").contains("no-store") && !reply.header("ratelimit").is_empty()
    );
    let answer = reply.expect(200);
    assert_eq!(answer["reply"], "You said: Hello there");
    assert_eq!((&answer["user_id"], &answer["session_id"]), (&json!("alice"), &json!("work")));
    assert_eq!((&answer["model"], &answer["provider"]), (&json!("gemma3:1b"), &json!("ollama")));
    assert_eq!(answer["finish_reason"], "stop");
    assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() > 0, "{answer}");
    assert_eq!(answer["context"]["window"], 8192);
    assert_eq!(answer["context"]["dropped_messages"], 0);
    let history = alice.history("work").await;
    assert_eq!(history.len(), 2);
    assert_eq!(history[1]["message_id"], answer["message_id"]);
    assert_eq!(history[1]["reply_to"], history[0]["message_id"]);
    assert_eq!(history[1]["finish_reason"], "stop");
}

async fn a_message_is_answered_in_a_stream(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "Hello there").await;
    let message_id = stream.started().await;
    let events = stream.rest().await;
    check_answer(&events, "You said: Hello there");
    let history = alice.history("work").await;
    assert_eq!(history[1]["message_id"], message_id.as_str());
    assert_eq!(history[1]["content"], "You said: Hello there");
}

async fn lines_of_json_carry_the_same_events(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let request = alice.request(reqwest::Method::POST, "/chat/message?stream=true");
    let request =
        request.header("accept", "application/x-ndjson").json(&json!({"message": "Hello there"}));
    let reply = alice.fetch(request).await;
    assert!(
        reply.header("content-type").starts_with("application/x-ndjson"),
        "{:?}",
        reply.headers
    );
    let events = read_frames(&reply.body);
    assert_eq!(events[0].kind, "start");
    assert!(events.iter().all(|event| event.data["message_id"] == events[0].data["message_id"]));
    assert!(events.iter().enumerate().all(|(at, event)| event.id == at as u64 + 1), "{events:?}");
    check_answer(&events[1..], "You said: Hello there");
}

async fn a_socket_carries_several_turns(on: Backend) {
    let app = TestApp::start(on).await;
    let mut socket = app.login("alice").await.socket().await;
    let first = socket.say("work", "one").await;
    let second = socket.say("play", "two").await;
    let third = socket.say("work", "three").await;
    for (id, text) in
        [(third, "You said: three"), (second, "You said: two"), (first, "You said: one")]
    {
        check_answer(&socket.rest_of(&id).await, text);
    }
    assert_eq!(app.model.asked("three").messages().len(), 3);
}

async fn a_socket_cancels(on: Backend) {
    let app = TestApp::start(on).await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["one ", "two ", "three"], &gate));
    let alice = app.login("alice").await;
    let mut socket = alice.socket().await;
    let id = socket.say("work", "count").await;
    gate.release(1);
    assert_eq!(socket.next_of(&id).await.data["token"], "one ");
    socket.send(&json!({"type": "cancel", "message_id": id})).await;
    socket.ending_of(&id).await.expect_done("cancelled");
    assert_eq!(alice.history("work").await[1]["finish_reason"], "cancelled");
}

async fn a_socket_resumes(on: Backend) {
    let app = TestApp::start(on).await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["one ", "two ", "three"], &gate));
    let alice = app.login("alice").await;
    let mut first = alice.socket().await;
    let id = first.say("work", "count").await;
    gate.release(2);
    let seen = first.next_of(&id).await;
    first.close().await;
    let mut second = alice.socket().await;
    second.send(&json!({"type": "resume", "message_id": id, "last_event_id": seen.id})).await;
    gate.open();
    let events = second.rest_of(&id).await;
    assert_eq!(events[0].id, seen.id + 1);
    assert_eq!(text_of(&events), "two three");
}

async fn messages_without_a_session_share_the_default_one(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let first = alice.post("/chat/message", &json!({"message": "one"})).await.expect(200);
    assert_eq!(first["session_id"], "default");
    alice.post("/chat/message", &json!({"message": "two"})).await.expect(200);
    assert_eq!(app.model.asked("two").messages().len(), 3);
}

fn check_answer(events: &[Event], text: &str) {
    events.last().unwrap().expect_done("stop");
    assert_eq!(text_of(events), text);
    let kinds: Vec<&str> =
        events.iter().map(|event| event.kind.as_str()).filter(|kind| *kind != "queued").collect();
    let tokens = events.iter().filter(|event| event.kind == "token").count();
    assert_eq!(kinds[kinds.len() - 1], "done");
    assert!(
        tokens >= 1
            && events.iter().all(|event| event.kind != "token" || event.data["is_final"] == false)
    );
}

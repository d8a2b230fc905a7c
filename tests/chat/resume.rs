//! A stream that breaks off can be taken up again, on every instance, without a gap and without a repetition.

use std::time::Duration;

use serde_json::json;
use tests::{Answer, Backend, Event, Gate, TestApp, text_of};

on_both_stores!(
    a_stream_cut_after_every_event_is_exact,
    an_ended_stream_is_replayed_exactly,
    after_the_ending_there_is_nothing,
    a_resume_from_the_future_or_from_garbage_does_no_harm,
    a_second_watcher_sees_the_same,
);

const TOKENS: [&str; 8] =
    ["Grüße ", "\r\n", "data: x\n\n", "👩‍👩‍👧 ", "\u{2028}", "event: y\n", " ", "end"];

async fn a_stream_cut_after_every_event_is_exact(on: Backend) {
    let app = TestApp::builder(on).chats(2).start().await;
    app.model.usually(Answer::paced(TOKENS, Duration::from_millis(50)));
    let alice = app.login("alice").await;
    let mut stream =
        alice.stream_body(&json!({"message": "go", "on_disconnect": "continue"})).await;
    let mut seen = vec![stream.next().await.unwrap()];
    let id = seen[0].data["message_id"].as_str().unwrap().to_owned();
    let mut turn = 0;
    while !seen.last().unwrap().is_last() {
        turn += 1;
        let there = alice.at(app.chat(turn % app.instances()));
        seen.push(
            there.resume(&id, seen.last().unwrap().id).await.next().await.expect("one more event"),
        );
    }
    assert!(seen.iter().enumerate().all(|(at, event)| event.id == at as u64 + 1), "{seen:?}");
    assert_eq!(text_of(&seen), TOKENS.concat());
    assert_eq!(alice.history("default").await[1]["content"], TOKENS.concat());
}

async fn an_ended_stream_is_replayed_exactly(on: Backend) {
    let app = TestApp::builder(on).chats(2).start().await;
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "a b c").await;
    let first = stream.next().await.unwrap();
    let id = first.data["message_id"].as_str().unwrap().to_owned();
    let mut live: Vec<Event> = vec![first];
    live.extend(stream.rest().await);
    for instance in 0..app.instances() {
        for after in 0..live.len() {
            let again = alice.at(app.chat(instance)).resume(&id, after as u64).await.rest().await;
            assert_eq!(again, live[after..], "on instance {instance} after {after}");
        }
    }
    let path = format!("/chat/messages/{id}/stream?last_event_id=2");
    let asked = alice.open(alice.request(reqwest::Method::GET, &path)).await.rest().await;
    assert_eq!(asked, live[2..]);
}

async fn after_the_ending_there_is_nothing(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "a").await;
    let id = stream.started().await;
    let last = stream.ending().await.id;
    let path = format!("/chat/messages/{id}/stream");
    let request = alice.request(reqwest::Method::GET, &path).header("last-event-id", last);
    assert_eq!(alice.fetch(request).await.status, 204);
    let mut socket = alice.socket().await;
    socket.send(&json!({"type": "resume", "message_id": id, "last_event_id": last})).await;
    socket.silent_for(Duration::from_millis(300)).await;
}

async fn a_resume_from_the_future_or_from_garbage_does_no_harm(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "a").await;
    let id = stream.started().await;
    stream.rest().await;
    let path = format!("/chat/messages/{id}/stream");
    for value in ["x", "-1", "1.5", "99999999999999999999999", "9999"] {
        let request = alice.request(reqwest::Method::GET, &path).header("last-event-id", value);
        let reply = alice.fetch(request).await;
        assert!(reply.status < 500, "{value}: {}", reply.status);
    }
    let largest = alice.request(reqwest::Method::GET, &path).header("last-event-id", u64::MAX);
    alice.open(largest).await.rest().await.last().unwrap().expect_done("stop");
    let unknown = "/chat/messages/00000000-0000-7000-8000-000000000000/stream";
    alice.get(unknown).await.problem(404, "message_not_found");
    let odd = alice.get("/chat/messages/..%2f..%2fx/stream").await.status;
    assert!(matches!(odd, 404 | 422), "{odd}");
}

async fn a_second_watcher_sees_the_same(on: Backend) {
    let app = TestApp::builder(on).chats(2).start().await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["one ", "two ", "three"], &gate));
    let alice = app.login("alice").await;
    let mut first = alice.stream("work", "count").await;
    let id = first.started().await;
    let mut second = alice.at(app.chat(app.instances() - 1)).resume(&id, 1).await;
    gate.release(1);
    assert_eq!(first.next_but_queued().await.unwrap().data["token"], "one ");
    assert_eq!(second.next_but_queued().await.unwrap().data["token"], "one ");
    drop(first);
    gate.open();
    let rest = second.rest().await;
    assert_eq!(text_of(&rest), "two three");
    rest.last().unwrap().expect_done("stop");
}

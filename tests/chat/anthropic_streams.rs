//! Messages on their way: signs of life, failures at every moment, and what ends one.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Answer, Backend, Gate, MessageStream, PATIENCE, TestApp, message_of, text_of_events};

on_both_stores!(
    a_stream_has_its_events_in_order,
    thoughts_and_tool_calls_have_blocks_of_their_own,
    a_slow_model_is_bridged_by_pings,
    a_late_failure_is_an_error_event,
    a_caller_who_leaves_stops_the_model,
    a_revoked_token_ends_the_stream,
);

const SECOND: Duration = Duration::from_secs(1);

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

async fn a_stream_has_its_events_in_order(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let text = "Grüße 🙂\u{2028}\r\n\"x\"";
    let events = MessageStream::open(&alice, &message_of(text, true)).await.rest().await;
    assert_eq!(text_of_events(&events), format!("You said: {text}"));
    let kinds = kinds(&events);
    assert_eq!(kinds[..2], ["message_start", "content_block_start"]);
    assert_eq!(kinds[kinds.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    let start = &events[0]["message"];
    assert!(start["usage"]["input_tokens"].as_u64().unwrap() > 0);
    assert_eq!((&start["model"], &start["stop_reason"]), (&json!("gemma3:1b"), &Value::Null));
    let end = &events[events.len() - 2];
    assert_eq!(end["delta"]["stop_reason"], "end_turn");
    assert!(end["usage"]["output_tokens"].as_u64().unwrap() > 0);
}

async fn thoughts_and_tool_calls_have_blocks_of_their_own(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let tagged = Answer::new()
        .token("<thi")
        .token("nk>Hm.</think>\n\nSo:")
        .tool_call("f", json!({"a": 1}))
        .tool_call("g", json!({}))
        .done("stop");
    app.model.next(tagged);
    let events = MessageStream::open(&alice, &message_of("think", true)).await.rest().await;
    let blocks: Vec<_> =
        events.iter().filter_map(|event| event["content_block"]["type"].as_str()).collect();
    assert_eq!(blocks, ["thinking", "text", "tool_use", "tool_use"]);
    let thoughts: String =
        events.iter().filter_map(|event| event["delta"]["thinking"].as_str()).collect();
    assert_eq!((thoughts.as_str(), text_of_events(&events).as_str()), ("Hm.", "So:"));
    let arguments: Vec<_> =
        events.iter().filter_map(|event| event["delta"]["partial_json"].as_str()).collect();
    assert_eq!(arguments, ["{\"a\":1}", "{}"]);
    assert_eq!(events[events.len() - 2]["delta"]["stop_reason"], "tool_use");
}

async fn a_slow_model_is_bridged_by_pings(on: Backend) {
    let app = TestApp::start(on).await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["one ", "two"], &gate));
    let alice = app.login("alice").await;
    let start = Instant::now();
    let mut stream = MessageStream::open(&alice, &message_of("wait", true)).await;
    assert!(start.elapsed() < SECOND * 5, "the head does not wait");
    assert_eq!(stream.next().await.unwrap()["type"], "message_start");
    let silence = stream.ping_within(SECOND * 20).await;
    assert!(silence > SECOND * 12, "{silence:?}");
    gate.release(1);
    assert_eq!(stream.next().await.unwrap()["type"], "content_block_start");
    assert_eq!(stream.next().await.unwrap()["delta"]["text"], "one ");
    stream.ping_within(SECOND * 20).await;
    gate.open();
    assert_eq!(text_of_events(&stream.rest().await), "two");
}

async fn a_late_failure_is_an_error_event(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    for broken in [
        Answer::partial(["half"]).error("the runner has crashed"),
        Answer::partial(["half"]).eof(),
        Answer::new().wait(SECOND * 5).error("no"),
    ] {
        app.model.next(broken);
        let events = MessageStream::open(&alice, &message_of("hello", true)).await.rest().await;
        let last = events.last().unwrap();
        assert_eq!(last["type"], "error");
        assert_eq!(last["error"]["type"], "api_error");
        assert!(!last.to_string().contains("crashed"));
        assert!(last["request_id"].is_string());
    }
}

async fn a_caller_who_leaves_stops_the_model(on: Backend) {
    let app = TestApp::start(on).await;
    app.model.usually(Answer::partial(["one "]).hang());
    let alice = app.login("alice").await;
    for (text, is_streamed) in [("whole", false), ("streamed", true)] {
        let request =
            alice.request(Method::POST, "/v1/messages").json(&message_of(text, is_streamed));
        let asking = tokio::spawn(async move {
            let mut answer = request.send().await.unwrap();
            while answer.chunk().await.unwrap().is_some() {}
        });
        tests::eventually(PATIENCE, "it is asked", || async {
            let chats = app.model.chats();
            chats.iter().any(|chat| chat.last_message() == text).then_some(())
        })
        .await;
        asking.abort();
        let after = app.model.left_after(text, Instant::now(), PATIENCE).await;
        assert!(after < SECOND, "{text}: {after:?}");
    }
}

async fn a_revoked_token_ends_the_stream(on: Backend) {
    let app = TestApp::start(on).await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["one", "two"], &gate));
    let alice = app.login("alice").await;
    let mut stream = MessageStream::open(&alice, &message_of("count", true)).await;
    assert_eq!(alice.post_empty("/auth/logout").await.status, 204);
    let events = tests::within(SECOND * 6, "the stream ends", stream.rest()).await;
    let last = events.last().unwrap();
    assert_eq!(last["error"]["type"], "authentication_error");
    assert_eq!(last["error"]["code"], "token_revoked");
    app.model.wait_idle(SECOND).await;
}

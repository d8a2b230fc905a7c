//! Completions of `/v1` whose process died: what they had set aside of the day's quota is found and settled.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{
    Answer, Backend, Client, Completion, Gate, PATIENCE, TestApp, completion_of, eventually,
};

on_both_stores!(what_a_killed_process_had_set_aside_is_free_after_its_next_start);

const QUOTA: u64 = 2000;

async fn left(client: &Client) -> u64 {
    let usage = client.get("/chat/usage").await.expect(200);
    usage["quota"]["left"].as_u64().unwrap()
}

/// A completion that has begun to answer and does not end; it holds a room of 1000 tokens.
async fn begun(client: &Client) -> Completion {
    let mut stream = Completion::open(client, &holding()).await;
    while stream.chunk().await["choices"][0]["delta"]["content"] != "one " {}
    stream
}

fn holding() -> Value {
    let mut body = completion_of("count", true);
    body["max_tokens"] = 1000.into();
    body
}

/// An answer that stands still after its first word.
fn halted(gate: &Gate) -> Answer {
    Answer::partial(["one "]).gate(gate).token("two").done("stop")
}

async fn what_a_killed_process_had_set_aside_is_free_after_its_next_start(on: Backend) {
    let mut app = TestApp::builder(on)
        .set("rate_limit.tokens_per_day", QUOTA)
        .set("chat.lease", "2s")
        .start()
        .await;
    let gate = Gate::new();
    app.model.answer_to("count", halted(&gate));
    let alice = app.login("alice").await;
    let stream = begun(&alice).await;
    assert!(left(&alice).await < QUOTA - 1000, "its room is held");
    // The embedded store has an account on disk within half a second, or with the next thing that must be there.
    alice.post("/chat/sessions", &json!({"session_id": "work"})).await.expect(201);
    app.chat_process(0).kill();
    drop(stream);
    app.restart_chat(0).await;
    let alice = alice.at(app.chat(0));
    eventually(PATIENCE, "its room is free", || async {
        (left(&alice).await > QUOTA - 1000).then_some(())
    })
    .await;
    let usage = alice.get("/chat/usage").await.expect(200);
    assert_eq!(usage["today"]["requests"], 1);
    let prompt = usage["today"]["prompt_tokens"].as_u64().unwrap();
    assert!(prompt > 0, "what was surely read is counted: {usage}");
    assert_eq!(left(&alice).await, QUOTA - prompt);
}

#[tokio::test]
async fn what_a_killed_instance_had_set_aside_is_found_by_another_and_only_that() {
    let app = TestApp::builder(Backend::Redis)
        .chats(2)
        .set("rate_limit.tokens_per_day", QUOTA + 200)
        .set("chat.lease", "1s")
        .start()
        .await;
    let gate = Gate::new();
    app.model.answer_to("count", halted(&gate));
    let alice = app.login("alice").await;
    let elsewhere = alice.at(app.chat(1));
    let (doomed, mut living) = (begun(&alice).await, begun(&elsewhere).await);
    // A refusal looks for the dead first; these live, however long they run.
    let lives_on = Instant::now() + Duration::from_secs(3);
    while Instant::now() < lives_on {
        let refused = elsewhere.post("/v1/chat/completions", &holding()).await;
        assert_eq!(refused.json()["error"]["code"], "quota_exceeded");
        assert!(left(&elsewhere).await < 1000);
    }
    app.chat_process(0).kill();
    drop(doomed);
    let third = eventually(PATIENCE, "another's room is enough", || async {
        let request = elsewhere.request(reqwest::Method::POST, "/v1/chat/completions");
        let response = request.json(&holding()).send().await.unwrap();
        (response.status() == 200).then(|| Completion::of(response))
    })
    .await;
    assert!(left(&elsewhere).await < 1000, "two hold theirs");
    gate.open();
    drop(third);
    assert_eq!(living.rest().await.last().unwrap()["choices"][0]["finish_reason"], "stop");
}

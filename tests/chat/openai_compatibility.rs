//! The OpenAI-compatible endpoint, as its SDKs need it.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Answer, Backend, Gate, TestApp};

on_both_stores!(
    a_completion_is_answered_whole,
    a_completion_is_answered_in_a_stream_of_data_lines_alone,
    a_failure_in_mid_stream_is_an_error_frame_and_an_end,
    refusals_have_the_other_shape,
    models_are_listed,
    a_client_that_leaves_stops_the_model_at_once,
);

fn ask(text: &str, stream: bool) -> Value {
    json!({"model": "gemma3:1b", "messages": [{"role": "user", "content": text}], "stream": stream, "nobody_knows": 1})
}

/// The JSON of every `data:` line; anything else in the stream fails.
fn frames(text: &str) -> Vec<Value> {
    let mut lines: Vec<&str> =
        text.lines().filter(|line| !line.is_empty() && !line.starts_with(':')).collect();
    assert_eq!(lines.pop(), Some("data: [DONE]"), "{text}");
    let data = |line: &&str| {
        line.strip_prefix("data: ")
            .unwrap_or_else(|| panic!("a line that SDKs choke on: {line:?}"))
            .to_owned()
    };
    lines.iter().map(|line| serde_json::from_str(&data(line)).unwrap()).collect()
}

async fn a_completion_is_answered_whole(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let answer = alice.post("/v1/chat/completions", &ask("hello", false)).await.expect(200);
    assert_eq!(answer["object"], "chat.completion");
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["role"], "assistant");
    assert_eq!(message["content"], "You said: hello");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let usage = &answer["usage"];
    let total =
        usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"].as_u64(), Some(total));
    assert_eq!(
        alice.get("/chat/sessions").await.expect(200)["sessions"],
        json!([]),
        "nothing is stored"
    );
}

async fn a_completion_is_answered_in_a_stream_of_data_lines_alone(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let mut body = ask("hello", true);
    let plain = alice.post("/v1/chat/completions", &body).await;
    assert!(plain.header("content-type").starts_with("text/event-stream"), "{:?}", plain.headers);
    let chunks = frames(&plain.text());
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let text: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(text, "You said: hello");
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "stop");
    assert!(chunks.iter().all(|chunk| chunk["usage"].is_null() && chunk["id"] == chunks[0]["id"]));
    body["stream_options"] = json!({"include_usage": true});
    let chunks = frames(&alice.post("/v1/chat/completions", &body).await.text());
    let last = chunks.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert!(last["usage"]["total_tokens"].as_u64().unwrap() > 0, "{last}");
}

async fn a_failure_in_mid_stream_is_an_error_frame_and_an_end(on: Backend) {
    let app = TestApp::start(on).await;
    app.model.usually(Answer::partial(["half"]).error("the runner has crashed"));
    let alice = app.login("alice").await;
    let chunks = frames(&alice.post("/v1/chat/completions", &ask("hello", true)).await.text());
    let error = &chunks.last().unwrap()["error"];
    assert_eq!(error["code"], "llm_failed", "{chunks:?}");
    assert!(error["message"].is_string() && error["type"].is_string(), "{error}");
    assert!(!error.to_string().contains("crashed"), "{error}");
}

async fn refusals_have_the_other_shape(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let mut many = ask("hello", false);
    many["n"] = json!(2);
    let mut unknown = ask("hello", false);
    unknown["model"] = json!("nowhere:1b");
    let cases = [
        (many, 400, None),
        (unknown, 404, Some("model_not_found")),
        (json!({"model": "gemma3:1b"}), 0, None),
    ];
    for (body, status, code) in cases {
        let reply = alice.post("/v1/chat/completions", &body).await;
        let error = reply.json()["error"].clone();
        assert!(
            if status == 0 { (400..=422).contains(&reply.status) } else { reply.status == status },
            "{error}"
        );
        assert!(error["message"].is_string() && error["type"].is_string(), "{error}");
        assert!(code.is_none_or(|code| error["code"] == code), "{error}");
        assert!(!reply.header("x-request-id").is_empty());
    }
    let reply = alice.post("/v1/nothing", &json!({})).await;
    assert_eq!(reply.status, 404);
    assert!(reply.json().is_object());
}

async fn models_are_listed(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let list = alice.get("/v1/models").await.expect(200);
    assert_eq!((&list["object"], &list["data"][0]["id"]), (&json!("list"), &json!("gemma3:1b")));
    let ours = alice.get("/chat/models").await.expect(200);
    assert_eq!(
        (&ours["models"][0]["id"], &ours["models"][0]["provider"]),
        (&json!("gemma3:1b"), &json!("ollama"))
    );
}

async fn a_client_that_leaves_stops_the_model_at_once(on: Backend) {
    let app = TestApp::start(on).await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["one", "two"], &gate));
    let alice = app.login("alice").await;
    let request = alice.request(Method::POST, "/v1/chat/completions").json(&ask("count", true));
    let asking = tokio::spawn(async move {
        let mut answer = request.send().await.unwrap();
        while answer.chunk().await.unwrap().is_some() {}
    });
    app.model.wait_chats(1).await;
    gate.release(1);
    asking.abort();
    let after = app.model.left_after("count", Instant::now(), tests::PATIENCE).await;
    assert!(after < Duration::from_secs(2), "{after:?}");
}

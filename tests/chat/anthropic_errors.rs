//! How Anthropic's clients are told of refusals and failures, and what a message costs.

use serde_json::{Value, json};
use tests::{
    Answer, Backend, Client, FakeModel, PATIENCE, Reply, TestApp, anthropic_error, eventually,
    message_of,
};
use tokio::task::JoinSet;

on_both_stores!(
    every_error_has_their_shape,
    what_the_model_cannot_do_is_said,
    a_full_queue_and_a_dead_model_server_are_overloads,
    what_a_message_costs_is_counted,
);

async fn post(client: &Client, body: &Value) -> Reply {
    client.post("/v1/messages?beta=true", body).await
}

async fn every_error_has_their_shape(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let path = "/v1/messages";
    let missing = post(&app.stranger(), &message_of("hello", true)).await;
    anthropic_error(&missing, 401, "authentication_error", "missing_token");
    let forged = post(&alice.with_token("cbk_nothing"), &message_of("hello", true)).await;
    anthropic_error(&forged, 401, "authentication_error", "invalid_token");
    let wrong_method = alice.get(path).await;
    anthropic_error(&wrong_method, 405, "invalid_request_error", "method_not_allowed");
    let broken = alice.post_bytes(path, "{\"model\":").await;
    anthropic_error(&broken, 400, "invalid_request_error", "invalid_json");
    let mut unknown = message_of("hello", true);
    unknown["model"] = json!("org/nowhere:1b");
    for path in [path, "/v1/messages/count_tokens"] {
        let unknown = alice.post(path, &unknown).await;
        anthropic_error(&unknown, 404, "not_found_error", "model_not_found");
    }
    let mut wrong = message_of("hello", true);
    wrong["messages"][0]["content"] = json!([{"type": "text"}]);
    let wrong = post(&alice, &wrong).await;
    let said = anthropic_error(&wrong, 400, "invalid_request_error", "invalid_request");
    assert!(said.as_str().unwrap().starts_with("messages.0.content.0.text: "), "{said}");
    let long = post(&alice, &message_of(&"語".repeat(80_000), false)).await;
    let said = anthropic_error(&long, 422, "invalid_request_error", "context_too_long");
    assert!(said.as_str().unwrap().starts_with("prompt is too long"), "{said}");
    let huge = post(&alice, &message_of(&"x".repeat(34_000_000), false)).await;
    anthropic_error(&huge, 413, "request_too_large", "payload_too_large");
    anthropic_error(
        &alice.post("/v1/messages/nothing", &json!({})).await,
        404,
        "not_found_error",
        "not_found",
    );
    assert_eq!(app.model.chats().len(), 0);
}

async fn what_the_model_cannot_do_is_said(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let refused = r#"{"error":"registry.ollama.ai/library/gemma3:1b does not support tools"}"#;
    app.model.next(Answer::refuse(400, "", refused));
    let mut body = message_of("hello", true);
    body["tools"] = json!([{"name": "f", "input_schema": {"type": "object"}}]);
    let refused = post(&alice, &body).await;
    anthropic_error(&refused, 400, "invalid_request_error", "unsupported_by_model");
    let pdf = json!({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}});
    let mut body = message_of("", false);
    body["messages"][0]["content"] = json!([pdf]);
    anthropic_error(
        &post(&alice, &body).await,
        400,
        "invalid_request_error",
        "unsupported_by_model",
    );
}

async fn a_full_queue_and_a_dead_model_server_are_overloads(on: Backend) {
    let app = TestApp::builder(on)
        .set("llm.ollama.max_concurrency", 1)
        .set("llm.ollama.queue", 1)
        .start()
        .await;
    let alice = app.login("alice").await;
    app.model.usually(Answer::new().hang());
    let mut waiting = JoinSet::new();
    for _ in 0..2 {
        let alice = alice.clone();
        waiting.spawn(async move { post(&alice, &message_of("wait", false)).await });
    }
    eventually(PATIENCE, "one waits", || async {
        (app.measured(0, "llm_queued", "ollama").await == 1.0).then_some(())
    })
    .await;
    let full = post(&alice, &message_of("hello", true)).await;
    anthropic_error(&full, 529, "overloaded_error", "queue_full");
    assert!(!full.header("retry-after").is_empty());
    waiting.shutdown().await;
    eventually(PATIENCE, "nobody waits any more", || async {
        let waiting = app.measured(0, "llm_queued", "ollama").await;
        let running = app.measured(0, "llm_running", "ollama").await;
        (waiting + running == 0.0).then_some(())
    })
    .await;
    app.model.usually(Answer::new().drop_connection());
    let down = post(&alice, &message_of("hello", true)).await;
    anthropic_error(&down, 529, "overloaded_error", "llm_unavailable");
}

async fn what_a_message_costs_is_counted(on: Backend) {
    let server = FakeModel::openai().await;
    let app = TestApp::builder(on)
        .set("llm.providers", "openai")
        .set("llm.openai.base_url", server.url())
        .set("rate_limit.tokens_per_day", 1000)
        .start()
        .await;
    let alice = app.login("alice").await;
    let answer = post(&alice, &message_of("hello", false)).await.expect(200);
    let usage = &answer["usage"];
    let today = alice.get("/chat/usage").await.expect(200)["today"].clone();
    assert_eq!(
        (&today["prompt_tokens"], &today["completion_tokens"], &today["requests"]),
        (&usage["input_tokens"], &usage["output_tokens"], &json!(1))
    );
    let mut greedy = message_of("hello", false);
    greedy["max_tokens"] = json!(100_000);
    server.usually(Answer::tokens(["x "; 600]));
    for _ in 0..4 {
        let reply = post(&alice, &greedy).await;
        if reply.status == 429 {
            anthropic_error(&reply, 429, "rate_limit_error", "quota_exceeded");
            assert_eq!(reply.header("x-should-retry"), "false");
            return;
        }
        reply.expect(200);
    }
    panic!("the quota never ended");
}

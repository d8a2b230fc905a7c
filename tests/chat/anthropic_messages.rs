//! What Anthropic's clients may send: what of it reaches a model server, and what is refused how.

use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Answer, Backend, Client, FakeModel, Reply, TestApp, anthropic_error, message_of};
use tokio::task::JoinSet;

on_both_stores!(
    a_whole_answer_has_everything_that_sdks_read,
    a_turn_of_claude_code_reaches_the_model,
    a_stop_sequence_is_named_where_the_server_names_it,
    tools_go_both_ways,
    counting_asks_no_model_and_has_a_limit_of_its_own,
    a_client_that_only_looks_needs_no_token,
    models_have_the_form_that_the_client_reads,
);

async fn post(client: &Client, body: &Value) -> Reply {
    client.post("/v1/messages?beta=true", body).await
}

/// What a client sent, as it was recorded.
fn recorded(name: &str) -> Value {
    let path = Path::new("clients").join(name);
    let file = tests::fixture(&path.display().to_string());
    let recorded: Value = serde_json::from_slice(&file).unwrap();
    let mut body = recorded["body"].clone();
    body["model"] = json!("gemma3:1b");
    body
}

async fn a_whole_answer_has_everything_that_sdks_read(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let answer = post(&alice, &message_of("hello", false)).await.expect(200);
    assert!(answer["id"].as_str().unwrap().starts_with("msg_"));
    assert_eq!((&answer["type"], &answer["role"]), (&json!("message"), &json!("assistant")));
    assert_eq!(answer["content"], json!([{"type": "text", "text": "You said: hello"}]));
    assert_eq!(
        (&answer["model"], &answer["stop_reason"]),
        (&json!("gemma3:1b"), &json!("end_turn"))
    );
    assert!(answer.get("stop_sequence").is_some_and(Value::is_null));
    let usage = &answer["usage"];
    assert!(
        usage["input_tokens"].as_u64().unwrap() > 0 && usage["output_tokens"].as_u64().unwrap() > 0
    );
    // By the header that the SDKs send.
    let by_key = app.stranger().request(Method::POST, "/v1/messages");
    let by_key = by_key.header("x-api-key", alice.token()).json(&message_of("by key", false));
    alice.fetch(by_key).await.expect(200);
    let cut = Answer::partial(["too "]).done("length");
    app.model.next(cut);
    let cut = post(&alice, &message_of("long", false)).await.expect(200);
    assert_eq!(cut["stop_reason"], "max_tokens");
}

async fn a_turn_of_claude_code_reaches_the_model(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let mut turn = recorded("claude-1-print-turn.json");
    turn["stream"] = json!(false);
    post(&alice, &turn).await.expect(200);
    let sent = app.model.chats().pop().unwrap();
    let messages = sent.messages();
    assert_eq!(messages.len(), 2);
    assert!(messages[0].1.starts_with("You are a Claude agent"), "{messages:?}");
    assert!(!sent.body.to_string().contains("x-anthropic-billing-header"));
    assert_eq!(sent.body["tools"].as_array().unwrap().len(), 12);
    let mut title = recorded("claude-5-title.json");
    title["stream"] = json!(false);
    post(&alice, &title).await.expect(200);
    let sent = app.model.chats().pop().unwrap();
    assert_eq!(sent.body["format"]["required"], json!(["title"]));
}

async fn a_stop_sequence_is_named_where_the_server_names_it(on: Backend) {
    let server = FakeModel::openai().await;
    let app = TestApp::builder(on)
        .set("llm.providers", "openai")
        .set("llm.openai.base_url", server.url())
        .start()
        .await;
    let alice = app.login("alice").await;
    let mut body = message_of("hello", false);
    body["stop_sequences"] = json!(["END"]);
    let unnamed = post(&alice, &body).await.expect(200);
    assert_eq!(unnamed["stop_reason"], "end_turn");
    let end = json!({"choices": [{"delta": {}, "finish_reason": "stop", "stop_reason": "END"}]});
    let end = format!("data: {end}\n\ndata: [DONE]\n\n");
    server.next(Answer::partial(["up to "]).body(end).eof());
    let stopped = post(&alice, &body).await.expect(200);
    assert_eq!(
        (&stopped["stop_reason"], &stopped["stop_sequence"]),
        (&json!("stop_sequence"), &json!("END"))
    );
    let sent = server.chats().pop().unwrap().body;
    assert_eq!((&sent["stop"], sent.get("verbose")), (&json!(["END"]), None));
}

async fn tools_go_both_ways(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let called = Answer::new()
        .tool_call("weather", json!({"city": "Köln"}))
        .tool_call("weather", json!({"city": "Graz"}))
        .done("stop");
    app.model.answer_to("How is the weather?", called);
    let mut body = message_of("How is the weather?", false);
    body["tools"] =
        json!([{"name": "weather", "input_schema": {"type": "object", "properties": {}}}]);
    body["tool_choice"] = json!({"type": "auto"});
    let answer = post(&alice, &body).await.expect(200);
    assert_eq!(answer["stop_reason"], "tool_use");
    let calls = answer["content"].as_array().unwrap().clone();
    let cities: Vec<_> = calls.iter().map(|call| call["input"]["city"].as_str().unwrap()).collect();
    assert_eq!(cities, ["Köln", "Graz"]);
    let results: Vec<Value> = calls
        .iter()
        .map(|call| json!({"type": "tool_result", "tool_use_id": call["id"], "content": "sunny"}))
        .collect();
    let said = body["messages"].as_array_mut().unwrap();
    said.push(json!({"role": "assistant", "content": calls}));
    said.push(json!({"role": "user", "content": results}));
    let answer = post(&alice, &body).await.expect(200);
    assert_eq!(answer["content"][0]["text"], "You said: sunny");
    let sent = app.model.asked("sunny").body;
    assert_eq!(sent["messages"][1]["tool_calls"].as_array().unwrap().len(), 2);
    for i in [2, 3] {
        assert_eq!(sent["messages"][i]["tool_name"], "weather");
        assert_eq!(sent["messages"][i]["tool_call_id"], calls[i - 2]["id"]);
    }
}

async fn counting_asks_no_model_and_has_a_limit_of_its_own(on: Backend) {
    let app = TestApp::builder(on)
        .set("rate_limit.requests", 2)
        .set("rate_limit.period", "10m")
        .without_waiting()
        .start()
        .await;
    app.wait_up().await;
    let alice = app.login("alice").await;
    let count = recorded("claude-6-count-tokens.json");
    let mut asking = JoinSet::new();
    for _ in 0..200 {
        let (alice, count) = (alice.clone(), count.clone());
        asking
            .spawn(async move { alice.post("/v1/messages/count_tokens?beta=true", &count).await });
    }
    let replies = asking.join_all().await;
    let passed: Vec<_> = replies.iter().filter(|reply| reply.status == 200).collect();
    // Some come back while these are sent.
    assert!((100..160).contains(&passed.len()), "{}", passed.len());
    for reply in &passed {
        assert!(reply.json()["input_tokens"].as_u64().unwrap() > 10);
    }
    let refused = replies.iter().find(|reply| reply.status != 200).unwrap();
    anthropic_error(refused, 429, "rate_limit_error", "rate_limited");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(app.model.chats().len(), 0);
    for _ in 0..2 {
        alice.get("/chat/usage").await.expect(200);
    }
    let limited = post(&alice, &message_of("hello", false)).await;
    anthropic_error(&limited, 429, "rate_limit_error", "rate_limited");
    let whole = app.login("bob").await;
    let long = json!({"messages": [{"role": "user", "content": "x".repeat(4000)}], "system": "y".repeat(4000)});
    let counted = whole.post("/v1/messages/count_tokens", &long).await.expect(200);
    assert!((1900..3000).contains(&counted["input_tokens"].as_u64().unwrap()), "{counted}");
}

async fn a_client_that_only_looks_needs_no_token(on: Backend) {
    let app = TestApp::start(on).await;
    let nobody = app.stranger();
    for path in ["/", "/api/hello"] {
        let looked = nobody.fetch(nobody.request(Method::HEAD, path)).await;
        assert_eq!((looked.status, looked.body.len()), (200, 0), "{path}");
    }
}

async fn models_have_the_form_that_the_client_reads(on: Backend) {
    let app = TestApp::builder(on).set("llm.aliases", "claude-local=gemma3:1b").start().await;
    let alice = app.login("alice").await;
    let both = alice.get("/v1/models?client_version=0.171.0").await.expect(200);
    let ids: Vec<_> = both["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(ids, ["gemma3:1b", "claude-local"]);
    let codex = &both["models"][1];
    assert_eq!((&codex["slug"], &codex["context_window"]), (&json!("claude-local"), &json!(8192)));
    assert!(codex["base_instructions"].is_string());
    let ask = |path: &str| {
        let request = alice.request(Method::GET, path);
        alice.fetch(request.header("anthropic-version", "2023-06-01"))
    };
    let all = ask("/v1/models?limit=1000").await.expect(200);
    assert_eq!((&all["first_id"], &all["last_id"]), (&json!("gemma3:1b"), &json!("claude-local")));
    assert_eq!(all["has_more"], false);
    let one = &all["data"][1];
    assert_eq!((&one["type"], &one["display_name"]), (&json!("model"), &json!("claude-local")));
    let page = ask("/v1/models?limit=1&after_id=gemma3:1b").await.expect(200);
    assert_eq!((&page["data"][0], &page["has_more"]), (one, &json!(false)));
    let back = ask("/v1/models?limit=1&before_id=claude-local").await.expect(200);
    assert_eq!((&back["first_id"], &back["has_more"]), (&json!("gemma3:1b"), &json!(false)));
    for unknown in ["after_id=no-such", "before_id=no-such"] {
        let refused = ask(&format!("/v1/models?{unknown}")).await;
        anthropic_error(&refused, 400, "invalid_request_error", "invalid_request");
    }
    assert_eq!(ask("/v1/models/claude-local").await.expect(200), *one);
    let missing = ask("/v1/models/no/such:one").await;
    anthropic_error(&missing, 404, "not_found_error", "model_not_found");
    assert_eq!(alice.get("/v1/models/claude-local").await.expect(200)["object"], "model");
    // The alias is answered for by the model that it stands for.
    let mut body = message_of("by alias", false);
    body["model"] = json!("claude-local");
    assert_eq!(post(&alice, &body).await.expect(200)["model"], "gemma3:1b");
}

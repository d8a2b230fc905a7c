//! What OpenAI's clients may send: what of it reaches each kind of model server, and what is refused how.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Answer, Backend, Client, FakeModel, Reply, TestApp, completion_of, eventually};

on_both_stores!(
    a_request_reaches_an_ollama_in_its_words,
    a_request_reaches_an_openai_compatible_server_as_it_was,
    tools_go_both_ways,
    what_an_ollama_cannot_take_is_refused_by_name,
    a_prompt_is_never_cut,
    what_a_server_counts_teaches_the_estimates_of_every_door,
    every_error_has_their_shape,
    a_wrong_value_is_a_bad_request_that_names_it,
    what_cannot_succeed_is_not_to_be_tried_again,
    a_model_is_found_by_an_id_with_slashes_and_colons,
);

async fn post(client: &Client, body: &Value) -> Reply {
    client.post("/v1/chat/completions", body).await
}

/// An error in the shape of this API.
fn error(reply: &Reply, status: u16, code: &str) -> Value {
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    assert_eq!(reply.status, status, "{text}");
    assert_eq!(reply.header("content-type"), "application/json", "{text}");
    assert!(!reply.header("x-request-id").is_empty());
    let error = reply.json()["error"].clone();
    assert_eq!(error["code"], code, "{text}");
    assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()));
    assert!(error["type"].is_string(), "{text}");
    let members: Vec<_> = error.as_object().unwrap().keys().cloned().collect();
    assert_eq!(members, ["message", "type", "param", "code"]);
    error
}

fn everything() -> Value {
    let schema = json!({"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "integer"}}});
    json!({
        "model": "gemma3:1b",
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}], "name": "al"},
        ],
        "temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": "END", "max_completion_tokens": 33, "n": 1,
        "presence_penalty": 0.1, "frequency_penalty": 0.2, "logit_bias": {"5": 1}, "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}},
        "user": "u1", "store": true, "metadata": {"a": "b"}, "service_tier": "auto", "nobody_knows": [1], "n_predict": 1,
    })
}

async fn a_request_reaches_an_ollama_in_its_words(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    post(&alice, &everything()).await.expect(200);
    let sent = app.model.asked("Hello").body;
    assert_eq!(
        app.model.asked("Hello").messages(),
        [("system".into(), "Be brief.".into()), ("user".into(), "Hello".into())]
    );
    let options = &sent["options"];
    for (name, value) in [
        ("temperature", json!(0.5)),
        ("top_p", json!(0.9)),
        ("seed", json!(7)),
        ("stop", json!(["END"])),
        ("num_predict", json!(33)),
        ("presence_penalty", json!(0.1)),
        ("num_ctx", json!(8192)),
    ] {
        assert_eq!(options[name], value, "{name} in {options}");
    }
    assert_eq!((&sent["stream"], &sent["think"]), (&json!(true), &json!("low")));
    let wanted: Vec<_> = sent["format"]["properties"].as_object().unwrap().keys().collect();
    assert_eq!(wanted, ["z", "a"], "a schema keeps its order");
    let mut old = completion_of("by the old name", false);
    old["max_tokens"] = json!(5);
    old["stop"] = json!(["x", "y"]);
    old["response_format"] = json!({"type": "json_object"});
    post(&alice, &old).await.expect(200);
    let sent = app.model.asked("by the old name").body;
    assert_eq!(sent["options"]["num_predict"], 5);
    assert_eq!(sent["options"]["stop"], json!(["x", "y"]));
    assert_eq!(sent["format"], json!({"type": "object"}));
}

/// An app whose one provider is an OpenAI-compatible server.
async fn with_openai(on: Backend) -> (TestApp, FakeModel) {
    let server = FakeModel::openai().await;
    let app = TestApp::builder(on)
        .set("llm.providers", "openai")
        .set("llm.openai.base_url", server.url())
        .start()
        .await;
    (app, server)
}

async fn a_request_reaches_an_openai_compatible_server_as_it_was(on: Backend) {
    let (app, server) = with_openai(on).await;
    let alice = app.login("alice").await;
    post(&alice, &everything()).await.expect(200);
    let (sent, said) = (server.asked("Hello").body, everything());
    for name in [
        "temperature",
        "top_p",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "reasoning_effort",
        "response_format",
        "user",
        "store",
        "metadata",
        "service_tier",
        "nobody_knows",
    ] {
        assert_eq!(sent[name], said[name], "{name}");
    }
    assert_eq!((&sent["max_tokens"], &sent["stop"]), (&json!(33), &json!(["END"])));
    assert_eq!(
        sent["messages"],
        json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello", "name": "al"}])
    );
    assert!(sent.get("n_predict").is_none(), "it would undo the limit of a quota");
    let image = json!({"type": "image_url", "image_url": {"url": "https://example.org/x.png", "detail": "low"}});
    let parts = json!([{"type": "text", "text": "What is it?"}, image]);
    let body = json!({"model": "gemma3:1b", "messages": [{"role": "user", "content": parts}]});
    post(&alice, &body).await.expect(200);
    assert_eq!(server.asked("What is it?").body["messages"][0]["content"], parts);
}

async fn tools_go_both_ways(on: Backend) {
    let (app, server) = with_openai(on).await;
    let tools = json!([{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]);
    let ollama = TestApp::start(on).await;
    for (app, model) in [(&app, &server), (&ollama, &ollama.model)] {
        let alice = app.login("alice").await;
        let called = Answer::new()
            .tool_call("weather", json!({"city": "Köln"}))
            .tool_call("weather", json!({"city": "Graz"}))
            .done("stop");
        model.answer_to("How is the weather?", called);
        let mut body = completion_of("How is the weather?", false);
        body["tools"] = tools.clone();
        body["tool_choice"] = json!("auto");
        let answer = post(&alice, &body).await.expect(200);
        assert_eq!(model.asked("How is the weather?").body["tools"], tools);
        let choice = &answer["choices"][0];
        assert_eq!(
            (&choice["finish_reason"], &choice["message"]["content"]),
            (&json!("tool_calls"), &Value::Null)
        );
        let calls = choice["message"]["tool_calls"].as_array().unwrap();
        let cities: Vec<Value> = calls
            .iter()
            .map(|call| {
                serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap()
            })
            .collect();
        assert_eq!(cities, [json!({"city": "Köln"}), json!({"city": "Graz"})]);
        assert_ne!(calls[0]["id"], calls[1]["id"]);
        let id = calls[0]["id"].clone();
        let messages = json!([
            {"role": "user", "content": "How is the weather?"}, choice["message"],
            {"role": "tool", "tool_call_id": id, "content": "sunny in Köln"},
        ]);
        let again = json!({"model": "gemma3:1b", "messages": messages, "tools": tools});
        let answer = post(&alice, &again).await.expect(200);
        assert_eq!(answer["choices"][0]["message"]["content"], "You said: sunny in Köln");
        let sent = model.asked("sunny in Köln").body;
        assert_eq!(sent["messages"][2]["tool_call_id"], id);
        assert_eq!(sent["messages"][1]["tool_calls"].as_array().unwrap().len(), 2);
    }
    let sent = ollama.model.asked("sunny in Köln").body;
    assert_eq!(sent["messages"][2]["tool_name"], "weather");
    assert_eq!(
        sent["messages"][1]["tool_calls"][0]["function"]["arguments"],
        json!({"city": "Köln"})
    );
}

async fn what_an_ollama_cannot_take_is_refused_by_name(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let ask = |url: &str| {
        let parts = json!([{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]);
        json!({"model": "gemma3:1b", "messages": [{"role": "user", "content": parts}]})
    };
    post(&alice, &ask("data:image/png;base64,iVBORw0KGgo=")).await.expect(200);
    assert_eq!(
        app.model.asked("What is it?").body["messages"][0]["images"],
        json!(["iVBORw0KGgo="])
    );
    for (url, code) in [
        ("http://169.254.169.254/x.png", "unsupported_by_model"),
        ("data:image/png;base64,%%%", "invalid_request"),
        ("data:image/png,abc", "invalid_request"),
    ] {
        assert_eq!(error(&post(&alice, &ask(url)).await, 400, code)["param"], "messages");
    }
    let mut spoken = ask("");
    spoken["messages"][0]["content"][1] = json!({"type": "input_audio", "input_audio": {}});
    let refused = error(&post(&alice, &spoken).await, 400, "unsupported_by_model");
    assert_eq!(refused["param"], "messages");
    let mut formless = completion_of("hello", false);
    formless["response_format"] = json!({"type": "json_schema"});
    let refused = error(&post(&alice, &formless).await, 400, "invalid_request");
    assert_eq!(refused["param"], "response_format");
    assert_eq!(app.model.chats().len(), 1);
}

async fn a_prompt_is_never_cut(on: Backend) {
    let app = TestApp::start(on).await;
    app.model.have(&[("gemma3:1b", 8192), ("small:1b", 512)]);
    let alice = app.login("alice").await;
    eventually(tests::PATIENCE, "both models are known", || async {
        let models = alice.get("/v1/models").await.expect(200);
        (models["data"].as_array()?.len() == 2).then_some(())
    })
    .await;
    let said = |times: usize| {
        let many: Vec<Value> = (0..times)
            .map(|i| json!({"role": "user", "content": format!("{i} word word word word")}))
            .collect();
        json!({"model": "small:1b", "messages": many})
    };
    let answer = post(&alice, &said(60)).await.expect(200);
    assert_eq!(answer["model"], "small:1b");
    let sent = app.model.chats().pop().unwrap();
    assert_eq!(sent.messages().len(), 60, "an estimate above the window is not the last word");
    assert_eq!((&sent.body["truncate"], &sent.body["shift"]), (&json!(false), &json!(false)));
    let told = error(&post(&alice, &said(2000)).await, 422, "context_too_long");
    assert_eq!(told["param"], "messages");
    assert_eq!(app.model.chats().len(), 1);
    app.model.usually(Answer::refuse(
        400,
        "",
        r#"{"error":"the request exceeds the available context size"}"#,
    ));
    error(&post(&alice, &said(60)).await, 422, "context_too_long");
}

async fn what_a_server_counts_teaches_the_estimates_of_every_door(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let text = "word ".repeat(200);
    let uncounted = Answer::new().body(r#"{"message":{"content":"Hello"},"done":true}"#).eof();
    let estimate = async |door: &str, body: &Value| {
        app.model.next(uncounted.clone());
        let answer = alice.post(door, body).await.expect(200);
        answer["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    let completion = completion_of(&text, false);
    let message = || json!({"message": text, "session_id": uuid::Uuid::new_v4().to_string()});
    let before = estimate("/v1/chat/completions", &completion).await;
    let said = estimate("/chat/message", &message()).await;
    let counted = format!(
        r#"{{"message":{{"content":"Hello"}},"done":true,"prompt_eval_count":{},"eval_count":1}}"#,
        3 * before
    );
    for _ in 0..10 {
        app.model.next(Answer::new().body(&counted).eof());
        post(&alice, &completion).await.expect(200);
    }
    let after = estimate("/v1/chat/completions", &completion).await;
    assert!(after > 2 * before, "{after} after {before}");
    let after = estimate("/chat/message", &message()).await;
    assert!(after > 2 * said, "{after} after {said}");
}

async fn every_error_has_their_shape(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let path = "/v1/chat/completions";
    let nobody = app.stranger();
    let missing = nobody.post(path, &completion_of("hello", true)).await;
    assert_eq!(error(&missing, 401, "missing_token")["type"], "authentication_error");
    assert!(!missing.header("www-authenticate").is_empty());
    let forged = nobody.with_token("cbk_nothing").get("/v1/models").await;
    error(&forged, 401, "invalid_token");
    error(&alice.get("/v1/nothing").await, 404, "not_found");
    error(&alice.get("/v1").await, 404, "not_found");
    let wrong_method = alice.get(path).await;
    error(&wrong_method, 405, "method_not_allowed");
    assert!(wrong_method.header("allow").contains("POST"));
    error(&alice.post_bytes(path, "{\"model\":").await, 400, "invalid_json");
    error(&alice.post_bytes(path, "").await, 400, "invalid_json");
    let plain = alice.request(Method::POST, path).body("{}");
    error(&alice.fetch(plain).await, 415, "unsupported_media_type");
    let long = "x".repeat(33 << 20);
    error(&post(&alice, &completion_of(&long, false)).await, 413, "payload_too_large");
    let mut unknown = completion_of("hello", true);
    unknown["model"] = json!("org/nowhere:1b");
    assert_eq!(error(&post(&alice, &unknown).await, 404, "model_not_found")["param"], "model");
    error(&alice.get("/v1/models/org/nowhere:1b").await, 404, "model_not_found");
    let elsewhere = alice.get("/v2/nothing").await;
    elsewhere.problem(404, "not_found");
}

async fn a_wrong_value_is_a_bad_request_that_names_it(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let with = |name: &str, value: Value| {
        let mut body = completion_of("hello", false);
        body[name] = value;
        body
    };
    for (body, param) in [
        (with("n", json!(2)), "n"),
        (with("messages", json!([])), "messages"),
        (with("messages", json!("hello")), "messages"),
        (with("messages", json!([{"role": "user", "content": 5}])), "messages[0].content"),
        (with("messages", json!([{"role": "elf", "content": "a"}])), "messages[0].role"),
        (with("temperature", json!(9)), "temperature"),
        (with("max_tokens", json!(-2)), "max_tokens"),
        (with("stop", json!({})), "stop"),
        (with("tools", json!("x")), "tools"),
        (with("tool_choice", json!("bogus")), "tool_choice"),
        (with("model", json!("../etc")), "model"),
        (json!({"model": "gemma3:1b"}), "messages"),
    ] {
        let error = error(&post(&alice, &body).await, 400, "invalid_request");
        assert_eq!(error["param"], param, "{error}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    for choice in [json!("bogus"), json!({"type": "function", "name": "g"})] {
        let tools = json!([{"type": "function", "name": "f"}]);
        let body = json!({"input": "hello", "store": false, "tools": tools, "tool_choice": choice});
        let refused = alice.post("/v1/responses", &body).await;
        assert_eq!(error(&refused, 400, "invalid_request")["param"], "tool_choice");
    }
    assert_eq!(app.model.chats().len(), 0);
    app.model.usually(Answer::refuse(400, "", r#"{"error":"bad grammar"}"#));
    let refused = error(&post(&alice, &with("tools", json!([]))).await, 400, "invalid_request");
    assert!(!refused.to_string().contains("grammar"), "{refused}");
    app.model.usually(Answer::refuse(
        400,
        "",
        r#"{"error":"registry.ollama.ai/library/m does not support tools"}"#,
    ));
    error(&post(&alice, &with("tools", json!([]))).await, 400, "unsupported_by_model");
}

async fn what_cannot_succeed_is_not_to_be_tried_again(on: Backend) {
    let app = TestApp::builder(on).set("rate_limit.tokens_per_day", 50).start().await;
    let alice = app.login("alice").await;
    let mut body = completion_of("hello", false);
    body["max_tokens"] = json!(100);
    let refused = post(&alice, &body).await;
    let told = error(&refused, 429, "quota_exceeded");
    assert_eq!(told["type"], "insufficient_quota");
    assert_eq!(refused.header("x-should-retry"), "false");
    let until_midnight: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=86_400).contains(&until_midnight), "{until_midnight}");
    body["max_tokens"] = json!(10);
    app.model.usually(Answer::refuse(503, "", "{}"));
    let failed = post(&alice, &body).await;
    error(&failed, 503, "llm_unavailable");
    assert_eq!(failed.header("x-should-retry"), "", "this may succeed later");
    assert!(!failed.header("retry-after").is_empty());
}

async fn a_model_is_found_by_an_id_with_slashes_and_colons(on: Backend) {
    let app = TestApp::start(on).await;
    let ids = ["gemma3:1b", "hf.co/bartowski/Llama-3.2-1B:Q4_K_M", "org/name", "plain:latest"];
    app.model.have(&ids.map(|id| (id, 4096)));
    let alice = app.login("alice").await;
    let known = || async {
        let list = alice.get("/v1/models").await.expect(200);
        assert_eq!(list["object"], "list");
        let data = list["data"].as_array()?.clone();
        (data.len() == ids.len()).then_some(data)
    };
    let data = eventually(Duration::from_secs(20), "all models are known", known).await;
    for (model, id) in data.iter().zip(ids) {
        assert_eq!(
            *model,
            json!({"id": id, "object": "model", "created": 0, "owned_by": "ollama"})
        );
        let encoded = id.replace('/', "%2F").replace(':', "%3A");
        for path in [id, &encoded] {
            let found = alice.get(&format!("/v1/models/{path}")).await.expect(200);
            assert_eq!(found, *model);
        }
    }
    let found = alice.get("/v1/models/plain").await.expect(200);
    assert_eq!(found["id"], "plain:latest");
    let mut body = completion_of("hello", false);
    body["model"] = json!(ids[1]);
    let answer = post(&alice, &body).await.expect(200);
    assert_eq!(answer["model"], ids[1]);
}

//! Ollama's own API: what its clients send, what they read, and how they are refused.

use std::time::{Duration, Instant};

use reqwest::{Method, header};
use serde_json::{Value, json};
use tests::{Answer, Backend, Client, FakeModel, Gate, PATIENCE, Reply, TestApp, eventually};

on_both_stores!(
    a_chat_is_streamed_in_lines_unless_it_is_wanted_whole,
    a_prompt_is_answered_and_what_would_be_dropped_is_refused,
    what_clients_send_reaches_the_model,
    tools_go_both_ways,
    loading_and_unloading_are_answered_and_done_by_nobody,
    models_are_told_as_an_ollama_tells_them,
    embeddings_have_both_calls,
    who_has_no_key_is_told_what_to_set,
    every_error_is_a_text_under_error,
    limits_are_those_of_all_apis,
    a_failure_in_the_stream_is_a_line,
    a_silent_model_sends_no_bytes_and_a_caller_who_leaves_stops_it,
    a_revoked_key_ends_the_stream,
    it_can_be_switched_off,
);

const SECOND: Duration = Duration::from_secs(1);

fn question(text: &str) -> Value {
    json!({"model": "gemma3:1b", "messages": [{"role": "user", "content": text}]})
}

fn lines(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    assert_eq!(reply.header("content-type"), "application/x-ndjson");
    assert_eq!(reply.header("content-encoding"), "");
    reply.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn content(lines: &[Value]) -> String {
    lines.iter().filter_map(|line| line["message"]["content"].as_str()).collect()
}

/// The text of a refusal, in the form that all of this API's have.
fn refusal(reply: &Reply, status: u16) -> String {
    let body = reply.expect(status);
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    body["error"].as_str().unwrap().to_owned()
}

async fn a_chat_is_streamed_in_lines_unless_it_is_wanted_whole(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let request = alice.request(Method::POST, "/api/chat").header("accept-encoding", "gzip");
    // As `curl -d` sends it.
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let streamed = lines(&alice.fetch(request.body(question("Grüße 🙂").to_string())).await);
    assert_eq!(content(&streamed), "You said: Grüße 🙂");
    let (last, parts) = streamed.split_last().unwrap();
    assert!(parts.iter().all(|line| line["done"] == false && line["model"] == "gemma3:1b"));
    assert_eq!((&last["done"], &last["done_reason"]), (&json!(true), &json!("stop")));
    for name in
        ["total_duration", "load_duration", "prompt_eval_count", "eval_count", "eval_duration"]
    {
        assert!(last[name].as_u64().is_some_and(|number| number > 0), "{name} in {last}");
    }
    let mut body = question("hello");
    body["stream"] = json!(false);
    let whole = alice.post("/api/chat", &body).await.expect(200);
    assert_eq!(whole["message"], json!({"role": "assistant", "content": "You said: hello"}));
    assert_eq!((&whole["done"], &whole["done_reason"]), (&json!(true), &json!("stop")));
    let today = alice.get("/chat/usage").await.expect(200)["today"].clone();
    assert!(today["completion_tokens"].as_u64().is_some_and(|tokens| tokens > 4), "{today}");
    app.model.usually(Answer::new().thinking("Hm.").token("Yes.").done("length"));
    let thought = lines(&alice.post("/api/chat", &question("think")).await);
    assert_eq!(thought[0]["message"]["thinking"], "Hm.");
    assert_eq!(thought.last().unwrap()["done_reason"], "length");
}

async fn a_prompt_is_answered_and_what_would_be_dropped_is_refused(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let body =
        json!({"model": "gemma3:1b", "prompt": "hello", "system": "Be brief.", "context": null});
    let streamed = lines(&alice.post("/api/generate", &body).await);
    let text: String = streamed.iter().filter_map(|line| line["response"].as_str()).collect();
    assert_eq!(text, "You said: hello");
    assert_eq!(app.model.asked("hello").messages()[0], ("system".into(), "Be brief.".into()));
    assert!(streamed.iter().all(|line| line.get("message").is_none()));
    for (name, value) in [
        ("raw", json!(true)),
        ("suffix", json!("x")),
        ("template", json!("x")),
        ("context", json!([1])),
    ] {
        let mut body = body.clone();
        body[name] = value;
        let text = refusal(&alice.post("/api/generate", &body).await, 400);
        assert!(text.contains(name), "{text}");
    }
}

async fn what_clients_send_reaches_the_model(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let schema = json!({"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "integer"}}});
    let body = json!({
        "MODEL": "GEMMA3:1b", "Messages": [
            {"Role": "SYSTEM", "content": "Be brief.", "images": null, "tool_calls": null, "tool_name": null},
            {"role": "user", "Content": "look", "images": ["iVBORw0KGgo="]},
        ],
        "stream": false, "tools": [], "format": schema, "think": "low", "keep_alive": "5m", "template": null,
        "options": {"NUM_PREDICT": 33, "temperature": 0.5, "top_k": 7, "top_p": 0.9, "seed": 3, "stop": ["END"],
            "num_ctx": 131_072, "nobody_knows": 1},
        "nobody_knows": {"a": 1},
    });
    alice.post("/api/chat", &body).await.expect(200);
    let sent = app.model.asked("look").body;
    let options = &sent["options"];
    for (name, value) in [
        ("num_predict", json!(33)),
        ("temperature", json!(0.5)),
        ("top_k", json!(7)),
        ("top_p", json!(0.9)),
        ("seed", json!(3)),
        ("stop", json!(["END"])),
        ("num_ctx", json!(8192)),
    ] {
        assert_eq!(options[name], value, "{name} in {options}");
    }
    assert_eq!((&sent["format"], &sent["think"]), (&schema, &json!("low")));
    assert_eq!(sent["messages"][0], json!({"role": "system", "content": "Be brief."}));
    assert_eq!(sent["messages"][1]["images"], json!(["iVBORw0KGgo="]));
    let mut thoughtless = question("no thoughts");
    thoughtless["think"] = json!(false);
    alice.post("/api/chat", &thoughtless).await;
    assert_eq!(app.model.asked("no thoughts").body["think"], false);
}

async fn tools_go_both_ways(on: Backend) {
    let server = FakeModel::openai().await;
    let behind_openai = TestApp::builder(on)
        .set("llm.providers", "openai")
        .set("llm.openai.base_url", server.url())
        .start()
        .await;
    let behind_ollama = TestApp::start(on).await;
    for (app, server, call_id) in [
        (&behind_openai, &server, "tool_call_id"),
        (&behind_ollama, &behind_ollama.model, "tool_name"),
    ] {
        let alice = app.login("alice").await;
        let calls = Answer::new()
            .tool_call("weather", json!({"city": "Köln"}))
            .tool_call("weather", json!({"city": "Graz"}));
        server.answer_to("weather please", calls.done("stop"));
        let mut body = question("weather please");
        body["tools"] = json!([{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]);
        let streamed = lines(&alice.post("/api/chat", &body).await);
        let calls: Vec<&Value> =
            streamed.iter().filter_map(|line| line["message"]["tool_calls"].get(0)).collect();
        assert_eq!(
            calls[1]["function"],
            json!({"index": 1, "name": "weather", "arguments": {"city": "Graz"}})
        );
        assert_eq!(streamed.last().unwrap()["done_reason"], "stop");
        let calls: Vec<Value> =
            calls.iter().map(|call| json!({"function": call["function"]})).collect();
        let mut messages = body["messages"].as_array().unwrap().clone();
        messages.push(json!({"role": "assistant", "content": "", "tool_calls": calls}));
        messages.push(json!({"role": "tool", "content": "rain", "tool_name": "weather"}));
        messages.push(json!({"role": "tool", "content": "sun", "tool_name": "weather"}));
        body["messages"] = messages.into();
        assert_eq!(content(&lines(&alice.post("/api/chat", &body).await)), "You said: sun");
        let sent = server.asked("sun").body["messages"].clone();
        assert!(sent[3][call_id].is_string(), "{sent}");
        if call_id == "tool_call_id" {
            assert_eq!(sent[3]["tool_call_id"], sent[1]["tool_calls"][1]["id"]);
            assert_ne!(sent[2]["tool_call_id"], sent[3]["tool_call_id"]);
        }
    }
}

async fn loading_and_unloading_are_answered_and_done_by_nobody(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    for (path, body, reason) in [
        ("/api/generate", json!({"model": "gemma3:1b"}), "load"),
        (
            "/api/generate",
            json!({"model": "gemma3:1b", "prompt": "", "keep_alive": "0s"}),
            "unload",
        ),
        ("/api/chat", json!({"model": "gemma3:1b", "messages": []}), "load"),
        ("/api/chat", json!({"model": "gemma3:1b", "keep_alive": 0}), "unload"),
    ] {
        let answer = alice.post(path, &body).await.expect(200);
        assert_eq!(
            (&answer["done_reason"], &answer["done"]),
            (&json!(reason), &json!(true)),
            "{body}"
        );
    }
    refusal(&alice.post("/api/generate", &json!({"model": "no/such:one"})).await, 404);
    assert!(app.model.chats().is_empty());
}

async fn models_are_told_as_an_ollama_tells_them(on: Backend) {
    let app = TestApp::start(on).await;
    app.model.have(&[("gemma3:1b", 8192), ("embed-small", 2048)]);
    let alice = app.login("alice").await;
    eventually(Duration::from_secs(20), "both models are listed", || async {
        let tags = alice.get("/api/tags").await.expect(200);
        (tags["models"].as_array()?.len() == 2).then_some(())
    })
    .await;
    let tags = alice.get("/api/tags").await.expect(200)["models"].clone();
    assert_eq!((&tags[0]["name"], &tags[0]["model"]), (&json!("gemma3:1b"), &json!("gemma3:1b")));
    assert_eq!(tags[0]["details"]["quantization_level"], "Q4_K_M");
    assert_eq!(tags[0]["size"], 815_319_791);
    for body in
        [json!({"model": "", "name": "GEMMA3:1B"}), json!({"model": "gemma3:1b", "verbose": null})]
    {
        let shown = alice.post("/api/show", &body).await.expect(200);
        assert_eq!(shown["capabilities"], json!(["completion", "vision", "tools", "thinking"]));
        assert_eq!(
            shown["model_info"],
            json!({"general.architecture": "gemma3", "gemma3.context_length": 8192})
        );
    }
    let shown = alice.post("/api/show", &json!({"model": "embed-small"})).await.expect(200);
    assert_eq!(shown["capabilities"], json!(["embedding"]));
    refusal(&alice.post("/api/show", &json!({"model": "no/such:one"})).await, 404);
    let loaded = alice.get("/api/ps").await.expect(200)["models"].clone();
    assert_eq!(loaded[0]["name"], "gemma3:1b");
    assert_eq!(alice.get("/api/version").await.expect(200), json!({"version": "0.34.0"}));
    for path in ["/api/tags", "/api/version"] {
        let head = alice.fetch(alice.request(Method::HEAD, path)).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
    }
}

async fn embeddings_have_both_calls(on: Backend) {
    let app = TestApp::builder(on).without_waiting().start().await;
    app.wait_up().await;
    app.model.have(&[("embed-small", 2048)]);
    let alice = app.login("alice").await;
    eventually(Duration::from_secs(20), "the model is listed", || async {
        let tags = alice.get("/api/tags").await.expect(200);
        (tags["models"][0]["name"] == "embed-small").then_some(())
    })
    .await;
    let body = json!({"model": "embed-small", "input": ["Hello", "you"], "truncate": null});
    let answer = alice.post("/api/embed", &body).await.expect(200);
    assert_eq!(answer["embeddings"], json!([[5.0, 72.0, 0.5], [3.0, 121.0, 0.5]]));
    assert_eq!(
        (&answer["prompt_eval_count"], &answer["model"]),
        (&json!(4), &json!("embed-small"))
    );
    assert!(answer["total_duration"].as_u64().is_some_and(|nanos| nanos > 0));
    assert_eq!(app.model.embeds()[0].body["truncate"], true);
    let one =
        alice.post("/api/embeddings", &json!({"model": "embed-small", "prompt": "Hello"})).await;
    assert_eq!(one.expect(200), json!({"embedding": [5.0, 72.0, 0.5]}));
    let body = json!({"model": "embed-small", "prompt": "tenth"});
    let one = alice.post("/api/embeddings", &body).await;
    assert_eq!(one.text(), r#"{"embedding":[0.1,-3.4e-5,16777216.0]}"#);
    let nothing = alice.post("/api/embed", &json!({"model": "embed-small", "input": ""})).await;
    assert_eq!(nothing.expect(200)["embeddings"], json!([]));
    let text = refusal(
        &alice
            .post(
                "/api/chat",
                &json!({"model": "embed-small", "messages": [{"role": "user", "content": "x"}]}),
            )
            .await,
        400,
    );
    assert!(text.contains("does not support chat"), "{text}");
}

async fn who_has_no_key_is_told_what_to_set(on: Backend) {
    let app = TestApp::start(on).await;
    let stranger = app.stranger();
    for (method, path) in [
        (Method::POST, "/api/chat"),
        (Method::POST, "/api/generate"),
        (Method::POST, "/api/embed"),
        (Method::POST, "/api/embeddings"),
        (Method::POST, "/api/show"),
        (Method::GET, "/api/tags"),
        (Method::GET, "/api/ps"),
        (Method::GET, "/api/version"),
    ] {
        let text = refusal(&stranger.fetch(stranger.request(method, path).body("{}")).await, 403);
        assert!(text.contains("OLLAMA_API_KEY") && text.contains("proxy"), "{text}");
    }
    let signed = stranger
        .request(Method::POST, "/api/chat?ts=1764403200")
        .header(header::AUTHORIZATION, "AAAAC3NzaC1lZDI1NTE5AAAAIA==:c2lnbmF0dXJl");
    let text = refusal(&stranger.fetch(signed.body("{}")).await, 403);
    assert!(text.contains("OLLAMA_AUTH"), "{text}");
    for raw in ["cbk_raw", "eyJhbGciOiJFZERTQSJ9.e30.c2ln", "Basic YTpi"] {
        let request = stranger.request(Method::GET, "/api/tags");
        let reply = stranger.fetch(request.header(header::AUTHORIZATION, raw)).await;
        assert!(refusal(&reply, 401).contains("`Authorization: Bearer <"), "{raw}");
        assert_eq!(reply.header("www-authenticate"), "Bearer");
    }
    let empty = stranger.request(Method::GET, "/api/tags").header(header::AUTHORIZATION, "");
    refusal(&stranger.fetch(empty).await, 403);
    let wrong = stranger.with_token("cbk_wrong");
    refusal(&wrong.get("/api/tags").await, 401);
    for method in [Method::GET, Method::HEAD] {
        for accept in ["application/json", "*/*", "application/x-ndjson"] {
            let request = stranger.request(method.clone(), "/").header("accept", accept);
            let reply = stranger.fetch(request).await;
            let text = if method == Method::GET { "Ollama is running" } else { "" };
            assert_eq!((reply.status, reply.text().as_str()), (200, text));
        }
    }
    let browser = stranger
        .request(Method::GET, "/")
        .header("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    let page = stranger.fetch(browser).await;
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(page.header("vary").to_lowercase().contains("accept"));
}

async fn every_error_is_a_text_under_error(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    for (method, path) in [
        (Method::POST, "/api/pull"),
        (Method::POST, "/api/push"),
        (Method::POST, "/api/create"),
        (Method::POST, "/api/copy"),
        (Method::DELETE, "/api/delete"),
        (Method::HEAD, "/api/blobs/sha256:aa"),
        (Method::POST, "/api/blobs/sha256:aa"),
        (Method::POST, "/api/me"),
        (Method::POST, "/api/signout"),
    ] {
        let reply = alice.fetch(alice.request(method.clone(), path)).await;
        assert_eq!(reply.status, 403, "{path}");
        if method != Method::HEAD {
            refusal(&reply, 403);
        }
    }
    let text = refusal(
        &alice
            .post(
                "/api/chat",
                &json!({"model": "no-such", "messages": [{"role": "user", "content": "x"}]}),
            )
            .await,
        404,
    );
    assert!(text.contains("no-such"), "{text}");
    refusal(&alice.get("/api/nothing").await, 404);
    refusal(&alice.get("/api/chat").await, 405);
    refusal(&alice.post_bytes("/api/chat", "{").await, 400);
    refusal(&alice.post_bytes("/api/chat", "").await, 400);
    for (body, word) in [
        (
            json!({"model": "gemma3:1b", "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}),
            "content",
        ),
        (json!({"model": "gemma3:1b", "messages": [{"role": "robot", "content": "x"}]}), "role"),
        (
            json!({"model": "gemma3:1b", "messages": [{"role": "user", "content": "x"}], "think": "bogus"}),
            "think",
        ),
        (
            json!({"model": "gemma3:1b", "messages": [{"role": "user", "content": "x"}], "format": "yaml"}),
            "format",
        ),
        (
            json!({"model": "gemma3:1b", "messages": [{"role": "user", "content": "x"}], "tools": {}}),
            "tools",
        ),
        (
            json!({"model": "gemma3:1b", "messages": [{"role": "user", "content": "x"}], "options": {"temperature": "hot"}}),
            "temperature",
        ),
        (
            json!({"model": "gemma3:1b", "messages": [{"role": "user", "content": "x", "images": ["AAAA"]}]}),
            "images",
        ),
    ] {
        let text = refusal(&alice.post("/api/chat", &body).await, 400);
        assert!(text.contains(word), "{text} for {body}");
    }
    let coded = alice.request(Method::POST, "/api/chat").header("content-encoding", "gzip");
    refusal(&alice.fetch(coded.body("x")).await, 415);
    let mut long = question(&"語".repeat(80_000));
    long["truncate"] = json!(false);
    refusal(&alice.post("/api/chat", &long).await, 422);
    app.model.usually(Answer::refuse(500, "", "{}"));
    refusal(&alice.post("/api/chat", &question("broken")).await, 502);
}

async fn limits_are_those_of_all_apis(on: Backend) {
    let app = TestApp::builder(on)
        .set("rate_limit.requests", 3)
        .set("rate_limit.period", "60s")
        .set("rate_limit.tokens_per_day", 400)
        .set("llm.ollama.max_concurrency", 1)
        .set("llm.ollama.queue", 0)
        .without_waiting()
        .start()
        .await;
    app.wait_up().await;
    let (alice, bob, carol) =
        (app.login("alice").await, app.login("bob").await, app.login("carol").await);
    let mut body = question("a question that costs more than is left");
    body["options"] = json!({"num_predict": 50});
    body["messages"][0]["content"] = json!("word ".repeat(1000));
    let quota = alice.post("/api/chat", &body).await;
    assert!(refusal(&quota, 429).contains("quota"));
    assert!(!quota.header("retry-after").is_empty());
    for _ in 0..2 {
        alice.get("/api/tags").await.expect(200);
    }
    let limited = alice.get("/api/tags").await;
    refusal(&limited, 429);
    assert!(limited.header("retry-after").parse::<u64>().is_ok());
    let gate = Gate::new();
    app.model.usually(Answer::gated(["done"], &gate));
    let asking = tokio::spawn(async move { bob.post("/api/chat", &question("x")).await });
    app.model.wait_chats(1).await;
    let full = carol.post("/api/chat", &question("y")).await;
    refusal(&full, 503);
    assert!(!full.header("retry-after").is_empty());
    gate.open();
    lines(&asking.await.unwrap());
}

async fn a_failure_in_the_stream_is_a_line(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    for answer in
        [Answer::partial(["half"]).error("the runner has crashed"), Answer::partial(["half"]).eof()]
    {
        app.model.usually(answer);
        let lines = lines(&alice.post("/api/chat", &question("crash")).await);
        assert_eq!(content(&lines), "half");
        let last = lines.last().unwrap();
        assert!(last["error"].is_string() && last.get("done").is_none(), "{last}");
        assert!(!last.to_string().contains("crashed"), "{last}");
    }
}

async fn a_silent_model_sends_no_bytes_and_a_caller_who_leaves_stops_it(on: Backend) {
    let app = TestApp::start(on).await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["one", "two"], &gate));
    let alice = app.login("alice").await;
    let start = Instant::now();
    let request = alice.request(Method::POST, "/api/chat").json(&question("wait"));
    let mut response = request.send().await.unwrap();
    assert!(start.elapsed() < SECOND * 5, "the head does not wait");
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let silence = tokio::time::timeout(SECOND * 17, response.chunk()).await;
    assert!(silence.is_err(), "something came: {silence:?}");
    gate.release(1);
    let line =
        tests::within(SECOND * 5, "the first line", response.chunk()).await.unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&line).unwrap()["message"]["content"], "one");
    drop(response);
    let after = app.model.left_after("wait", Instant::now(), PATIENCE).await;
    assert!(after < SECOND, "{after:?}");
}

async fn key(client: &Client) -> (String, String) {
    let made = client.at_auth().post("/auth/keys", &json!({"name": "ollama"})).await.expect(201);
    (made["id"].as_str().unwrap().to_owned(), made["key"].as_str().unwrap().to_owned())
}

async fn a_revoked_key_ends_the_stream(on: Backend) {
    let app = TestApp::start(on).await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["one", "two"], &gate));
    let alice = app.login("alice").await;
    let (id, key) = key(&alice).await;
    let caller = alice.with_token(&key);
    let asking = tokio::spawn(async move { caller.post("/api/chat", &question("x")).await });
    app.model.wait_chats(1).await;
    gate.release(1);
    assert_eq!(alice.at_auth().delete(&format!("/auth/keys/{id}")).await.status, 204);
    let reply = tests::within(SECOND * 10, "the stream ends", asking).await.unwrap();
    assert!(lines(&reply).last().unwrap()["error"].is_string());
    app.model.wait_idle(SECOND).await;
}

async fn it_can_be_switched_off(on: Backend) {
    let app = TestApp::builder(on).set("chat.ollama_api", false).start().await;
    let alice = app.login("alice").await;
    for path in ["/api/chat", "/api/tags", "/api/pull"] {
        assert_eq!(alice.post(path, &question("x")).await.status, 404, "{path}");
    }
    let request = alice.request(Method::GET, "/").header("accept", "*/*");
    assert!(alice.fetch(request).await.header("content-type").starts_with("text/html"));
}

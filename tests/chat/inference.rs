//! What every API without sessions owes its clients: limits, the queue, the quota, revocation and cancellation hold on each
//! alike, in the form of that API.

use std::time::{Duration, Instant};

use reqwest::{Method, Response};
use serde_json::{Value, json};
use tests::{Answer, Backend, Client, FakeModel, Gate, PATIENCE, TestApp, eventually, within};

on_both_stores!(
    every_api_answers_whole_and_streamed,
    every_stream_has_the_line_ends_of_its_format_alone,
    every_api_is_limited_alike,
    a_full_queue_is_told_in_the_form_of_each_api,
    a_revoked_token_ends_every_stream,
    a_quota_that_ends_inside_the_answer_charges_what_was_produced,
    a_caller_who_leaves_stops_the_model,
    every_stream_begins_within_five_seconds,
    an_empty_answer_at_the_end_is_never_sent,
    what_the_model_server_calls_bad_is_told_as_bad_on_every_api,
    what_the_model_lacks_is_refused_on_every_api_before_it_is_asked,
    thoughts_in_tags_are_told_apart,
    an_alias_is_a_model,
    large_bodies_are_read_and_larger_ones_refused,
    a_websocket_for_responses_is_refused_so_that_clients_post,
);

const SECOND: Duration = Duration::from_secs(1);

/// An API that answers without a session.
#[derive(Clone, Copy)]
struct Api {
    path: &'static str,
    body: fn(&str, bool) -> Value,
    /// Where a whole answer has its text.
    text: &'static str,
    /// Where an error has its words.
    error: &'static str,
    /// The status of a full queue.
    busy: u16,
}

fn messages(text: &str, stream: bool) -> Value {
    json!({"model": "gemma3:1b", "messages": [{"role": "user", "content": text}], "stream": stream, "max_tokens": 4000})
}

const APIS: [Api; 5] = [
    Api {
        path: "/v1/chat/completions",
        body: messages,
        text: "/choices/0/message/content",
        error: "/error/message",
        busy: 503,
    },
    Api {
        path: "/v1/responses",
        body: |text, stream| json!({"model": "gemma3:1b", "input": text, "stream": stream, "store": false, "max_output_tokens": 4000}),
        text: "/output/0/content/0/text",
        error: "/error/message",
        busy: 503,
    },
    Api {
        path: "/v1/messages",
        body: messages,
        text: "/content/0/text",
        error: "/error/message",
        busy: 529,
    },
    Api { path: "/api/chat", body: messages, text: "/message/content", error: "/error", busy: 503 },
    Api {
        path: "/api/generate",
        body: |text, stream| json!({"model": "gemma3:1b", "prompt": text, "stream": stream}),
        text: "/response",
        error: "/error",
        busy: 503,
    },
];

impl Api {
    async fn whole(self, client: &Client, text: &str) -> tests::Reply {
        client.post(self.path, &(self.body)(text, false)).await
    }

    async fn stream(self, client: &Client, text: &str) -> Response {
        let request = client.request(Method::POST, self.path);
        let body = (self.body)(text, true);
        let response = request.json(&body).send().await.expect("an answer");
        assert_eq!(response.status().as_u16(), 200, "{}", self.path);
        response
    }
}

/// All that a stream says until its end.
async fn rest(response: Response) -> String {
    let bytes = within(PATIENCE, "the stream ends", response.bytes()).await;
    String::from_utf8(bytes.expect("a whole body").to_vec()).expect("UTF-8")
}

async fn completion_tokens(client: &Client) -> u64 {
    let usage = client.get("/chat/usage").await.expect(200);
    usage["today"]["completion_tokens"].as_u64().unwrap()
}

async fn every_api_answers_whole_and_streamed(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    for api in APIS {
        let answer = api.whole(&alice, "hello").await.expect(200);
        assert_eq!(answer.pointer(api.text), Some(&json!("You said: hello")), "{}", api.path);
        let said = rest(api.stream(&alice, "hello").await).await;
        for word in ["You ", "said: ", "hello"] {
            assert!(said.contains(word), "{}: {said}", api.path);
        }
        let unknown = {
            let mut body = (api.body)("hello", false);
            body["model"] = json!("no/such:one");
            alice.post(api.path, &body).await.expect(404)
        };
        assert!(unknown.pointer(api.error).is_some_and(Value::is_string));
        let without_a_model = {
            let mut body = (api.body)("hello", false);
            body.as_object_mut().expect("an object").remove("model");
            alice.post(api.path, &body).await.expect(200)
        };
        assert_eq!(without_a_model["model"], "gemma3:1b", "{}", api.path);
        let stranger = api.whole(&app.stranger(), "hello").await;
        assert!(matches!(stranger.status, 401 | 403), "{}", api.path);
        assert!(stranger.json().pointer(api.error).is_some());
    }
}

async fn every_stream_has_the_line_ends_of_its_format_alone(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let said = "a\u{2028}b\u{2029}c\u{85}d";
    let mut streams = Vec::new();
    for api in APIS {
        streams.push((api.path, rest(api.stream(&alice, said).await).await));
    }
    for format in ["text/event-stream", "application/x-ndjson"] {
        let request = alice.request(Method::POST, "/chat/message?stream=true");
        let request = request.header("accept", format).json(&json!({"message": said}));
        streams.push((format, rest(request.send().await.expect("an answer")).await));
    }
    for (what, stream) in streams {
        assert!(stream.contains(r"a\u2028b\u2029c\u0085d"), "{what}: {stream}");
        assert!(!stream.contains(['\u{2028}', '\u{2029}', '\u{85}']), "{what}: {stream}");
    }
}

async fn every_api_is_limited_alike(on: Backend) {
    const LIMIT: usize = APIS.len() + 2;
    let app = TestApp::builder(on)
        // Each user logs in from the same address, which is limited too.
        .set("rate_limit.requests", LIMIT)
        .set("rate_limit.period", "60s")
        .start()
        .await;
    for (number, api) in APIS.into_iter().enumerate() {
        let user = app.login(&format!("user-{number}")).await;
        for _ in 0..LIMIT {
            api.whole(&user, "hello").await.expect(200);
        }
        let refused = api.whole(&user, "hello").await;
        assert_eq!(refused.status, 429, "{}", api.path);
        assert!(!refused.header("retry-after").is_empty());
        assert!(refused.json().pointer(api.error).is_some());
    }
}

async fn a_full_queue_is_told_in_the_form_of_each_api(on: Backend) {
    let app = TestApp::builder(on)
        .set("llm.ollama.max_concurrency", 1)
        .set("llm.ollama.queue", 0)
        .start()
        .await;
    let gate = Gate::new();
    let alice = app.login("alice").await;
    for api in APIS {
        app.model.next(Answer::gated(["one"], &gate));
        let (client, before) = (alice.clone(), app.model.chats().len());
        let running = tokio::spawn(async move { api.whole(&client, "first").await });
        app.model.wait_chats(before + 1).await;
        let refused = api.whole(&alice, "second").await;
        assert_eq!(refused.status, api.busy, "{}", api.path);
        assert!(!refused.header("retry-after").is_empty(), "{}", api.path);
        assert!(refused.json().pointer(api.error).is_some());
        gate.release(1);
        running.await.unwrap().expect(200);
    }
}

async fn a_revoked_token_ends_every_stream(on: Backend) {
    let app = TestApp::builder(on).set("llm.ollama.max_concurrency", APIS.len()).start().await;
    app.model.usually(Answer::new().token("one").hang());
    let alice = app.login("alice").await;
    let mut streams = Vec::new();
    for api in APIS {
        streams.push((api, api.stream(&alice, "count").await));
    }
    app.model.wait_chats(APIS.len()).await;
    assert_eq!(alice.post_empty("/auth/logout").await.status, 204);
    for (api, stream) in streams {
        let said = within(SECOND * 6, "the stream ends", rest(stream)).await;
        assert!(said.contains("revoked"), "{}: {said}", api.path);
    }
    app.model.wait_idle(SECOND).await;
}

async fn a_quota_that_ends_inside_the_answer_charges_what_was_produced(on: Backend) {
    let app = TestApp::builder(on).set("rate_limit.tokens_per_day", 600).start().await;
    // The fake server does not stop by itself, as no server must be trusted to.
    let words = vec!["word "; 5000];
    for (number, api) in APIS.into_iter().enumerate() {
        app.model.next(Answer::tokens(words.clone()));
        let user = app.login(&format!("user-{number}")).await;
        api.whole(&user, "on and on").await.expect(200);
        let asked = app.model.asked("on and on");
        let limit = asked.body["options"]["num_predict"].as_u64().unwrap();
        assert!(limit < 600, "{}: the answer is limited: {limit}", api.path);
        assert!(completion_tokens(&user).await > 0);
        let refused = api.whole(&user, "more").await;
        assert_eq!(refused.status, 429, "{}", api.path);
        app.model.forget();
    }
}

async fn a_caller_who_leaves_stops_the_model(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    for api in APIS {
        app.model.next(Answer::endless("x", SECOND / 50));
        let mut stream = api.stream(&alice, "for ever").await;
        stream.chunk().await.unwrap();
        drop(stream);
        app.model.wait_idle(SECOND * 2).await;
        app.model.next(Answer::new().hang());
        let before = app.model.chats().len();
        let client = alice.clone();
        let whole = tokio::spawn(async move { api.whole(&client, "silent").await });
        app.model.wait_chats(before + 1).await;
        whole.abort();
        app.model.wait_idle(SECOND * 2).await;
    }
}

async fn every_stream_begins_within_five_seconds(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["one"], &gate));
    let begun = Instant::now();
    let streams = APIS.map(|api| {
        let client = alice.clone();
        tokio::spawn(async move { api.stream(&client, "wait").await })
    });
    for stream in streams {
        let stream = within(SECOND * 6, "the stream begins", stream).await;
        assert!(begun.elapsed() < SECOND * 5 + SECOND / 2);
        gate.open();
        let said = rest(stream.unwrap()).await;
        assert!(said.contains("one"), "{said}");
    }
}

async fn an_empty_answer_at_the_end_is_never_sent(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let conversation = |answer: &str| {
        let said =
            json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}]);
        let mut body = messages("", false);
        (body["messages"], body["input"]) = (said.clone(), said);
        body
    };
    for path in ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat"] {
        alice.post(path, &conversation("")).await.expect(200);
        let sent = app.model.chats().pop().unwrap().messages();
        assert_eq!(sent, [("user".to_owned(), "Hi".to_owned())], "{path}");
        alice.post(path, &conversation("Hello, ")).await.expect(200);
        assert_eq!(app.model.chats().pop().unwrap().messages().len(), 2, "{path}");
    }
    let alone = json!({"model": "gemma3:1b", "messages": [{"role": "assistant", "content": ""}]});
    alice.post("/v1/chat/completions", &alone).await.expect(400);
}

async fn what_the_model_server_calls_bad_is_told_as_bad_on_every_api(on: Backend) {
    const WORDS: &str = "The model server does not accept this request";
    let app = TestApp::builder(on).set("llm.ollama.max_concurrency", 1).start().await;
    let alice = app.login("alice").await;
    let gate = Gate::new();
    app.model.answer_to("hold", Answer::gated(["one"], &gate));
    app.model.usually(Answer::refuse(400, "", r#"{"error": "invalid message sequence"}"#));
    for api in APIS {
        for stream in [false, true] {
            let reply = alice.post(api.path, &(api.body)("bad", stream)).await;
            let error = reply.expect(400).pointer(api.error).cloned().unwrap();
            assert!(error.as_str().unwrap().contains(WORDS), "{} {error}", api.path);
        }
    }
    let asked = app.model.chats().len();
    let holding = tokio::spawn({
        let client = alice.clone();
        async move { APIS[0].whole(&client, "hold").await }
    });
    app.model.wait_chats(asked + 1).await;
    let streams = APIS.map(|api| {
        let client = alice.clone();
        tokio::spawn(async move { api.stream(&client, "bad").await })
    });
    let mut open = Vec::new();
    for stream in streams {
        open.push(within(SECOND * 6, "the stream begins", stream).await.unwrap());
    }
    gate.open();
    holding.await.unwrap().expect(200);
    for stream in open {
        let said = rest(stream).await;
        assert!(said.contains(WORDS) && !said.contains("invalid message"), "{said}");
    }
}

async fn what_the_model_lacks_is_refused_on_every_api_before_it_is_asked(on: Backend) {
    let app = TestApp::start(on).await;
    app.model.have(&[("plain:1b", 4096)]);
    let alice = app.login("alice").await;
    eventually(PATIENCE, "the model is known", || async {
        let models = alice.get("/v1/models").await.expect(200);
        (models["data"][0]["id"] == "plain:1b").then_some(())
    })
    .await;
    let function = json!({"name": "f", "parameters": {"type": "object"}});
    let tools = json!([{"type": "function", "function": function, "name": "f", "input_schema": {"type": "object"}}]);
    for api in APIS.into_iter().filter(|api| api.path != "/api/generate") {
        for stream in [true, false] {
            let mut body = (api.body)("hello", stream);
            (body["model"], body["tools"]) = (json!("plain:1b"), tools.clone());
            let refused = alice.post(api.path, &body).await.expect(400);
            let told = refused.pointer(api.error).unwrap().as_str().unwrap();
            assert!(told.contains("does not support tools"), "{}: {told}", api.path);
            if api.path.starts_with("/v1") {
                assert_eq!(refused["error"]["code"], "unsupported_by_model");
            }
        }
    }
    let mut older = (APIS[0].body)("hello", false);
    (older["model"], older["functions"]) = (json!("plain:1b"), json!([{"name": "f"}]));
    let refused = alice.post(APIS[0].path, &older).await.expect(400);
    assert_eq!(refused["error"]["code"], "unsupported_by_model");
    let image = json!({"type": "input_image", "image_url": "data:image/png;base64,AAAA"});
    let body = json!({"model": "plain:1b", "store": false, "input": [{"role": "user", "content": [image]}]});
    let refused = alice.post("/v1/responses", &body).await.expect(400)["error"].clone();
    assert_eq!(
        (&refused["code"], &refused["param"]),
        (&json!("unsupported_by_model"), &json!("input"))
    );
    assert_eq!(app.model.chats().len(), 0);
}

async fn thoughts_in_tags_are_told_apart(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    app.model.usually(Answer::tokens(["<thi", "nk>Hm.</th", "ink>\n\nYes."]));
    let chat = alice.send("s", "think").await.expect(200);
    assert_eq!((&chat["thinking"], &chat["reply"]), (&json!("Hm."), &json!("Yes.")));
    let [completions, responses, ..] = APIS;
    let answer = completions.whole(&alice, "think").await.expect(200);
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["reasoning_content"], "Hm.");
    assert_eq!(message["content"], "Yes.");
    let answer = responses.whole(&alice, "think").await.expect(200);
    assert_eq!(answer["output"][0]["type"], "reasoning");
    assert_eq!(answer["output"][0]["summary"][0]["text"], "Hm.");
    assert_eq!(answer["output"][1]["content"][0]["text"], "Yes.");
}

async fn an_alias_is_a_model(on: Backend) {
    let app =
        TestApp::builder(on).set("llm.aliases", "gpt-4o=gemma3:1b,other=gemma3:1b").start().await;
    let alice = app.login("alice").await;
    for (api, name) in
        APIS.iter().flat_map(|api| ["gpt-4o", "GPT-4o:latest"].map(|name| (api, name)))
    {
        let mut body = (api.body)("hello", false);
        body["model"] = json!(name);
        alice.post(api.path, &body).await.expect(200);
    }
    let message = json!({"message": "hello", "model": "other"});
    alice.post("/chat/message", &message).await.expect(200);
    let models = alice.get("/v1/models").await.expect(200);
    let ids: Vec<&str> = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|model| model["id"].as_str())
        .collect();
    assert!(ids.contains(&"gpt-4o") && ids.contains(&"other"), "{ids:?}");
    let asked = app.model.asked("hello");
    assert_eq!(asked.body["model"], "gemma3:1b");
    let loaded = alice.get("/api/ps").await.expect(200);
    let names: Vec<_> = loaded["models"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["gemma3:1b", "gpt-4o", "other"]);
    let server = FakeModel::openai().await;
    let elsewhere = TestApp::builder(on)
        .set("llm.providers", "openai")
        .set("llm.openai.base_url", server.url())
        .set("llm.aliases", "gpt-4o=gemma3:1b")
        .start()
        .await;
    for client in [alice, elsewhere.login("alice").await] {
        for name in ["gpt-4o", "GPT-4O", "gpt-4o:latest"] {
            let mut body = (APIS[0].body)("hello", false);
            body["model"] = json!(name);
            client.post(APIS[0].path, &body).await.expect(200);
            let model = client.get(&format!("/v1/models/{name}")).await.expect(200);
            assert_eq!(model["id"], "gpt-4o");
            client.post("/api/show", &json!({"model": name})).await.expect(200);
        }
    }
}

async fn large_bodies_are_read_and_larger_ones_refused(on: Backend) {
    let app = TestApp::builder(on)
        .set("server.inference_body_limit", "4MiB")
        .set("llm.ollama.context_window", 10_000_000)
        .start()
        .await;
    app.model.have(&[("gemma3:1b", 8192), ("large:1b", 10_000_000)]);
    let alice = app.login("alice").await;
    let known = || async {
        let models = alice.get("/chat/models").await.expect(200);
        (models["models"].as_array()?.len() == 2).then_some(())
    };
    tests::eventually(PATIENCE, "both models are known", known).await;
    app.model.usually(Answer::tokens(["seen"]));
    for api in APIS {
        let mut long = (api.body)(&"word ".repeat(600_000), false);
        long["model"] = json!("large:1b");
        alice.post(api.path, &long).await.expect(200);
        let refused = api.whole(&alice, &"x".repeat(4 << 20)).await;
        assert_eq!(refused.status, 413, "{}", api.path);
        assert!(refused.json().pointer(api.error).is_some());
    }
    let refused = alice.send("s", &"x".repeat(2 << 20)).await;
    refused.problem(413, "payload_too_large");
}

async fn a_websocket_for_responses_is_refused_so_that_clients_post(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let upgrade = alice
        .request(Method::GET, "/v1/responses")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let refused = alice.fetch(upgrade).await;
    assert_eq!((refused.status, refused.header("upgrade")), (426, "websocket"));
    let plain = alice.get("/v1/responses").await;
    assert_eq!((plain.status, plain.header("allow")), (405, "POST"));
}

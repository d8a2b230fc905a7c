//! Traces: one from the caller through `chat`, `auth`, the store and the model server to the end of the stream.

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{
    Answer, Backend, Client, Collector, PATIENCE, Span, TestApp, eventually, free_port, within,
};

on_both_stores!(
    a_streamed_turn_is_one_trace_from_the_caller_to_its_end,
    a_completion_is_one_trace_and_a_failure_is_marked,
    a_login_through_chat_is_one_trace_with_auth,
);

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

async fn traced(on: Backend, settings: &[(&str, &str)]) -> (Collector, TestApp) {
    let collector = Collector::start().await;
    let mut app = TestApp::builder(on)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .env("OTEL_BSP_SCHEDULE_DELAY", "50");
    for (name, value) in settings {
        app = app.env(name, value);
    }
    (collector, app.start().await)
}

/// Posts as a caller who is in a trace, and reads the answer to its end.
async fn post(client: &Client, path: &str, flags: &str, body: &Value) -> tests::Reply {
    let request = client.request(Method::POST, path);
    let request = request.header("traceparent", format!("00-{TRACE}-{CALLER}-{flags}"));
    client.fetch(request.json(body)).await
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut found = spans.iter().filter(|span| span.name == name);
    let first = found.next().unwrap_or_else(|| panic!("no {name} in {spans:#?}"));
    assert!(found.next().is_none(), "{name} is there twice: {spans:#?}");
    first
}

async fn a_streamed_turn_is_one_trace_from_the_caller_to_its_end(on: Backend) {
    let (collector, app) = traced(on, &[]).await;
    app.model.answer_to("canary-prompt", Answer::tokens(["canary-answer "; 50]));
    let alice = app.login("alice").await;
    let body = json!({"session_id": "work", "message": "canary-prompt"});
    let answer = post(&alice, "/chat/message?stream=true", "01", &body).await;
    assert!(answer.text().contains("event: done"), "{}", answer.text());
    let spans = collector.trace_with(TRACE, &["POST /chat/message", "chat gemma3:1b"]).await;

    let server = named(&spans, "POST /chat/message");
    assert_eq!((server.parent.as_str(), server.kind, server.status), (CALLER, 2, 0));
    assert_eq!(server.attributes["http.route"], "/chat/message");
    assert_eq!(server.attributes["http.response.status_code"], 200);
    let id = answer.header("x-request-id");
    assert_eq!(server.attributes["request_id"], id);
    let chat = named(&spans, "chat gemma3:1b");
    assert_eq!((&chat.parent, chat.kind, chat.status), (&server.id, 3, 0));
    for (name, value) in [
        ("gen_ai.operation.name", json!("chat")),
        ("gen_ai.provider.name", json!("ollama")),
        ("gen_ai.request.model", json!("gemma3:1b")),
        ("gen_ai.response.model", json!("gemma3:1b")),
        ("gen_ai.usage.output_tokens", json!(50)),
        ("gen_ai.response.finish_reasons", json!(["stop"])),
        ("server.address", json!("127.0.0.1")),
        ("server.port", json!(app.model.address().port())),
    ] {
        assert_eq!(chat.attributes[name], value, "{name}");
    }
    assert!(chat.attributes["gen_ai.usage.input_tokens"].as_u64() > Some(0));
    let attempt = named(&spans, "attempt gemma3:1b");
    assert_eq!((&attempt.parent, attempt.kind), (&chat.id, 3));
    assert!(attempt.attributes["gen_ai.response.time_to_first_chunk"].is_f64());
    assert_eq!(named(&spans, "queue").parent, chat.id);
    assert_eq!(named(&spans, "authenticate").parent, server.id);
    let (accept, finish) = (named(&spans, "accept"), named(&spans, "finish"));
    assert_eq!((&accept.parent, &finish.parent), (&server.id, &chat.id));
    for step in [accept, finish] {
        assert!(spans.iter().any(
            |span| span.parent == step.id && span.attributes.contains_key("db.operation.name")
        ));
    }
    // The stream ends after the store has the answer.
    assert!(server.end >= finish.end && finish.end >= attempt.end, "{spans:#?}");
    assert!(spans.len() < 20, "a span a token? {spans:#?}");

    let asked = app.model.chats().pop().unwrap().head.to_lowercase();
    assert!(asked.contains(&format!("traceparent: 00-{TRACE}-{}-01", attempt.id)), "{asked}");
    for secret in ["canary", alice.token(), "alice"] {
        assert!(!collector.holds(secret), "the traces have {secret}");
    }
    let line = app.chat_process(0).log_line(&[id, "\"route\""]).await;
    assert!(line.contains(TRACE), "{line}");
}

async fn a_completion_is_one_trace_and_a_failure_is_marked(on: Backend) {
    let (collector, app) = traced(on, &[("OTEL_SERVICE_NAME", "ours")]).await;
    let alice = app.login("alice").await;
    let completion = |message: &str| json!({"model": "gemma3:1b", "stream": true, "messages": [{"role": "user", "content": message}]});
    let answer = post(&alice, "/v1/chat/completions", "01", &completion("hello you")).await;
    assert!(answer.text().contains("[DONE]"), "{}", answer.text());
    let names = ["POST /v1/chat/completions", "chat gemma3:1b"];
    let spans = collector.trace_with(TRACE, &names).await;
    let (server, chat) = (named(&spans, names[0]), named(&spans, names[1]));
    assert_eq!((server.parent.as_str(), &chat.parent), (CALLER, &server.id));
    assert_eq!(server.service, "ours");
    assert_eq!(chat.attributes["gen_ai.response.finish_reasons"], json!(["stop"]));
    assert_eq!(chat.attributes["gen_ai.usage.output_tokens"], 4);
    assert!(!chat.attributes.contains_key("gen_ai.input.messages"));
    assert!(spans.iter().any(|span| span.attributes.contains_key("db.operation.name") && span.parent == chat.id));

    app.model.answer_to("fail", Answer::refuse(500, "", "{\"error\":\"canary-upstream\"}"));
    let other = TRACE.replace('4', "5");
    let request = alice.request(Method::POST, "/v1/chat/completions");
    let request = request.header("traceparent", format!("00-{other}-{CALLER}-01"));
    alice.fetch(request.json(&completion("fail"))).await.expect(502);
    let spans = collector.trace_with(&other, &names).await;
    let failed = |name| {
        let span = named(&spans, name);
        (span.status, span.attributes["error.type"].clone())
    };
    assert_eq!(failed("chat gemma3:1b"), (2, json!("llm_failed")));
    assert_eq!(failed("attempt gemma3:1b"), (2, json!("failed")));
    assert_eq!(failed("POST /v1/chat/completions"), (2, json!("502")));
    assert!(!collector.holds("canary"));
}

async fn a_login_through_chat_is_one_trace_with_auth(on: Backend) {
    let (collector, app) = traced(on, &[]).await;
    let somebody = app.stranger();
    let body = json!({"user_id": "alice"});
    post(&somebody, "/auth/login", "01", &body).await.expect(200);
    let spans = eventually(PATIENCE, "both services tell", || async {
        let spans = collector.trace(TRACE);
        let servers = spans.iter().filter(|span| span.kind == 2).count();
        (servers == 2).then_some(spans)
    })
    .await;
    let (at_chat, at_auth) =
        (named(&spans, "POST /auth/{*rest}"), named(&spans, "POST /auth/login"));
    assert_eq!(at_chat.parent, CALLER);
    if on == Backend::Redis {
        assert_eq!((at_chat.service.as_str(), at_auth.service.as_str()), ("chat", "auth"));
        let call = named(&spans, "auth");
        assert_eq!((&call.parent, &at_auth.parent), (&at_chat.id, &call.id));
    } else {
        assert_eq!(at_auth.parent, at_chat.id);
    }
    assert!(
        spans
            .iter()
            .any(|span| span.attributes.contains_key("db.operation.name")
                && span.parent == at_auth.id)
    );
}

#[tokio::test]
async fn what_the_caller_does_not_trace_is_not_traced_and_its_trace_is_passed_on() {
    let (collector, app) = traced(Backend::Memory, &[]).await;
    let alice = app.login("alice").await;
    post(&alice, "/chat/message", "00", &json!({"message": "hello"})).await.expect(200);
    // Whatever comes later is sent later.
    alice.say("work", "hello").await;
    eventually(PATIENCE, "another trace", || async {
        collector.holds("POST /chat/message").then_some(())
    })
    .await;
    assert!(collector.trace(TRACE).is_empty(), "{:#?}", collector.trace(TRACE));
    let head = app.model.chats()[0].head.to_lowercase();
    assert!(head.contains(&format!("traceparent: 00-{TRACE}-")) && head.contains("-00\r\n"));
}

#[tokio::test]
async fn a_message_on_a_socket_is_in_the_trace_of_its_handshake() {
    let (collector, app) = traced(Backend::Memory, &[]).await;
    let alice = app.login("alice").await;
    let mut socket = alice.socket().await;
    let id = socket.say("work", "hello").await;
    socket.rest_of(&id).await;
    socket.close().await;
    eventually(PATIENCE, "the socket's span", || async {
        collector.holds("websocket").then_some(())
    })
    .await;
    let spans = collector.all();
    let (server, socket) = (named(&spans, "GET /chat/ws"), named(&spans, "websocket"));
    let (message, chat) = (named(&spans, "ws message"), named(&spans, "chat gemma3:1b"));
    assert_eq!((&socket.parent, &message.parent), (&server.id, &socket.id));
    assert_eq!(chat.parent, message.id);
}

#[tokio::test]
async fn what_was_said_is_in_a_trace_only_where_the_settings_say_so() {
    let settings = [("CHATBOT__TELEMETRY__CAPTURE_CONTENT", "true")];
    let (collector, app) = traced(Backend::Memory, &settings).await;
    let alice = app.login("alice").await;
    post(&alice, "/chat/message", "01", &json!({"message": "hello"})).await.expect(200);
    let spans = collector.trace_with(TRACE, &["chat gemma3:1b"]).await;
    let attributes = &named(&spans, "chat gemma3:1b").attributes;
    let read =
        |name: &str| -> Value { serde_json::from_str(attributes[name].as_str().unwrap()).unwrap() };
    let part = |text: &str| json!([{"type": "text", "content": text}]);
    let asked = json!([{"role": "user", "parts": part("hello")}]);
    assert_eq!(read("gen_ai.input.messages"), asked);
    let said =
        json!([{"role": "assistant", "parts": part("You said: hello"), "finish_reason": "stop"}]);
    assert_eq!(read("gen_ai.output.messages"), said);
}

#[tokio::test]
async fn headers_and_the_last_spans_reach_the_collector() {
    let settings = [
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "authorization=Bearer%20canary-header"),
        ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
    ];
    let (collector, app) = traced(Backend::Memory, &settings).await;
    let alice = app.login("alice").await;
    post(&alice, "/chat/message", "01", &json!({"message": "hello"})).await.expect(200);
    assert!(collector.trace(TRACE).is_empty());
    app.chat_process(0).terminate();
    app.chat_process(0).wait_exit(PATIENCE).await;
    assert!(collector.heads().contains("authorization: Bearer canary-header"));
    named(&collector.trace(TRACE), "chat gemma3:1b");
    assert!(!app.logs().contains("canary"));
}

#[tokio::test]
async fn a_collector_that_is_not_there_costs_nothing_and_is_named_once() {
    let app = TestApp::builder(Backend::Memory)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{}", free_port()))
        .env("OTEL_BSP_SCHEDULE_DELAY", "20")
        .env("OTEL_BSP_MAX_QUEUE_SIZE", "2")
        .start()
        .await;
    let alice = app.login("alice").await;
    for reason in ["not_sent", "queue_full"] {
        eventually(PATIENCE, "spans are dropped", || async {
            alice.say("work", "hello").await;
            let dropped = app.measured(0, "otlp_spans_dropped_total", reason).await;
            (dropped > 3.0).then_some(())
        })
        .await;
    }
    let process = app.chat_process(0);
    process.signal(Signal::TERM);
    within(PATIENCE, "it ends", process.wait_exit(PATIENCE)).await;
    let log = process.log_text();
    assert_eq!(log.matches("spans cannot be sent").count(), 1, "{log}");
}

#[tokio::test]
async fn without_a_collector_nothing_is_traced() {
    let app = TestApp::builder(Backend::Memory).env("OTEL_SERVICE_NAME", "ours").start().await;
    let alice = app.login("alice").await;
    post(&alice, "/chat/message", "01", &json!({"message": "hello"})).await.expect(200);
    assert!(!app.model.chats()[0].head.contains("traceparent"));
    assert!(!app.logs().contains("trace_id"));
}

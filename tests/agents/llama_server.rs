//! llama.cpp's own server behind `/v1/messages` and the calls for embeddings, with a tiny model whose answers are known: a word
//! in the message chooses one.

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{Backend, Client, MessageStream, TestApp, free_port, message_of, text_of_events};
use tokio::process::Child;

use crate::{installed, program, sources};

/// A service in front of a llama-server with that model, which ends with the child.
async fn serving(model: &str, mode: Option<&str>) -> (TestApp, Child, TempDir) {
    let (folder, home, port) = (installed().await, TempDir::new().unwrap(), free_port());
    let mut server = program(&folder.join("python/bin/python"), home.path());
    server
        .arg(sources().join("llama_server.py"))
        .arg(folder.join(model))
        .arg(port.to_string())
        .args(mode);
    let server = server.spawn().unwrap();
    let app = TestApp::builder(Backend::Memory)
        .set("llm.providers", "openai")
        .set("llm.openai.base_url", format!("http://127.0.0.1:{port}"))
        .start()
        .await;
    (app, server, home)
}

async fn post(client: &Client, body: &Value) -> Value {
    client.post("/v1/messages", body).await.expect(200)
}

#[tokio::test]
async fn a_real_server_answers_thinks_and_calls_tools() {
    let (app, _server, _home) = serving("scripted.gguf", None).await;
    let alice = app.login("alice").await;
    let hello = post(&alice, &message_of("HELLO", false)).await;
    assert_eq!(hello["content"][0]["text"], "Hello! I am a scripted test model.");
    assert_eq!(hello["stop_reason"], "end_turn");
    let mut stopping = message_of("HELLO", false);
    stopping["stop_sequences"] = json!(["zz", "test"]);
    let stopped = post(&alice, &stopping).await;
    assert_eq!(stopped["content"][0]["text"], "Hello! I am a scripted ");
    let why = (&stopped["stop_reason"], &stopped["stop_sequence"]);
    assert_eq!(why, (&json!("stop_sequence"), &json!("test")));
    let thought = post(&alice, &message_of("THINK", false)).await;
    let kinds: Vec<_> =
        thought["content"].as_array().unwrap().iter().map(|block| &block["type"]).collect();
    assert_eq!(kinds, ["thinking", "text"]);
    let events = MessageStream::open(&alice, &message_of("UTF8", true)).await.rest().await;
    assert_eq!(text_of_events(&events), "Smile: 🙂 and 世界 — größe, 你好!");
    let usage = &events[events.len() - 2]["usage"];
    assert!(usage["output_tokens"].as_u64().unwrap() > 5, "{usage}");
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}, "unit": {"type": "string"}}});
    let mut body = message_of("TOOL", false);
    body["tools"] = json!([{"name": "get_weather", "input_schema": schema}]);
    let called = post(&alice, &body).await;
    assert_eq!(called["stop_reason"], "tool_use");
    let call = &called["content"][0];
    assert_eq!(call["input"], json!({"city": "Paris", "unit": "celsius"}));
    let result = json!([{"type": "tool_result", "tool_use_id": call["id"], "content": "18"}]);
    let said = body["messages"].as_array_mut().unwrap();
    said.push(json!({"role": "assistant", "content": called["content"]}));
    said.push(json!({"role": "user", "content": result}));
    let answer = post(&alice, &body).await;
    assert_eq!(answer["content"][0]["text"], "It is 18 °C in Paris now.");
}

#[tokio::test]
async fn a_long_answer_is_cut_and_a_picture_refused() {
    let (app, _server, _home) = serving("scripted.gguf", None).await;
    let alice = app.login("alice").await;
    let mut long = message_of("LONG", false);
    long["max_tokens"] = json!(7);
    let cut = post(&alice, &long).await;
    assert_eq!(
        (&cut["stop_reason"], &cut["usage"]["output_tokens"]),
        (&json!("max_tokens"), &json!(7))
    );
    let mut picture = message_of("", false);
    picture["messages"][0]["content"] = json!([
        {"type": "text", "text": "HELLO"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
    ]);
    let refused = alice.post("/v1/messages", &picture).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (400, &json!("unsupported_by_model"))
    );
}

#[tokio::test]
async fn a_real_server_makes_embeddings_and_says_where_it_cannot() {
    let (app, _server, _home) = serving("embedding.gguf", Some("embed")).await;
    let alice = app.login("alice").await;
    let body = json!({"model": "gemma3:1b", "input": ["Hello", "world", "Hello"]});
    let answer = alice.post("/v1/embeddings", &body).await.expect(200);
    let data = answer["data"].as_array().unwrap();
    let length = |entry: &Value| entry["embedding"].as_array().unwrap().len();
    assert!(data.len() == 3 && data.iter().all(|entry| length(entry) == length(&data[0])));
    assert_eq!(data[0]["embedding"], data[2]["embedding"]);
    assert_ne!(data[0]["embedding"], data[1]["embedding"]);
    assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() > 3, "{answer}");
    let old = json!({"model": "gemma3:1b", "prompt": "Hello"});
    let one = alice.post("/api/embeddings", &old).await.expect(200);
    assert_eq!(one["embedding"].as_array().unwrap().len(), length(&data[0]));
    let tokens = json!({"model": "gemma3:1b", "input": [[1, 2, 3]]});
    alice.post("/v1/embeddings", &tokens).await.expect(200);
    let long = json!({"model": "gemma3:1b", "input": "Hello ".repeat(9000)});
    let refused = alice.post("/v1/embeddings", &long).await.expect(422);
    assert_eq!(refused["error"]["code"], "context_too_long");
}

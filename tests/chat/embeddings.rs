//! Embeddings through `/v1/embeddings`: their forms, their cost, and that they keep nobody waiting.

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{
    Answer, Backend, Client, FakeModel, Gate, PATIENCE, TestApp, completion_of, eventually,
};

on_both_stores!(
    texts_and_tokens_become_vectors_in_two_encodings,
    what_they_cost_is_counted_and_limited,
    a_model_does_what_it_can_and_says_what_it_cannot,
    a_caller_who_leaves_stops_the_server_and_pays_for_what_was_made,
    a_person_does_not_wait_for_an_import,
);

const MODEL: &str = "embed-small";

async fn having_models(app: &TestApp, client: &Client) {
    app.model.have(&[("gemma3:1b", 8192), (MODEL, 2048)]);
    eventually(PATIENCE, "both models are known", || async {
        let models = client.get("/v1/models").await.expect(200);
        (models["data"].as_array()?.len() == 2).then_some(())
    })
    .await;
}

async fn serving(on: Backend) -> (TestApp, Client) {
    let app = TestApp::builder(on).without_waiting().start().await;
    app.wait_up().await;
    let alice = app.login("alice").await;
    having_models(&app, &alice).await;
    (app, alice)
}

async fn embed(client: &Client, more: Value) -> tests::Reply {
    let mut body = json!({"model": MODEL});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    client.post("/v1/embeddings", &body).await
}

async fn texts_and_tokens_become_vectors_in_two_encodings(on: Backend) {
    let (app, alice) = serving(on).await;
    let answer =
        embed(&alice, json!({"input": "Hello", "user": "u", "dimensions": null})).await.expect(200);
    assert_eq!(
        answer,
        json!({
            "object": "list", "model": MODEL,
            "data": [{"object": "embedding", "index": 0, "embedding": [5.0, 72.0, 0.5]}],
            "usage": {"prompt_tokens": 2, "total_tokens": 2},
        })
    );
    let sent = app.model.embeds().remove(0).body;
    assert_eq!((&sent["input"], &sent["truncate"]), (&json!(["Hello"]), &json!(false)));
    let many: Vec<String> = (0..40).map(|number| "x".repeat(number + 1)).collect();
    let answer =
        embed(&alice, json!({"input": many, "encoding_format": "base64"})).await.expect(200);
    for (index, entry) in answer["data"].as_array().unwrap().iter().enumerate() {
        let bytes = STANDARD.decode(entry["embedding"].as_str().unwrap()).unwrap();
        let floats: Vec<f32> =
            bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
        assert_eq!(floats, [index as f32 + 1.0, 120.0, 0.5]);
        assert_eq!(entry["index"], index);
    }
    assert_eq!(answer["usage"]["prompt_tokens"], 80);
    assert_eq!(app.model.embeds().len(), 3, "in parts");
    let server = FakeModel::openai().await;
    server.have(&[(MODEL, 2048)]);
    let app = TestApp::builder(on)
        .set("llm.providers", "openai")
        .set("llm.openai.base_url", server.url())
        .without_waiting()
        .start()
        .await;
    app.wait_up().await;
    let bob = app.login("bob").await;
    let answer = embed(&bob, json!({"input": [[1, 2, 3], [4]]})).await.expect(200);
    assert_eq!(answer["data"][0]["embedding"], json!([3.0, 0.0, 0.25]));
    assert_eq!(server.embeds()[0].body["input"], json!([[1, 2, 3], [4]]));
}

async fn used(client: &Client) -> u64 {
    let today = client.get("/chat/usage").await.expect(200)["today"].clone();
    today["prompt_tokens"].as_u64().unwrap() + today["completion_tokens"].as_u64().unwrap()
}

async fn what_they_cost_is_counted_and_limited(on: Backend) {
    let app =
        TestApp::builder(on).set("rate_limit.tokens_per_day", 50).without_waiting().start().await;
    app.wait_up().await;
    let alice = app.login("alice").await;
    having_models(&app, &alice).await;
    let before = used(&alice).await;
    embed(&alice, json!({"input": ["a", "b", "c"]})).await.expect(200);
    assert_eq!(used(&alice).await - before, 6);
    let refused = embed(&alice, json!({"input": "word ".repeat(200)})).await;
    assert_eq!(refused.expect(429)["error"]["code"], "quota_exceeded");
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(app.model.embeds().len(), 1, "the server was not asked");
}

async fn a_model_does_what_it_can_and_says_what_it_cannot(on: Backend) {
    let (app, alice) = serving(on).await;
    let code = |reply: tests::Reply, status| reply.expect(status)["error"]["code"].clone();
    let chat_model =
        alice.post("/v1/embeddings", &json!({"model": "gemma3:1b", "input": "x"})).await;
    assert_eq!(code(chat_model, 400), "unsupported_by_model");
    let mut question = completion_of("Hi", false);
    question["model"] = json!(MODEL);
    let embedding_model = alice.post("/v1/chat/completions", &question).await;
    assert_eq!(code(embedding_model, 400), "unsupported_by_model");
    let dimensions = embed(&alice, json!({"input": "x", "dimensions": 7})).await;
    assert_eq!(code(dimensions, 400), "unsupported_by_model");
    assert_eq!(code(embed(&alice, json!({"input": "x", "dimensions": 3})).await, 200), Value::Null);
    assert_eq!(code(embed(&alice, json!({"input": [[1, 2]]})).await, 400), "unsupported_by_model");
    let unknown =
        alice.post("/v1/embeddings", &json!({"model": "no/such:one", "input": "x"})).await;
    assert_eq!(code(unknown, 404), "model_not_found");
    for (wrong, param) in [
        (json!({"input": []}), "input"),
        (json!({"input": ["", "x"]}), "input"),
        (json!({"input": {"a": 1}}), "input"),
        (json!({}), "input"),
        (json!({"input": "x", "encoding_format": "int8"}), "encoding_format"),
        (json!({"input": "x", "dimensions": 0}), "dimensions"),
    ] {
        let error = embed(&alice, wrong).await.expect(400)["error"].clone();
        assert_eq!((&error["code"], &error["param"]), (&json!("invalid_request"), &json!(param)));
    }
    let long = embed(&alice, json!({"input": "語".repeat(20_000)})).await;
    assert!(long.text().contains("An input is longer than the model's window"));
    assert_eq!(long.json()["error"]["param"], "input");
    assert_eq!(code(long, 422), "context_too_long");
    assert_eq!(app.stranger().post("/v1/embeddings", &json!({"input": "x"})).await.status, 401);
    let chat_models = alice.get("/chat/models").await.expect(200);
    assert_eq!(chat_models["models"].as_array().unwrap().len(), 1);
}

async fn a_caller_who_leaves_stops_the_server_and_pays_for_what_was_made(on: Backend) {
    let (app, alice) = serving(on).await;
    let before = used(&alice).await;
    let mut inputs = vec!["x".to_owned(); 32];
    inputs.push("hang".to_owned());
    let body = json!({"model": MODEL, "input": inputs});
    let asking = tokio::spawn(alice.request(Method::POST, "/v1/embeddings").json(&body).send());
    eventually(PATIENCE, "the second part is asked for", || async {
        (app.model.embeds().len() == 2).then_some(())
    })
    .await;
    asking.abort();
    let left = Instant::now();
    eventually(Duration::from_secs(1), "the server is left", || async {
        app.model.embeds()[1].ended.map(drop)
    })
    .await;
    assert!(left.elapsed() < Duration::from_secs(1));
    eventually(PATIENCE, "what was made is counted", || async {
        (used(&alice).await - before == 64).then_some(())
    })
    .await;
}

async fn a_person_does_not_wait_for_an_import(on: Backend) {
    let app =
        TestApp::builder(on).set("llm.ollama.max_concurrency", 1).without_waiting().start().await;
    app.wait_up().await;
    let (alice, bob) = (app.login("alice").await, app.login("bob").await);
    having_models(&app, &alice).await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["done"], &gate));
    // The one slot is taken; an import and a person wait for it.
    let first = completion_of("first", false);
    let asking = tokio::spawn({
        let alice = alice.clone();
        async move { alice.post("/v1/chat/completions", &first).await }
    });
    app.model.wait_chats(1).await;
    let importing = tokio::spawn({
        let alice = alice.clone();
        async move { embed(&alice, json!({"input": vec!["x"; 64]})).await }
    });
    eventually(PATIENCE, "the import waits", || async {
        (app.measured(0, "llm_embeddings_queued", "ollama").await == 1.0).then_some(())
    })
    .await;
    let second = completion_of("second", false);
    let person = tokio::spawn(async move { bob.post("/v1/chat/completions", &second).await });
    eventually(PATIENCE, "the person waits", || async {
        (app.measured(0, "llm_queued", "ollama").await == 1.0).then_some(())
    })
    .await;
    gate.open();
    for reply in [asking.await, person.await, importing.await] {
        reply.unwrap().expect(200);
    }
    let (person, import) = (app.model.asked("second").arrived, app.model.embeds()[0].arrived);
    assert!(person < import, "the person went first");
}

//! Which model server answers, who waits for it, and what is refused before anything is stored.

use super::model_faults::impatient;
use serde_json::json;
use tests::{Answer, Backend, Gate, TestApp, eventually, free_port};

on_both_stores!(
    a_server_that_is_known_to_be_down_is_503_before_anything_is_stored,
    an_unknown_model_is_404_with_the_way_to_get_it,
    a_model_that_is_named_by_its_path_can_be_asked,
    a_full_queue_refuses_at_once,
    one_users_queue_does_not_keep_another_waiting,
    a_next_provider_takes_over,
);

async fn a_server_that_is_known_to_be_down_is_503_before_anything_is_stored(on: Backend) {
    let dead = format!("http://127.0.0.1:{}", free_port());
    let app = TestApp::builder(on).set("llm.ollama.base_url", dead).without_waiting().start().await;
    app.wait_up().await;
    let alice = app.login("alice").await;
    eventually(tests::PATIENCE, "it is known to be down", || async {
        let session = uuid::Uuid::new_v4().to_string();
        alice.send(&session, "hello").await.problem(503, "llm_unavailable");
        (alice.get(&format!("/chat/sessions/{session}")).await.status == 404).then_some(())
    })
    .await;
    let line = app.chat_process(0).log_line(&["did not list its models"]).await;
    assert!(line.to_lowercase().contains("refused"), "{line}");
}

async fn an_unknown_model_is_404_with_the_way_to_get_it(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let body = json!({"session_id": "work", "message": "hello", "model": "nowhere:1b"});
    let problem = alice.post("/chat/message", &body).await.problem(404, "model_not_found");
    assert!(problem["detail"].as_str().unwrap().contains("ollama pull nowhere:1b"), "{problem}");
    alice.get("/chat/sessions/work").await.problem(404, "session_not_found");
    assert_eq!(app.model.chats().len(), 0);
}

async fn a_model_that_is_named_by_its_path_can_be_asked(on: Backend) {
    let app = TestApp::start(on).await;
    // vLLM and llama-server do so where they are told no other name.
    let model = "/models/llama/q4.gguf";
    app.model.have(&[(model, 8192)]);
    let alice = app.login("alice").await;
    eventually(tests::PATIENCE, "the model is known", || async {
        let models = alice.get("/v1/models").await.expect(200);
        (models["data"][0]["id"] == model).then_some(())
    })
    .await;
    let body = json!({"message": "hello", "model": model});
    let answer = alice.post("/chat/message", &body).await.expect(200);
    assert_eq!(answer["model"], model);
    let found = "/v1/models/%2Fmodels%2Fllama%2Fq4.gguf";
    assert_eq!(alice.get(found).await.expect(200)["id"], model);
    for elsewhere in
        ["../models/llama", "/../q4.gguf", "//host/q4.gguf", "http://host/q4.gguf", "/"]
    {
        let body = json!({"message": "hello", "model": elsewhere});
        let reply = alice.post("/chat/message", &body).await;
        reply.problem(422, "validation_failed");
    }
}

async fn a_full_queue_refuses_at_once(on: Backend) {
    let app = TestApp::builder(on)
        .set("llm.ollama.max_concurrency", 1)
        .set("llm.ollama.queue", 1)
        .start()
        .await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["done"], &gate));
    let alice = app.login("alice").await;
    let mut first = alice.stream("one", "first").await;
    first.started().await;
    app.model.wait_chats(1).await;
    let mut second = alice.stream("two", "second").await;
    second.started().await;
    let queued = second.next().await.unwrap();
    assert_eq!((queued.kind.as_str(), queued.data["position"].as_u64()), ("queued", Some(0)));
    alice.send("three", "third").await.problem(503, "queue_full");
    alice.get("/chat/sessions/three").await.problem(404, "session_not_found");
    gate.open();
    first.ending().await.expect_done("stop");
    second.ending().await.expect_done("stop");
}

async fn one_users_queue_does_not_keep_another_waiting(on: Backend) {
    let app = TestApp::builder(on).set("llm.ollama.max_concurrency", 1).start().await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["done"], &gate));
    let (alice, bob) = (app.login("alice").await, app.login("bob").await);
    let mut streams = Vec::new();
    for number in 0..5 {
        streams.push(alice.stream(&format!("s{number}"), &format!("from alice {number}")).await);
        streams.last_mut().unwrap().started().await;
    }
    app.model.wait_chats(1).await;
    streams.push(bob.stream("work", "from bob").await);
    streams.last_mut().unwrap().started().await;
    gate.open();
    for mut stream in streams {
        stream.rest().await;
    }
    let order: Vec<String> =
        app.model.chats().iter().map(tests::ChatRequest::last_message).collect();
    let place = order.iter().position(|message| message == "from bob").unwrap();
    assert!(place <= 2, "{order:?}");
}

async fn a_next_provider_takes_over(on: Backend) {
    let second = tests::FakeModel::openai().await;
    let app = impatient(on)
        .set("llm.providers", "ollama,openai")
        .set("llm.openai.base_url", format!("{}/v1", second.url()));
    let app = app.start().await;
    let alice = app.login("alice").await;
    eventually(tests::PATIENCE, "both providers are known", || async {
        let models = alice.get("/chat/models").await.expect(200);
        let providers: Vec<_> =
            models["models"].as_array()?.iter().map(|model| model["provider"].clone()).collect();
        (providers.contains(&json!("openai")) && providers.contains(&json!("ollama"))).then_some(())
    })
    .await;
    app.model.usually(Answer::refuse(503, "retry-after: 0\r\n", "{}"));
    let answer = alice.send("work", "hello").await.expect(200);
    assert_eq!(
        (answer["provider"].as_str(), answer["reply"].as_str()),
        (Some("openai"), Some("You said: hello"))
    );
    app.model.usually(Answer::partial(["half"]).reset());
    alice.send("work", "again").await.problem(502, "llm_failed");
    assert_eq!(second.chats().len(), 1, "after the first token nobody else is asked");
}

//! Another answer to the last message.

use serde_json::{Value, json};
use tests::{Answer, Backend, Client, TestApp, text_of};

on_both_stores!(
    another_answer_replaces_the_last,
    a_failed_attempt_leaves_the_old_answer,
    an_empty_session_has_nothing_to_answer_again,
    another_answer_is_given_where_prompts_look_at_one_message_alone,
);

/// Another answer to the last message, which the model gives in other words.
async fn something_else(app: &TestApp, client: &Client) -> Value {
    app.model.next(Answer::tokens(["Something", " else"]));
    let reply = client.post_empty("/chat/sessions/work/regenerate").await;
    let second = reply.expect(200);
    assert_eq!(second["reply"], "Something else");
    second
}

async fn another_answer_replaces_the_last(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let first = alice.send("work", "hello").await.expect(200);
    let second = something_else(&app, &alice).await;
    assert_ne!(second["message_id"], first["message_id"]);
    assert_eq!(
        app.model.asked("hello").messages().len(),
        1,
        "the model does not see its old answer"
    );
    let old = format!("/chat/messages/{}/stream", first["message_id"].as_str().unwrap());
    alice.get(&old).await.problem(404, "message_not_found");
    let request =
        alice.request(reqwest::Method::POST, "/chat/sessions/work/regenerate?stream=true");
    let mut stream = alice.open(request).await;
    stream.started().await;
    assert_eq!(text_of(&stream.rest().await), "You said: hello");
    let texts: Vec<String> = alice.talk("work").await.into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["hello", "You said: hello"]);
    assert_eq!(alice.get("/chat/sessions/work").await.expect(200)["message_count"], 2);
}

async fn a_failed_attempt_leaves_the_old_answer(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    alice.say("work", "hello").await;
    app.model.usually(Answer::refuse(500, "", r#"{"error":"no"}"#));
    alice.post("/chat/sessions/work/regenerate", &json!({})).await.problem(502, "llm_failed");
    assert_eq!(alice.talk("work").await[1].1, "You said: hello");
}

async fn an_empty_session_has_nothing_to_answer_again(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    alice.post_empty("/chat/sessions/none/regenerate").await.problem(404, "session_not_found");
    alice.post("/chat/sessions", &json!({"session_id": "empty"})).await.expect(201);
    let reply = alice.post_empty("/chat/sessions/empty/regenerate").await;
    assert!((400..500).contains(&reply.status), "{}", reply.status);
}

async fn another_answer_is_given_where_prompts_look_at_one_message_alone(on: Backend) {
    let app = TestApp::builder(on).set("chat.history_messages", 1).start().await;
    let alice = app.login("alice").await;
    alice.say("work", "hello").await;
    something_else(&app, &alice).await;
}

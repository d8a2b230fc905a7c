//! Another answer to the last message.

use serde_json::{Value, json};
use tests::{Answer, Backend, Client, Gate, TestApp, text_of};

on_both_stores!(
    another_answer_replaces_the_last,
    a_failed_attempt_leaves_the_old_answer,
    a_cancelled_attempt_leaves_the_old_answer,
    a_cancelled_attempt_where_no_answer_was_is_kept,
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

/// Cancels another answer to the last message after three tokens; gives its id.
async fn cancel_another(app: &TestApp, client: &Client) -> String {
    let gate = Gate::new();
    app.model.next(Answer::gated(["one ", "two ", "three ", "four"], &gate));
    let path = "/chat/sessions/work/regenerate?stream=true";
    let mut stream = client.open(client.request(reqwest::Method::POST, path)).await;
    let id = stream.started().await;
    gate.release(3);
    while stream.next().await.unwrap().data["token"] != "three " {}
    assert_eq!(client.cancel(&id).await.status, 202);
    stream.ending().await.expect_done("cancelled");
    id
}

async fn a_cancelled_attempt_leaves_the_old_answer(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let old = alice.send("work", "hello").await.expect(200);
    let id = cancel_another(&app, &alice).await;
    let history = alice.history("work").await;
    assert_eq!(history.len(), 2);
    assert_eq!(history[1]["message_id"], old["message_id"]);
    assert_eq!(
        (&history[1]["content"], &history[1]["finish_reason"]),
        (&json!("You said: hello"), &json!("stop"))
    );
    let replayed = alice.resume(&id, 0).await.rest().await;
    assert_eq!(text_of(&replayed), "one two three ");
    replayed.last().unwrap().expect_done("cancelled");
    assert_eq!(alice.cancel(&id).await.status, 202);
    alice.say("work", "go on").await;
    assert_eq!(app.model.asked("go on").messages()[1].1, "You said: hello");
}

async fn a_cancelled_attempt_where_no_answer_was_is_kept(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    app.model.next(Answer::refuse(500, "", r#"{"error":"no"}"#));
    alice.send("work", "hello").await.problem(502, "llm_failed");
    cancel_another(&app, &alice).await;
    assert_eq!(alice.talk("work").await[1].1, "one two three ");
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

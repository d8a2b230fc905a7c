//! An `Idempotency-Key` makes one turn of any number of requests.

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Answer, Backend, Client, EventStream, Gate, TestApp, text_of};

on_both_stores!(
    a_repeated_request_gets_the_first_answer,
    a_repetition_joins_a_turn_that_runs,
    a_repetition_gets_the_answer_that_replaced_the_first,
    another_body_is_refused,
    keys_are_a_users_own,
    after_an_error_the_same_turn_runs_again,
    a_turn_that_ran_again_and_said_nothing_is_in_the_history,
    an_error_that_is_not_the_last_turn_stays,
    a_deleted_session_is_gone_for_its_keys_too,
    a_refused_request_is_not_remembered,
    a_socket_repeats_too,
    a_bad_key_is_refused,
);

fn body(message: &str) -> Value {
    json!({"session_id": "work", "message": message})
}

async fn stream_once(client: &Client, key: &str, body: &Value) -> EventStream {
    let request =
        client.request(Method::POST, "/chat/message?stream=true").header("idempotency-key", key);
    client.open(request.json(body)).await
}

async fn a_repeated_request_gets_the_first_answer(on: Backend) {
    let app = TestApp::builder(on).chats(2).start().await;
    let alice = app.login("alice").await;
    let first = alice.send_once("k", &body("hello")).await.expect(200);
    for instance in 0..app.instances() {
        let there = alice.at(app.chat(instance));
        assert_eq!(there.send_once("k", &body("hello")).await.expect(200), first);
        let mut stream = stream_once(&there, "k", &body("hello")).await;
        assert_eq!(first["message_id"], stream.started().await.as_str());
        assert_eq!(text_of(&stream.rest().await), "You said: hello");
    }
    assert_eq!((app.model.chats().len(), alice.history("work").await.len()), (1, 2));
}

async fn a_repetition_joins_a_turn_that_runs(on: Backend) {
    let app = TestApp::builder(on).chats(2).start().await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["one ", "two"], &gate));
    let alice = app.login("alice").await;
    let mut first = stream_once(&alice, "k", &body("count")).await;
    let id = first.started().await;
    let there = alice.at(app.chat(app.instances() - 1));
    let mut second = stream_once(&there, "k", &body("count")).await;
    assert_eq!(second.started().await, id);
    let (whole, sent) = (there.clone(), body("count"));
    let whole = tokio::spawn(async move { whole.send_once("k", &sent).await.expect(200) });
    gate.open();
    assert_eq!(text_of(&first.rest().await), "one two");
    assert_eq!(text_of(&second.rest().await), "one two");
    assert_eq!(whole.await.unwrap()["message_id"], id.as_str());
    assert_eq!((app.model.chats().len(), alice.history("work").await.len()), (1, 2));
}

async fn a_repetition_gets_the_answer_that_replaced_the_first(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    alice.send_once("k", &body("hello")).await.expect(200);
    app.model.next(Answer::tokens(["Something", " else"]));
    let second = alice.post_empty("/chat/sessions/work/regenerate").await.expect(200);
    let repeated = alice.send_once("k", &body("hello")).await.expect(200);
    assert_eq!(repeated["message_id"], second["message_id"]);
    assert_eq!(repeated["reply"], "Something else");
    let mut stream = stream_once(&alice, "k", &body("hello")).await;
    assert_eq!(second["message_id"], stream.started().await.as_str());
    assert_eq!(text_of(&stream.rest().await), "Something else");
    assert_eq!((app.model.chats().len(), alice.history("work").await.len()), (2, 2));
}

async fn another_body_is_refused(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    alice.send_once("k", &body("hello")).await.expect(200);
    let told = alice.send_once("k", &body("other")).await.problem(422, "idempotency_mismatch");
    assert_eq!(told["errors"][0]["pointer"], "/header/Idempotency-Key");
    let mut frame = body("other");
    (frame["idempotency_key"], frame["ref"]) = (json!("k"), json!("r"));
    let mut socket = alice.socket().await;
    socket.send(&frame).await;
    let told = socket.with_ref("r").await;
    assert_eq!((&told["status"], &told["code"]), (&json!(422), &json!("idempotency_mismatch")));
    assert_eq!(told["errors"][0]["pointer"], "/idempotency_key");
    assert_eq!(alice.history("work").await.len(), 2);
}

async fn keys_are_a_users_own(on: Backend) {
    let app = TestApp::start(on).await;
    let (alice, bob) = (app.login("alice").await, app.login("bob").await);
    alice.send_once("k", &body("from alice")).await.expect(200);
    assert_eq!(
        bob.send_once("k", &body("from bob")).await.expect(200)["reply"],
        "You said: from bob"
    );
}

async fn after_an_error_the_same_turn_runs_again(on: Backend) {
    let app = TestApp::start(on).await;
    app.model.next(Answer::partial(["half "]).error("broken"));
    let alice = app.login("alice").await;
    alice.send_once("k", &body("hello")).await.problem(502, "llm_failed");
    let partial = alice.history("work").await.remove(1);
    assert_eq!(
        (partial["content"].as_str(), partial["finish_reason"].as_str()),
        (Some("half "), Some("error"))
    );
    let again = alice.send_once("k", &body("hello")).await.expect(200);
    assert_eq!(again["reply"], "You said: hello");
    assert_ne!(again["message_id"], partial["message_id"]);
    let talk: Vec<String> = alice.talk("work").await.into_iter().map(|(_, text)| text).collect();
    assert_eq!(
        talk,
        ["hello", "You said: hello"],
        "the message stands once, the half answer is replaced"
    );
    let old = format!("/chat/messages/{}/stream", partial["message_id"].as_str().unwrap());
    alice.get(&old).await.problem(404, "message_not_found");
    assert_eq!(app.model.asked("hello").messages(), [("user".to_owned(), "hello".to_owned())]);
}

async fn a_turn_that_ran_again_and_said_nothing_is_in_the_history(on: Backend) {
    let app = TestApp::start(on).await;
    app.model.next(Answer::partial(["half "]).error("broken"));
    let alice = app.login("alice").await;
    alice.send_once("k", &body("hello")).await.problem(502, "llm_failed");
    app.model.next(Answer::new().thinking("Hm.").reset());
    alice.send_once("k", &body("hello")).await.problem(502, "llm_failed");
    assert_eq!(alice.history("work").await[1]["content"], "half ", "thoughts replace no text");
    app.model.next(Answer::new().done("stop"));
    let again = alice.send_once("k", &body("hello")).await.expect(200);
    let history = alice.history("work").await;
    assert_eq!((history.len(), &history[1]["message_id"]), (2, &again["message_id"]));
    assert_eq!(alice.send_once("k", &body("hello")).await.expect(200), again);
}

async fn an_error_that_is_not_the_last_turn_stays(on: Backend) {
    let app = TestApp::start(on).await;
    app.model.next(Answer::partial(["half "]).error("broken"));
    let alice = app.login("alice").await;
    alice.send_once("k", &body("hello")).await.problem(502, "llm_failed");
    alice.say("work", "next").await;
    alice.send_once("k", &body("hello")).await.problem(502, "llm_failed");
    assert_eq!((app.model.chats().len(), alice.history("work").await.len()), (2, 4));
}

async fn a_deleted_session_is_gone_for_its_keys_too(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    alice.send_once("k", &body("hello")).await.expect(200);
    assert_eq!(alice.delete("/chat/sessions/work").await.status, 204);
    assert_eq!(alice.send_once("k", &body("hello")).await.status, 404);
    assert_eq!(app.model.chats().len(), 1);
}

async fn a_refused_request_is_not_remembered(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    alice.send_once("k", &body(" ")).await.names(&["/message"]);
    alice.send_once("k", &body("hello")).await.expect(200);
}

async fn a_socket_repeats_too(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let first = alice.send_once("k", &body("hello")).await.expect(200);
    let mut socket = alice.socket().await;
    let mut frame = body("hello");
    (frame["idempotency_key"], frame["ref"]) = (json!("k"), json!("r"));
    socket.send(&frame).await;
    let start = socket.with_ref("r").await;
    assert_eq!((&start["type"], &start["message_id"]), (&json!("start"), &first["message_id"]));
    let events = socket.rest_of(first["message_id"].as_str().unwrap()).await;
    assert_eq!(text_of(&events), "You said: hello");
    assert_eq!(app.model.chats().len(), 1);
}

async fn a_bad_key_is_refused(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    for key in ["", &"k".repeat(256), "with space", "grüße"] {
        let request =
            alice.request(Method::POST, "/chat/message").header("idempotency-key", key.as_bytes());
        alice.fetch(request.json(&body("hello"))).await.problem(400, "invalid_request");
    }
    alice.send_once(&"k".repeat(255), &body("hello")).await.expect(200);
    assert_eq!(app.model.chats().len(), 1);
}

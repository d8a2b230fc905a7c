//! What the model is asked: the earlier turns of this session of this user, whole, once, and nothing else.

use serde_json::{Value, json};
use tests::{Answer, Backend, TestApp};

on_both_stores!(
    a_third_message_brings_the_earlier_turns_whole_and_once,
    two_users_never_share_a_session_of_the_same_name,
    a_turn_without_an_answer_is_not_part_of_later_prompts,
    what_a_request_says_goes_before_what_a_session_says,
    options_reach_the_model,
    what_does_not_fit_the_window_is_left_out_and_counted,
);

fn pair(user: &str) -> [(String, String); 2] {
    [("user".to_owned(), user.to_owned()), ("assistant".to_owned(), format!("You said: {user}"))]
}

async fn a_third_message_brings_the_earlier_turns_whole_and_once(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    alice.say("work", "one").await;
    alice.stream("work", "two").await.rest().await;
    alice.say("play", "elsewhere").await;
    alice.say("work", "three").await;
    let mut wanted: Vec<(String, String)> = pair("one").into_iter().chain(pair("two")).collect();
    wanted.push(("user".to_owned(), "three".to_owned()));
    assert_eq!(app.model.asked("three").messages(), wanted);
}

async fn two_users_never_share_a_session_of_the_same_name(on: Backend) {
    let app = TestApp::start(on).await;
    let (alice, bob) = (app.login("alice").await, app.login("bob").await);
    alice.say("work", "my secret").await;
    bob.get("/chat/sessions/work").await.problem(404, "session_not_found");
    bob.get("/chat/sessions/work/messages").await.problem(404, "session_not_found");
    bob.get("/chat/sessions/work/export").await.problem(404, "session_not_found");
    bob.delete("/chat/sessions/work").await.problem(404, "session_not_found");
    bob.patch("/chat/sessions/work", &json!({"title": "mine"}))
        .await
        .problem(404, "session_not_found");
    bob.say("work", "hello").await;
    assert_eq!(app.model.asked("hello").messages(), [("user".to_owned(), "hello".to_owned())]);
    let id = alice.history("work").await[1]["message_id"].as_str().unwrap().to_owned();
    bob.get(&format!("/chat/messages/{id}/stream")).await.problem(404, "message_not_found");
    bob.cancel(&id).await.problem(404, "message_not_found");
    assert_eq!(alice.talk("work").await, pair("my secret"));
    assert_eq!(bob.talk("work").await, pair("hello"));
}

async fn a_turn_without_an_answer_is_not_part_of_later_prompts(on: Backend) {
    let app = TestApp::start(on).await;
    app.model.answer_to("fail", Answer::refuse(500, "", r#"{"error":"no"}"#));
    let alice = app.login("alice").await;
    alice.send("work", "fail").await.problem(502, "llm_failed");
    assert_eq!(alice.talk("work").await, [("user".to_owned(), "fail".to_owned())]);
    alice.say("work", "hello").await;
    assert_eq!(app.model.asked("hello").messages(), [("user".to_owned(), "hello".to_owned())]);
}

async fn what_a_request_says_goes_before_what_a_session_says(on: Backend) {
    let app = TestApp::builder(on).set("chat.system_prompt", "from the operator").start().await;
    app.model.have(&[("gemma3:1b", 8192), ("big:70b", 8192), ("small:1b", 8192)]);
    let alice = app.login("alice").await;
    tests::eventually(tests::PATIENCE, "the new models are known", || async {
        let models = alice.get("/chat/models").await.expect(200);
        models["models"]
            .as_array()
            .unwrap()
            .iter()
            .any(|model| model["id"] == "small:1b")
            .then_some(())
    })
    .await;
    alice.say("plain", "a").await;
    let session = json!({"session_id": "own", "system": "from the session", "model": "big:70b"});
    alice.post("/chat/sessions", &session).await.expect(201);
    alice.say("own", "b").await;
    let request = json!({"session_id": "own", "message": "c", "system": "from the request", "model": "small:1b"});
    assert_eq!(alice.post("/chat/message", &request).await.expect(200)["model"], "small:1b");
    alice.say("own", "d").await;
    let of = |message: &str| {
        let asked = app.model.asked(message);
        (asked.body["model"].clone(), asked.messages()[0].clone())
    };
    let system = |text: &str| ("system".to_owned(), text.to_owned());
    assert_eq!(of("a"), (json!("gemma3:1b"), system("from the operator")));
    assert_eq!(of("b"), (json!("big:70b"), system("from the session")));
    assert_eq!(of("c"), (json!("small:1b"), system("from the request")));
    assert_eq!(of("d"), (json!("big:70b"), system("from the session")));
    let systems =
        app.model.asked("d").messages().iter().filter(|(role, _)| role == "system").count();
    assert_eq!(systems, 1);
}

async fn options_reach_the_model(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let options = json!({"temperature": 0.5, "top_p": 0.9, "top_k": 3, "max_tokens": 77, "seed": 5, "stop": ["END"], "think": false});
    alice.post("/chat/message", &json!({"message": "hello", "options": options})).await.expect(200);
    let asked = app.model.asked("hello").body;
    let sent = &asked["options"];
    assert_eq!((&sent["temperature"], &sent["top_k"]), (&json!(0.5), &json!(3)), "{asked}");
    assert_eq!((&sent["num_predict"], &sent["seed"]), (&json!(77), &json!(5)), "{asked}");
    assert_eq!((&sent["stop"], &sent["num_ctx"]), (&json!(["END"]), &json!(8192)), "{asked}");
    assert_eq!((&asked["stream"], &asked["think"]), (&json!(true), &json!(false)), "{asked}");
    alice.say("other", "without").await;
    // A model that does not think ignores how much it should: this one does not.
    for effort in [json!("low"), json!("medium"), json!("high"), json!(true)] {
        let body = json!({"session_id": "other", "message": "think", "options": {"think": effort}});
        alice.post("/chat/message", &body).await.expect(200);
    }
    let usual: Value = app.model.asked("without").body["options"]["num_predict"].clone();
    assert!(usual.as_i64().is_some_and(|tokens| tokens > 0), "num_predict is always sent: {usual}");
}

async fn what_does_not_fit_the_window_is_left_out_and_counted(on: Backend) {
    let app = TestApp::builder(on).set("llm.ollama.context_window", 1024).start().await;
    let alice = app.login("alice").await;
    for number in 0..6 {
        alice.say("work", &format!("{number} {}", "word ".repeat(120))).await;
    }
    let last = alice.send("work", "the last").await.expect(200);
    let dropped = last["context"]["dropped_messages"].as_u64().unwrap();
    let messages = app.model.asked("the last").messages();
    assert_eq!(last["context"]["window"], 1024);
    assert!(dropped > 0, "{last}");
    assert_eq!(messages.len() as u64 + dropped, 13);
    assert_eq!(alice.history("work").await.len(), 14, "all are kept");
    let no_limit =
        json!({"session_id": "work", "message": "all you have", "options": {"max_tokens": 5000}});
    alice.post("/chat/message", &no_limit).await.expect(200);
    assert!(
        app.model.asked("all you have").messages().len() > 1,
        "a window has no more than it has"
    );
    let huge = alice.send("work", &"word ".repeat(6000)).await;
    let told = huge.problem(422, "context_too_long");
    assert_eq!(told["errors"][0]["pointer"], "/message");
    let refused = r#"{"error":"the request exceeds the available context size"}"#;
    app.model.usually(Answer::refuse(400, "", refused));
    let told = alice.send("other", "hello").await.problem(422, "context_too_long");
    assert_eq!(told["errors"][0]["pointer"], "/message");
    let mut stream = alice.stream("other", "hello").await;
    stream.ending().await.expect_error(422, "context_too_long");
    assert_eq!(alice.history("work").await.len(), 16, "nothing of it is stored");
}

//! Keys used again late: after another answer, after a lost acceptance, for a regeneration.

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Answer, Backend, Client, Mode, PATIENCE, Reply, TestApp, eventually};

on_both_stores!(a_key_does_not_run_again_over_a_newer_answer, a_regeneration_has_a_key_of_its_own,);

fn body(session: &str, message: &str) -> Value {
    json!({"session_id": session, "message": message})
}

async fn regenerate(client: &Client, session: &str, key: &str) -> Reply {
    let path = format!("/chat/sessions/{session}/regenerate");
    let request = client.request(Method::POST, &path);
    client.fetch(request.header("idempotency-key", key)).await
}

fn texts(talk: &[(String, String)]) -> Vec<&str> {
    talk.iter().map(|(_, text)| text.as_str()).collect()
}

async fn a_key_does_not_run_again_over_a_newer_answer(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    for (session, failure) in [
        ("empty", Answer::refuse(500, "", r#"{"error":"no"}"#)),
        ("half", Answer::partial(["half"]).error("broken")),
    ] {
        app.model.next(failure);
        let (key, message) =
            (format!("key of {session}").replace(' ', "-"), body(session, "hello"));
        alice.send_once(&key, &message).await.problem(502, "llm_failed");
        let path = format!("/chat/sessions/{session}/regenerate");
        let newer = alice.post_empty(&path).await.expect(200);
        let asked = app.model.chats().len();
        let again = alice.send_once(&key, &message).await;
        let is_newer = again.status == 200 && again.json()["message_id"] == newer["message_id"];
        assert!(is_newer || again.status == 502, "{}", again.text());
        assert_eq!(app.model.chats().len(), asked, "{session}: the model is not asked again");
        let history = alice.history(session).await;
        assert_eq!(history.len(), 2);
        assert_eq!(history[1]["message_id"], newer["message_id"], "{session}");
    }
}

async fn a_regeneration_has_a_key_of_its_own(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    alice.say("work", "hello").await;
    app.model.next(Answer::tokens(["second"]));
    let first = regenerate(&alice, "work", "k").await.expect(200);
    assert_eq!(first["reply"], "second");
    assert_eq!(regenerate(&alice, "work", "k").await.expect(200), first);
    alice.send_once("k", &body("work", "hello")).await.problem(422, "idempotency_mismatch");
    app.model.next(Answer::partial(["bad"]).error("broken"));
    regenerate(&alice, "work", "l").await.problem(502, "llm_failed");
    assert_eq!(
        texts(&alice.talk("work").await),
        ["hello", "second"],
        "a failed try replaces nothing"
    );
    app.model.next(Answer::tokens(["third"]));
    assert_eq!(regenerate(&alice, "work", "l").await.expect(200)["reply"], "third");
    assert_eq!(texts(&alice.talk("work").await), ["hello", "third"]);
    assert_eq!(app.model.chats().len(), 4);
}

#[tokio::test]
async fn a_key_whose_acceptance_was_lost_is_used_again_at_once() {
    let app = TestApp::builder(Backend::Redis).chats(2).proxied().start().await;
    let alice = app.login("alice").await;
    let wire = app.store_proxy.as_ref().unwrap();
    for round in 0..4 {
        let session = format!("work-{round}");
        let (key, message) = (format!("k-{round}"), body(&session, "unknown"));
        if round % 2 == 1 {
            alice.say(&session, "before").await;
        }
        wire.set(Mode::Swallow);
        alice.send_once(&key, &message).await.problem(503, "store_unavailable");
        wire.cut_once().await;
        let there = alice.at(app.chat(round / 2));
        let reply = eventually(PATIENCE, "the key makes its turn", || async {
            let reply = there.send_once(&key, &message).await;
            (reply.status != 503).then_some(reply)
        })
        .await;
        assert_eq!(reply.expect(200)["reply"], "You said: unknown");
        let talk = alice.talk(&session).await;
        assert!(texts(&talk).ends_with(&["unknown", "You said: unknown"]), "{talk:?}");
        assert_eq!(talk.iter().filter(|(_, text)| text == "unknown").count(), 1, "{talk:?}");
    }
}

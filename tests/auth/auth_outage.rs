//! `auth` away: `chat` goes on with what it knows, and says so where it knows nothing.

use std::time::Duration;

use serde_json::json;
use tests::{Backend, TestApp, eventually, raw};

#[tokio::test]
async fn chat_goes_on_with_warm_keys_while_auth_is_down() {
    let mut app = TestApp::start(Backend::Redis).await;
    let alice = app.login("alice").await;
    app.auth_process().kill();
    assert_eq!(alice.say("work", "hello").await, "You said: hello");
    assert_eq!(alice.get("/readyz").await.status, 200);
    let refused = alice.post("/auth/login", &json!({"user_id": "bob"})).await;
    assert!(matches!(refused.status, 502..=504), "{}", refused.status);
    assert_eq!(refused.header("content-type"), "application/problem+json");
    app.restart_auth().await;
    eventually(Duration::from_secs(10), "logins pass again", || async {
        let reply = alice.post("/auth/login", &json!({"user_id": "bob"})).await;
        (reply.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn chat_without_any_key_is_not_ready_and_answers_503() {
    let app = TestApp::builder(Backend::Redis).without_auth().start().await;
    let somebody = app.stranger();
    assert_eq!(somebody.get("/livez").await.status, 200);
    let ready = somebody.get("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("keys"), "{}", ready.text());
    let other = TestApp::start(Backend::Memory).await;
    let token = other.login("alice").await.token().to_owned();
    let reply = somebody.with_token(&token).get("/chat/sessions").await;
    assert_eq!(reply.status, 503, "neither 401 nor 500: {}", reply.text());
}

#[tokio::test]
async fn chat_passes_accounts_on_to_auth() {
    let app = TestApp::start(Backend::Redis).await;
    let somebody = app.stranger();
    let settings = somebody.get("/auth/settings").await.expect(200);
    assert_eq!(settings, json!({"login": "open", "registration": "open"}));
    let account = json!({"user_id": "alice", "password": "correct horse battery"});
    let made = somebody.post("/auth/register", &account).await.expect(201);
    assert_eq!(made["user_id"], "alice");
    somebody.post("/auth/register", &account).await.problem(409, "user_exists");
    somebody
        .post("/auth/login", &json!({"user_id": "alice"}))
        .await
        .problem(403, "password_required");
    let tokens = somebody.post("/auth/login", &account).await.expect(200);
    let refresh = json!({"refresh_token": tokens["refresh_token"]});
    let fresh = somebody.post("/auth/refresh", &refresh).await.expect(200);
    let alice = somebody.with_token(fresh["access_token"].as_str().unwrap());
    assert_eq!(alice.get("/auth/keys").await.expect(200)["keys"], json!([]));
    assert_eq!(alice.post_empty("/auth/logout").await.status, 204);
    // What is no address of `auth` once its dots are resolved goes nowhere.
    for path in ["/auth/../health", "/auth/%2e%2e/openapi.json", "/auth/./login"] {
        let asked = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        assert_eq!(raw::ask(app.chat(0), asked).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn a_refresh_while_the_store_is_down_is_503_and_loses_nothing() {
    let app = TestApp::start(Backend::Redis).await;
    let login = app
        .stranger()
        .at_auth()
        .post("/auth/login", &json!({"user_id": "alice"}))
        .await
        .expect(200);
    let refresh = json!({"refresh_token": login["refresh_token"]});
    app.redis().freeze();
    app.stranger()
        .at_auth()
        .post("/auth/refresh", &refresh)
        .await
        .problem(503, "store_unavailable");
    app.redis().thaw();
    eventually(Duration::from_secs(5), "the refresh works", || async {
        let reply = app.stranger().at_auth().post("/auth/refresh", &refresh).await;
        assert_ne!(reply.status, 401, "{}", reply.text());
        (reply.status == 200).then_some(())
    })
    .await;
}

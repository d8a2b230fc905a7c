//! Nothing secret is in a log, in the store, or in an answer.

use serde_json::json;
use tests::{Answer, Backend, PATIENCE, RedisOptions, TestApp};

#[tokio::test]
async fn no_secret_is_written_anywhere() {
    let options =
        RedisOptions { password: Some("canary-redis".to_owned()), ..RedisOptions::default() };
    let app = TestApp::builder(Backend::Redis)
        .redis(options)
        .env("RUST_LOG", "debug")
        .env("OPENAI_API_KEY", "canary-openai");
    let app = app.start().await;
    let somebody = app.stranger();
    let account = json!({"user_id": "alice", "password": "canary-password-1"});
    somebody.post("/auth/register", &account).await.expect(201);
    somebody
        .post("/auth/login", &json!({"user_id": "alice", "password": "canary-wrong-1"}))
        .await
        .problem(401, "invalid_credentials");
    let tokens = somebody.post("/auth/login", &account).await.expect(200);
    let (access, refresh) =
        (tokens["access_token"].as_str().unwrap(), tokens["refresh_token"].as_str().unwrap());
    let alice = somebody.with_token(access);
    let key = alice.post("/auth/keys", &json!({"name": "mine"})).await.expect(201)["key"]
        .as_str()
        .unwrap()
        .to_owned();
    let by_key = alice.with_token(&key);
    assert_eq!(by_key.say("work", "canary-prompt").await, "You said: canary-prompt");
    let mut socket = alice.socket().await;
    socket.send(&json!({"type": "auth", "token": access})).await;
    socket.of_type("auth").await;
    let new = somebody.post("/auth/refresh", &json!({"refresh_token": refresh})).await.expect(200);
    app.model.usually(Answer::partial(["canary-prompt"]).error("canary-upstream"));
    alice.send("work", "canary-prompt").await.problem(502, "llm_failed");
    app.redis().cli(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    alice.get("/chat/sessions").await;
    let (logs, stored) = (app.logs(), app.redis().dump().await);
    let mut metrics = String::new();
    for admin in [app.chat_admin(0), app.auth_admin()] {
        let admin = app.stranger().at(admin);
        metrics.push_str(&admin.get("/metrics").await.text());
        metrics.push_str(&admin.get("/readyz").await.text());
    }
    let secrets = [
        access,
        refresh,
        &key,
        new["access_token"].as_str().unwrap(),
        new["refresh_token"].as_str().unwrap(),
    ];
    for secret in secrets.iter().chain(&[
        "canary-password-1",
        "canary-wrong-1",
        "canary-redis",
        "canary-openai",
    ]) {
        assert!(!logs.contains(secret), "the log has {secret}");
        assert!(!stored.contains(secret), "the store has {secret}");
        assert!(!metrics.contains(secret), "the metrics have {secret}");
    }
    assert!(!logs.contains("canary-prompt"), "the log has what was said");
    assert!(!metrics.contains("canary"), "{metrics}");
}

#[tokio::test]
async fn no_secret_stands_in_the_files_of_the_embedded_store() {
    let app = TestApp::start(Backend::Embedded).await;
    let somebody = app.stranger();
    let account = json!({"user_id": "alice", "password": "canary-password-1"});
    somebody.post("/auth/register", &account).await.expect(201);
    let tokens = somebody.post("/auth/login", &account).await.expect(200);
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let alice = somebody.with_token(&text(&tokens["access_token"]));
    let key = alice.post("/auth/keys", &json!({"name": "canary-name"})).await;
    let refresh = json!({"refresh_token": tokens["refresh_token"]});
    let new = somebody.post("/auth/refresh", &refresh).await.expect(200);
    let secrets = [
        "canary-password-1".to_owned(),
        text(&tokens["access_token"]),
        text(&tokens["refresh_token"]),
        text(&key.expect(201)["key"]),
        text(&new["access_token"]),
        text(&new["refresh_token"]),
    ];
    app.auth_process().terminate();
    app.auth_process().wait_exit(PATIENCE).await;
    let folder = std::fs::read_dir(app.keys_dir().with_file_name("store")).unwrap();
    let files = folder.map(|file| std::fs::read(file.unwrap().path()).unwrap());
    let stored = files.collect::<Vec<_>>().concat();
    let has = |text: &str| stored.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(has("canary-name") && has("argon2id"), "it is all in these files");
    for secret in &secrets {
        assert!(!has(secret), "the store has {secret}");
        // Nor what is inside a token or key, under another coating.
        assert!(!has(&secret[secret.len() - 16..]), "the store has the end of {secret}");
    }
}

#[tokio::test]
async fn what_callers_choose_cannot_forge_a_log_line() {
    let app = TestApp::start(Backend::Memory).await;
    let evil = "x\\n{\"level\":\"ERROR\",\"message\":\"forged\"}";
    let somebody = app.stranger();
    let request = somebody
        .request(reqwest::Method::GET, "/%0a%7B%22message%22%3A%22forged%22%7D%1b%5b31m")
        .header("user-agent", evil);
    somebody.fetch(request).await.problem(404, "not_found");
    somebody
        .post("/auth/login", &json!({"user_id": "a\r\nforged: line"}))
        .await
        .problem(422, "validation_failed");
    for line in app.chat_process(0).log() {
        let parsed: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("not one JSON line: {line:?}"));
        assert_ne!(parsed["message"], "forged");
        assert!(!line.contains('\u{1b}'), "{line:?}");
    }
}

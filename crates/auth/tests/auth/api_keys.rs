//! API keys: shown once, stored hashed, revoked at once.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::kit::App;

#[tokio::test]
async fn a_key_works_until_it_is_revoked() {
    for app in App::on_every_store(&[]).await {
        let tokens = app.logged_in("alice", None).await;
        let made = app
            .call(Method::POST, "/auth/keys", &tokens.access, json!({"name": "ci"}))
            .await
            .ok(201);
        let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
        assert!(
            key.starts_with("cbk_")
                && made["expires_at"].is_null()
                && made["created_at"].is_string()
        );
        let validated = app.validate(key).await;
        assert_eq!(validated.header("x-user-id"), Some("alice"));
        assert!(validated.ok(200)["expires_at"].is_null());
        let listed = app.call(Method::GET, "/auth/keys", &tokens.access, Value::Null).await;
        assert!(!listed.text.contains(key));
        assert_eq!(listed.ok(200)["keys"][0]["id"], id);
        let bob = app.logged_in("bob", None).await;
        let path = format!("/auth/keys/{id}");
        app.call(Method::DELETE, &path, &bob.access, Value::Null).await.is(404, "not_found");
        app.call(Method::DELETE, &path, &tokens.access, Value::Null).await.ok(204);
        app.validate(key).await.is(401, "token_revoked");
        app.call(Method::DELETE, &path, &tokens.access, Value::Null).await.is(404, "not_found");
    }
}

#[tokio::test]
async fn a_key_does_nothing_with_its_own_account() {
    let app = App::in_memory(&[]).await;
    let tokens = app.logged_in("alice", None).await;
    let made =
        app.call(Method::POST, "/auth/keys", &tokens.access, json!({"name": "ci"})).await.ok(201);
    let key = made["key"].as_str().unwrap();
    let password =
        json!({"current_password": "quiet-harbour-71", "new_password": "quiet-harbour-72"});
    for (method, path, body) in [
        (Method::POST, "/auth/keys", json!({"name": "more"})),
        (Method::GET, "/auth/keys", Value::Null),
        (Method::DELETE, "/auth/keys/x", Value::Null),
        (Method::POST, "/auth/logout", Value::Null),
        (Method::PUT, "/auth/password", password),
        (Method::DELETE, "/auth/account", Value::Null),
    ] {
        app.call(method, path, key, body).await.is(403, "forbidden");
    }
}

#[tokio::test]
async fn a_key_expires_when_it_was_to() {
    for app in App::on_every_store(&[]).await {
        let tokens = app.logged_in("alice", None).await;
        let body = json!({"name": "short", "expires_in": 2});
        let made = app.call(Method::POST, "/auth/keys", &tokens.access, body).await.ok(201);
        let key = made["key"].as_str().unwrap();
        app.validate(key).await.ok(200);
        app.wait(Duration::from_millis(2_100)).await;
        assert_eq!(app.validate(key).await.status, 401);
        let listed = app.call(Method::GET, "/auth/keys", &tokens.access, Value::Null).await.ok(200);
        assert_eq!(listed["keys"], json!([]));
    }
}

#[tokio::test]
async fn a_changed_key_is_no_key() {
    let app = App::in_memory(&[]).await;
    let tokens = app.logged_in("alice", None).await;
    let made =
        app.call(Method::POST, "/auth/keys", &tokens.access, json!({"name": "ci"})).await.ok(201);
    let key = made["key"].as_str().unwrap();
    for at in (4..key.len()).step_by(5) {
        let mut changed = key.as_bytes().to_vec();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        app.validate(&String::from_utf8(changed).unwrap()).await.is(401, "invalid_token");
    }
    for text in ["cbk_", "cbk_AAAA", &key[..key.len() - 1], &format!("{key}A"), &key[4..]] {
        app.validate(text).await.is(401, "invalid_token");
    }
    app.validate(key).await.ok(200);
}

#[tokio::test]
async fn names_lifetimes_and_numbers_of_keys_have_limits() {
    let app = App::in_memory(&[]).await;
    let tokens = app.logged_in("alice", None).await;
    let make = |body: Value| app.call(Method::POST, "/auth/keys", &tokens.access, body);
    for bad in
        [json!({}), json!({"name": ""}), json!({"name": "x".repeat(101)}), json!({"name": "a\nb"})]
    {
        make(bad).await.is(422, "validation_failed");
    }
    for expires_in in [json!(0), json!(-1), json!(1.5), json!("1h"), json!(400_000_000)] {
        make(json!({"name": "k", "expires_in": expires_in})).await.is(422, "validation_failed");
    }
    for _ in 0..100 {
        make(json!({"name": "k"})).await.ok(201);
    }
    make(json!({"name": "k"})).await.is(422, "validation_failed");
}

#[tokio::test]
async fn keys_made_at_once_are_held_to_the_limit_too() {
    for app in App::on_every_store(&[]).await {
        let tokens = app.logged_in("alice", None).await;
        let make = || app.call(Method::POST, "/auth/keys", &tokens.access, json!({"name": "k"}));
        for _ in 0..95 {
            make().await.ok(201);
        }
        let made = futures_util::future::join_all((0..20).map(|_| make())).await;
        for refused in made.iter().filter(|answer| answer.status != 201) {
            assert!(refused.text.contains("validation_failed"), "{}", refused.text);
        }
        let made = made.iter().filter(|answer| answer.status == 201).count();
        let listed = app.call(Method::GET, "/auth/keys", &tokens.access, Value::Null).await.ok(200);
        assert_eq!(listed["keys"].as_array().unwrap().len(), 95 + made);
        assert!(made <= 5, "{made} more than there were places");
    }
}

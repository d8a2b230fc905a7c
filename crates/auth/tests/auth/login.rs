//! Registering and logging in.

use reqwest::Method;
use serde_json::json;

use crate::kit::{App, PASSWORD, Tokens};

const PASSWORDS: [(&str, &str); 1] = [("auth.login", "password")];

#[tokio::test]
async fn whoever_registers_logs_in_with_the_right_password_only() {
    for app in App::on_every_store(&PASSWORDS).await {
        let made = app.register("alice").await;
        assert_eq!(made.header("cache-control"), Some("no-store"));
        assert_eq!(made.ok(201)["user_id"], "alice");
        let login = app.login("alice", Some(PASSWORD)).await.ok(200);
        assert_eq!((&login["token_type"], &login["expires_in"]), (&json!("bearer"), &json!(3600)));
        app.login("alice", Some("quiet-harbour-72")).await.is(401, "invalid_credentials");
        app.login("alice", Some(PASSWORD)).await.ok(200);
        app.login("Alice", Some(PASSWORD)).await.is(401, "invalid_credentials");
        app.register("alice").await.is(409, "user_exists");
        app.register("Alice").await.ok(201);
        app.login("alice", None).await.is(422, "validation_failed");
    }
}

#[tokio::test]
async fn an_unknown_user_and_a_wrong_password_look_the_same() {
    for app in App::on_every_store(&[]).await {
        app.register("alice").await.ok(201);
        let known = app.login("alice", Some("quiet-harbour-72")).await;
        let unknown = app.login("nobody", Some("quiet-harbour-72")).await;
        let pair = [known, unknown].map(|answer| {
            let mut body = answer.body.clone();
            body["request_id"] = json!("");
            let names: Vec<_> = answer.headers.keys().map(|name| name.to_string()).collect();
            (answer.status, names, body.to_string())
        });
        assert_eq!(pair[0], pair[1]);
    }
}

#[tokio::test]
async fn what_is_no_password_is_refused_before_it_is_hashed() {
    let app = App::in_memory(&[]).await;
    let register = |user: &str, password: &str| {
        app.post("/auth/register", json!({"user_id": user, "password": password}))
    };
    let too_long = "x7".repeat(65);
    for bad in
        ["", "seven77", too_long.as_str(), "password1", "Password123", "sunshine", "chatbot1"]
    {
        let answer = register("alice", bad).await;
        answer.is(422, "validation_failed");
        assert_eq!(answer.body["errors"][0]["pointer"], "/password");
    }
    register("alice-in-w", "Alice-in-W").await.is(422, "validation_failed");
    assert!([413, 422].contains(&register("alice", &"x".repeat(1 << 20)).await.status));
    for (i, good) in [
        "eight888",
        &"x7".repeat(64),
        "          ",
        "\u{1f600}\u{1f601}\u{1f602}\u{1f603}\u{1f604}\u{1f605}\u{1f606}\u{1f607}",
    ]
    .into_iter()
    .enumerate()
    {
        let user = format!("user{i}");
        register(&user, good).await.ok(201);
        app.login(&user, Some(good)).await.ok(200);
        app.login(&user, Some(&format!("{good} "))).await;
    }
    app.login("user0", Some(&too_long)).await.is(422, "validation_failed");
    app.login("user0", Some("")).await.is(422, "validation_failed");
}

#[tokio::test]
async fn bodies_are_strict() {
    let app = App::in_memory(&PASSWORDS).await;
    for user in [
        json!(""),
        json!("a b"),
        json!("a".repeat(65)),
        json!("a\u{0}"),
        json!("\u{202e}a"),
        json!(null),
        json!(7),
    ] {
        let body = json!({"user_id": user, "password": PASSWORD});
        app.post("/auth/register", body.clone()).await.is(422, "validation_failed");
        app.post("/auth/login", body).await.is(422, "validation_failed");
    }
    let assigned =
        json!({"user_id": "alice", "password": PASSWORD, "role": "admin", "generation": 7});
    app.post("/auth/register", assigned).await.is(422, "validation_failed");
    for password in [json!(null), json!([PASSWORD]), json!("")] {
        let body = json!({"user_id": "alice", "password": password});
        app.post("/auth/login", body).await.is(422, "validation_failed");
    }
    let request =
        app.request(Method::POST, "/auth/login").header("content-type", "application/json");
    app.send(request.body("{\"user_id\":\"a\",\"user_id\":\"b\"}")).await.is(400, "invalid_json");
    app.send(app.request(Method::POST, "/auth/login")).await.is(415, "unsupported_media_type");
    app.send(app.request(Method::GET, "/auth/login")).await.is(405, "method_not_allowed");
}

#[tokio::test]
async fn where_login_is_open_an_id_is_enough_until_it_has_a_password() {
    for app in App::on_every_store(&[]).await {
        let first = app.logged_in("alice", None).await;
        let other = app.logged_in("alice", None).await;
        let key = app
            .call(Method::POST, "/auth/keys", &other.access, json!({"name": "planted"}))
            .await
            .ok(201);
        app.register("alice").await.is(409, "user_exists");
        let body = json!({"user_id": "alice", "password": PASSWORD});
        let bob = app.logged_in("bob", None).await;
        let free = json!({"user_id": "carol", "password": PASSWORD});
        let by_bob = |body| app.call(Method::POST, "/auth/register", &bob.access, body);
        by_bob(body.clone()).await.is(409, "user_exists");
        by_bob(free).await.is(403, "user_mismatch");
        app.call(Method::POST, "/auth/register", &first.access, body).await.ok(201);
        app.login("alice", None).await.is(403, "password_required");
        app.validate(&first.access).await.ok(200);
        app.validate(&other.access).await.is(401, "token_revoked");
        assert_eq!(app.validate(key["key"].as_str().unwrap()).await.status, 401);
        app.refresh(&other.refresh).await.is(401, "token_revoked");
        app.logged_in("alice", Some(PASSWORD)).await;
        app.login("bob", Some(PASSWORD)).await.is(401, "invalid_credentials");
    }
}

#[tokio::test]
async fn closed_registration_leaves_it_to_the_operator() {
    let app = App::in_memory(&[("auth.login", "password"), ("auth.registration", "closed")]).await;
    app.register("alice").await.is(403, "registration_closed");
    let alice = common::identity::UserId::parse("alice").unwrap();
    app.operator.add_user(&alice, PASSWORD).await.unwrap();
    let tokens = app.logged_in("alice", Some(PASSWORD)).await;
    app.operator.set_password(&alice, "loud-harbour-72").await.unwrap();
    app.validate(&tokens.access).await.is(401, "token_revoked");
    app.logged_in("alice", Some("loud-harbour-72")).await;
    assert_eq!(app.operator.list_users().await.unwrap().len(), 1);
    app.operator.delete_user(&alice).await.unwrap();
    assert!(app.operator.list_users().await.unwrap().is_empty());
    app.login("alice", Some("loud-harbour-72")).await.is(401, "invalid_credentials");
}

#[tokio::test]
async fn many_right_logins_at_once_all_succeed() {
    for app in App::on_every_store(&[]).await {
        app.register("alice").await.ok(201);
        let logins = (0..24).map(|_| app.login("alice", Some(PASSWORD)));
        for answer in futures_util::future::join_all(logins).await {
            assert!(answer.status == 200 || answer.status == 503, "{answer:?}");
        }
        let tokens = Tokens::of(&app.login("alice", Some(PASSWORD)).await.ok(200));
        app.validate(&tokens.access).await.ok(200);
    }
}

#[tokio::test]
async fn a_password_hashed_the_old_way_is_hashed_anew_at_login() {
    use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
    use common::store::{Bytes, Op, Read, Txn};
    for app in App::on_every_store(&[]).await {
        app.register("alice").await.ok(201);
        let weak = Argon2::new(
            Algorithm::Argon2id,
            Version::V0x13,
            Params::new(4096, 1, 1, None).unwrap(),
        );
        let hash: argon2::PasswordHash = weak.hash_password(PASSWORD.as_bytes()).unwrap();
        let key = "a:{alice}:account".to_owned();
        let set = Op::FieldSet(key.clone(), "password".into(), Bytes::from(hash.to_string()));
        app.store.commit(Txn::durable().op(set)).await.unwrap();
        app.logged_in("alice", Some(PASSWORD)).await;
        let stored = app.store.read(vec![Read::Fields(key)]).await.unwrap().fields(0);
        assert!(stored["password"].starts_with(b"$argon2id$v=19$m=19456,t=2,p=1$"));
        app.logged_in("alice", Some(PASSWORD)).await;
    }
}

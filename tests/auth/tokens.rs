//! Tokens: how one is got, what it opens, and the many that open nothing.

use serde_json::json;
use tests::{Backend, Client, TestApp};

on_both_stores!(
    an_open_login_gives_a_token_that_both_services_know,
    the_key_set_holds_public_parts_alone,
    a_token_is_only_looked_for_where_it_belongs,
    user_ids_are_compared_exactly,
);

async fn an_open_login_gives_a_token_that_both_services_know(on: Backend) {
    let app = TestApp::start(on).await;
    for auth_client in [app.stranger(), app.stranger().at_auth()] {
        let login = auth_client.post("/auth/login", &json!({"user_id": "alice"})).await;
        assert!(login.header("cache-control").contains("no-store"));
        let login = login.expect(200);
        assert_eq!((&login["token_type"], &login["expires_in"]), (&json!("bearer"), &json!(3600)));
        assert!(login["refresh_token"].is_string());
        let alice = auth_client.with_token(login["access_token"].as_str().unwrap());
        let valid = alice.get("/auth/validate").await;
        assert_eq!(valid.header("x-user-id"), "alice");
        let valid = valid.expect(200);
        assert_eq!(valid["user_id"], "alice");
        assert!(!valid["expires_at"].is_null(), "{valid}");
        alice.at(app.chat(0)).get("/chat/sessions").await.expect(200);
        auth_client.get("/auth/validate").await.problem(401, "missing_token");
    }
}

async fn the_key_set_holds_public_parts_alone(on: Backend) {
    let app = TestApp::start(on).await;
    let set = app.stranger().at_auth().get("/.well-known/jwks.json").await.expect(200);
    assert_eq!(
        set,
        app.stranger().get("/.well-known/jwks.json").await.expect(200),
        "chat passes it on"
    );
    assert_eq!(set["login"], "open");
    for key in set["keys"].as_array().unwrap() {
        assert_eq!((&key["kty"], &key["crv"]), (&json!("OKP"), &json!("Ed25519")));
        for private in ["d", "p", "q", "k", "dp", "dq", "qi"] {
            assert!(key[private].is_null(), "{private} is published");
        }
    }
}

async fn a_token_is_only_looked_for_where_it_belongs(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let (token, somebody) = (alice.token(), app.stranger());
    for place in ["token", "access_token"] {
        assert_eq!(somebody.get(&format!("/chat/sessions?{place}={token}")).await.status, 401);
    }
    let plain = |client: &Client| client.request(reqwest::Method::GET, "/chat/sessions");
    for (name, value) in [("cookie", format!("token={token}")), ("x-api-key", token.to_owned())] {
        assert_eq!(
            somebody.fetch(plain(&somebody).header(name, value)).await.status,
            401,
            "{name}"
        );
    }
    let authorized = async |value: String| {
        somebody.fetch(plain(&somebody).header("authorization", value)).await.status
    };
    assert_eq!(
        authorized(format!("bearer {token}")).await,
        200,
        "the scheme's case does not matter"
    );
    for value in [
        token.to_owned(),
        format!("Basic {token}"),
        format!("Bearer{token}"),
        format!("Bearer {token}, Bearer x"),
    ] {
        assert!(matches!(authorized(value.clone()).await, 400 | 401), "{value}");
    }
    let twice = plain(&somebody)
        .header("authorization", format!("Bearer {token}"))
        .header("authorization", "Bearer x");
    assert!(matches!(somebody.fetch(twice).await.status, 400 | 401));
}

async fn user_ids_are_compared_exactly(on: Backend) {
    let app = TestApp::start(on).await;
    for bad in [
        "",
        " ",
        "a b",
        "ü",
        "a\u{0}",
        "\u{202e}a",
        "a\u{200b}",
        "a/b",
        "a:b",
        "{a}",
        "*",
        &"a".repeat(65),
    ] {
        app.stranger().post("/auth/login", &json!({"user_id": bad})).await.names(&["/user_id"]);
    }
    let (lower, upper) = (app.login("alice").await, app.login("Alice").await);
    lower.say("work", "hello").await;
    upper.get("/chat/sessions/work").await.problem(404, "session_not_found");
    app.login(&"a".repeat(64)).await;
    app.login("a.b_c@d-e").await;
}

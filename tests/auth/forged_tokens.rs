//! Forged tokens open nothing, at neither service.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::{Backend, Forge, TestApp};

on_both_stores!(
    forged_tokens_open_nothing,
    every_claim_is_required,
    a_token_without_a_generation_is_of_an_ids_first_account,
    the_leeway_is_thirty_seconds,
);

/// Both services refuse it, each in its own way of looking.
async fn opens_nothing(app: &TestApp, name: &str, token: &str) {
    let (chat, auth) =
        (app.stranger().with_token(token), app.stranger().at_auth().with_token(token));
    for (client, path) in [(&chat, "/chat/sessions"), (&auth, "/auth/validate")] {
        let reply = client.get(path).await;
        assert!(
            matches!(reply.status, 401 | 431),
            "{name} on {path}: {} {}",
            reply.status,
            reply.text()
        );
    }
}

async fn forged_tokens_open_nothing(on: Backend) {
    let app = TestApp::start(on).await;
    let forge = app.forge(&app.login("alice").await).await;
    let real = forge.signed(&forge.header, &forge.claims);
    app.stranger().with_token(&real).get("/chat/sessions").await.expect(200);
    // Beside each other: each unknown key is asked for, at most every 5 s.
    let forgeries = forgeries(&forge);
    join_all(forgeries.iter().map(|(name, token)| opens_nothing(&app, name, token))).await;
    assert!(!app.logs().contains("panicked"));
    app.stranger().with_token(&real).get("/chat/sessions").await.expect(200);
}

fn forgeries(forge: &Forge) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, token: String| all.push((name.to_owned(), token));
    for algorithm in ["none", "None", "NONE", "nOnE", "HS256", "RS256", "ES256", ""] {
        add(algorithm, forge.unsigned(algorithm));
    }
    let pem = forge.public_pem();
    for secret in [
        pem.as_bytes(),
        pem.trim_end().as_bytes(),
        format!(" {pem}").as_bytes(),
        &forge.public,
        b"",
    ] {
        add("HS256 with the public key", forge.hmac(secret));
    }
    add("another key", forge.by_a_stranger());
    for kid in ["../../dev/null", "' OR '1", ";cat", &"k".repeat(10_000), "a\u{0}b", "a\r\nb", ""] {
        add("kid", forge.with_header("kid", kid));
    }
    for (member, value) in [
        ("typ", json!("JWT")),
        ("typ", json!("rt+jwt")),
        ("crit", json!(["x"])),
        ("alg", json!("RS256")),
        ("alg", json!(["EdDSA"])),
    ] {
        add(member, forge.with_header(member, value));
    }
    for (claim, value) in [
        ("exp", json!("9999999999")),
        ("exp", json!(-1)),
        ("exp", Value::Null),
        ("exp", json!([])),
        ("exp", json!(true)),
        ("iss", json!("chatbot/")),
        ("iss", json!("CHATBOT")),
        ("iss", json!("")),
        ("iss", json!(["chatbot"])),
        ("aud", json!("other")),
        ("aud", json!("")),
        ("aud", json!(["other"])),
        ("aud", json!(5)),
        ("sub", json!("")),
        ("sub", json!("a b")),
        ("sub", json!(5)),
        ("sub", json!("a".repeat(65))),
    ] {
        add(claim, forge.with(claim, value));
    }
    shapes(forge, &mut add);
    all
}

/// Tokens that are not even shaped like one.
fn shapes(forge: &Forge, add: &mut impl FnMut(&str, String)) {
    let (header, claims) = (forge.header.to_string(), forge.claims.to_string());
    let real = forge.signed(&forge.header, &forge.claims);
    let parts: Vec<&str> = real.split('.').collect();
    add("two parts", format!("{}.{}", parts[0], parts[1]));
    add("four parts", format!("{real}.x"));
    add("five parts", format!("{real}.x.y"));
    add("no signature", format!("{}.{}.", parts[0], parts[1]));
    add("short signature", real[..real.len() - 2].to_owned());
    add("long signature", format!("{real}AA"));
    let start = parts[0].len() + parts[1].len() + 2;
    for at in (start..real.len() - 1).step_by(7) {
        let other = if &real[at..=at] == "A" { "B" } else { "A" };
        add("flipped", format!("{}{other}{}", &real[..at], &real[at + 1..]));
    }
    add(
        "doubled sub",
        forge.signed_text(&header, &claims.replacen('{', "{\"sub\":\"mallory\",", 1)),
    );
    add("nested", forge.signed_text(&header, &format!("{}{}", "[".repeat(5000), "]".repeat(5000))));
    add("garbage", "garbage".to_owned());
    add("dots", "..".to_owned());
    add("long", "a".repeat(8000));
}

async fn every_claim_is_required(on: Backend) {
    let app = TestApp::start(on).await;
    let forge = app.forge(&app.login("alice").await).await;
    for claim in ["exp", "nbf", "iat", "iss", "aud", "sub", "sid", "jti"] {
        opens_nothing(&app, &format!("without {claim}"), &forge.without(claim)).await;
    }
}

async fn a_token_without_a_generation_is_of_an_ids_first_account(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let forge = app.forge(&alice).await;
    for token in [forge.without("gen"), forge.with("gen", Value::Null)] {
        app.stranger().with_token(&token).get("/chat/sessions").await.expect(200);
    }
    alice.at(app.auth()).delete("/auth/account").await.expect(204);
    let forge = app.forge(&app.login("alice").await).await;
    app.stranger().with_token(forge.token()).get("/chat/sessions").await.expect(200);
    let first = app.stranger().with_token(&forge.without("gen"));
    first.get("/chat/sessions").await.problem(401, "token_revoked");
}

async fn the_leeway_is_thirty_seconds(on: Backend) {
    let app = TestApp::start(on).await;
    let forge = app.forge(&app.login("alice").await).await;
    let now = forge.claims["iat"].as_i64().unwrap();
    let client = |token: &str| app.stranger().with_token(token);
    for good in
        [forge.with("exp", now - 5), forge.with("exp", now + 20), forge.with("nbf", now + 10)]
    {
        client(&good).get("/chat/sessions").await.expect(200);
    }
    client(&forge.with("exp", now - 40)).get("/chat/sessions").await.problem(401, "token_expired");
    for bad in [forge.with("nbf", now + 120), forge.with("iat", now + 3600)] {
        assert_eq!(client(&bad).get("/chat/sessions").await.status, 401);
    }
}

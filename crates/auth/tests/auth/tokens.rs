//! What a token must look like, and everything that is not one.

use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use reqwest::Method;
use serde_json::{Value, json};

use crate::kit::{App, part};

/// Signs whatever it is given.
struct Forge {
    key: EncodingKey,
    header: Value,
    claims: Value,
    good: String,
}

impl Forge {
    async fn of(app: &App) -> Self {
        let good = app.logged_in("alice", None).await.access;
        let mut file = std::fs::read_dir(app.keys_dir()).unwrap().map(|it| it.unwrap().path());
        let file = file.find(|path| path.extension().is_some_and(|it| it == "pem")).unwrap();
        let key = EncodingKey::from_ed_pem(&std::fs::read(file).unwrap()).unwrap();
        Self { key, header: part(&good, 0), claims: part(&good, 1), good }
    }

    fn texts(&self, header: &str, claims: &str) -> String {
        let message =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = crypto::sign(message.as_bytes(), &self.key, Algorithm::EdDSA).unwrap();
        format!("{message}.{signature}")
    }

    fn claim(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims.clone();
        claims[name] = value;
        self.texts(&self.header.to_string(), &claims.to_string())
    }

    fn without(&self, name: &str) -> String {
        let mut claims = self.claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        self.texts(&self.header.to_string(), &claims.to_string())
    }

    fn header(&self, name: &str, value: Value) -> String {
        let mut header = self.header.clone();
        header[name] = value;
        self.texts(&header.to_string(), &self.claims.to_string())
    }
}

async fn refused(app: &App, token: &str) {
    let answer = app.validate(token).await;
    let shown: String = token.chars().take(200).collect();
    assert_eq!(answer.status, 401, "{shown} {answer:?}");
    assert!(answer.header("www-authenticate").is_some_and(|it| it.starts_with("Bearer")));
}

fn now() -> i64 {
    common::clock::now_s()
}

#[tokio::test]
async fn a_token_of_ours_is_accepted_and_says_what_it_must() {
    let app = App::in_memory(&[]).await;
    let forge = Forge::of(&app).await;
    assert_eq!(forge.header["typ"], "at+jwt");
    assert_eq!(forge.header["alg"], "EdDSA");
    for claim in ["iss", "aud", "sub", "sid", "jti", "iat", "nbf", "exp", "gen"] {
        assert!(!forge.claims[claim].is_null(), "{claim}");
    }
    let answer = app.validate(&forge.good).await;
    assert_eq!(answer.header("x-user-id"), Some("alice"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let body = answer.ok(200);
    assert_eq!(body["user_id"], "alice");
    assert!(body["expires_at"].as_str().unwrap().ends_with('Z'));
    app.validate(&forge.claim("extra", json!({"deep": [1]}))).await.ok(200);
}

#[tokio::test]
async fn times_are_numbers_and_judged_with_half_a_minute_of_leeway() {
    let app = App::in_memory(&[]).await;
    let forge = Forge::of(&app).await;
    app.validate(&forge.claim("exp", json!(now() - 32))).await.is(401, "token_expired");
    for exp in [json!(now() - 1), json!(now() + 1), json!(now() as f64 + 100.5)] {
        app.validate(&forge.claim("exp", exp)).await.ok(200);
    }
    refused(&app, &forge.claim("nbf", json!(now() + 120))).await;
    refused(&app, &forge.claim("iat", json!(now() + 3600))).await;
    let wrong = [
        json!("9999999999"),
        json!(-1),
        Value::Null,
        json!([]),
        json!({}),
        json!(true),
        json!(1e300),
    ];
    for value in wrong {
        for claim in ["exp", "nbf", "iat"] {
            refused(&app, &forge.claim(claim, value.clone())).await;
        }
    }
    let endless = forge
        .claims
        .to_string()
        .replace(&format!("\"exp\":{}", forge.claims["exp"]), "\"exp\":1e400");
    refused(&app, &forge.texts(&forge.header.to_string(), &endless)).await;
}

#[tokio::test]
async fn every_claim_is_required_and_compared_exactly() {
    let app = App::in_memory(&[]).await;
    let forge = Forge::of(&app).await;
    for claim in ["exp", "nbf", "iat", "iss", "aud", "sub", "sid", "jti"] {
        refused(&app, &forge.without(claim)).await;
    }
    for first in [forge.without("gen"), forge.claim("gen", Value::Null)] {
        app.validate(&first).await.ok(200);
    }
    for iss in [
        json!("other"),
        json!("chatbot/"),
        json!("CHATBOT"),
        json!("chat"),
        json!("chatbot2"),
        json!(["chatbot"]),
    ] {
        refused(&app, &forge.claim("iss", iss)).await;
    }
    for aud in [
        json!("other"),
        json!(""),
        json!([]),
        json!(["other"]),
        json!(["chatbot", "other"]),
        json!(7),
    ] {
        refused(&app, &forge.claim("aud", aud)).await;
    }
    app.validate(&forge.claim("aud", json!(["chatbot"]))).await.ok(200);
    for sub in [json!(""), json!("a b"), json!("a".repeat(65)), json!(null), json!("al\u{202e}ice")]
    {
        refused(&app, &forge.claim("sub", sub)).await;
    }
    for generation in [json!("0"), json!(-1), json!(0.5), json!(1)] {
        refused(&app, &forge.claim("gen", generation)).await;
    }
}

#[tokio::test]
async fn the_header_chooses_nothing() {
    let app = App::in_memory(&[]).await;
    let forge = Forge::of(&app).await;
    for alg in ["none", "None", "NONE", "nOnE", "HS256", "RS256", "ES256", "Ed25519", ""] {
        refused(&app, &forge.header("alg", json!(alg))).await;
        let unsigned = forge.header("alg", json!(alg));
        refused(&app, &unsigned[..=unsigned.rfind('.').unwrap()]).await;
    }
    for typ in [json!("JWT"), json!("rt+jwt"), json!("at+JWT"), json!(null), json!("")] {
        refused(&app, &forge.header("typ", typ)).await;
    }
    let long = "k".repeat(5_000);
    for kid in ["", "../../dev/null", "' OR '1", ";cat", "a\0b", "a\r\nb", long.as_str()] {
        refused(&app, &forge.header("kid", json!(kid))).await;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let jwk =
        app.send(app.request(Method::GET, "/.well-known/jwks.json")).await.body["keys"][0].clone();
    for (member, value) in [
        ("jwk", jwk),
        ("jku", json!(url)),
        ("x5u", json!(url)),
        ("x5c", json!(["AA=="])),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
        ("enc", json!("A128GCM")),
    ] {
        refused(&app, &forge.header(member, value)).await;
    }
    assert!(listener.accept().is_err(), "nobody looked at the address in the token");
}

#[tokio::test]
async fn the_public_key_is_no_secret_to_sign_with() {
    let app = App::in_memory(&[]).await;
    let forge = Forge::of(&app).await;
    let jwk =
        app.send(app.request(Method::GET, "/.well-known/jwks.json")).await.body["keys"][0].clone();
    let raw = URL_SAFE_NO_PAD.decode(jwk["x"].as_str().unwrap()).unwrap();
    let header = json!({"alg": "HS256", "typ": "at+jwt", "kid": forge.header["kid"]}).to_string();
    for secret in
        [raw, jwk.to_string().into_bytes(), jwk["x"].as_str().unwrap().as_bytes().to_vec()]
    {
        let message = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(&header),
            URL_SAFE_NO_PAD.encode(forge.claims.to_string())
        );
        let signature =
            crypto::sign(message.as_bytes(), &EncodingKey::from_secret(&secret), Algorithm::HS256)
                .unwrap();
        refused(&app, &format!("{message}.{signature}")).await;
    }
}

#[tokio::test]
async fn every_changed_byte_of_a_signature_is_noticed() {
    let app = App::in_memory(&[]).await;
    let forge = Forge::of(&app).await;
    let (message, signature) = forge.good.rsplit_once('.').unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        refused(&app, &format!("{message}.{}", URL_SAFE_NO_PAD.encode(changed))).await;
    }
    // The last character carries four bits that mean nothing: only one of its spellings is the token.
    let last = signature.chars().last().unwrap();
    for other in ('A'..='Z').chain('a'..='z').chain('0'..='9').filter(|c| *c != last) {
        refused(&app, &format!("{message}.{}{other}", &signature[..signature.len() - 1])).await;
    }
    for wrong in [&signature[..84], &format!("{signature}A"), &format!("{signature}=="), ""] {
        refused(&app, &format!("{message}.{wrong}")).await;
    }
    app.validate(&forge.good).await.ok(200);
}

#[tokio::test]
async fn parts_members_and_sizes_that_no_token_of_ours_has_are_refused_fast() {
    let app = App::in_memory(&[]).await;
    let forge = Forge::of(&app).await;
    let (header, claims) = (forge.header.to_string(), forge.claims.to_string());
    for token in ["a", "a.b", "..", "...", "a.b.c.d", "a.b.c.d.e", "e30.e30.e30"] {
        refused(&app, token).await;
    }
    refused(&app, &format!("{}.x", forge.good)).await;
    for doubled in ["\"sub\":\"bob\"", "\"exp\":9999999999", "\"extra\":1,\"extra\":2"] {
        refused(&app, &forge.texts(&header, &claims.replacen('{', &format!("{{{doubled},"), 1)))
            .await;
    }
    refused(&app, &forge.texts(&header.replacen('{', "{\"alg\":\"EdDSA\",", 1), &claims)).await;
    let deep = format!("{}{}", "[".repeat(2_500), "]".repeat(2_500));
    refused(&app, &forge.texts(&header, &claims.replacen('{', &format!("{{\"deep\":{deep},"), 1)))
        .await;
    for size in [8 * 1024, 20 * 1024, 64 * 1024, 1 << 20] {
        let began = Instant::now();
        let request = app.request(Method::GET, "/auth/validate");
        let request = request.header("authorization", format!("Bearer {}", "A".repeat(size)));
        if let Ok(answer) = request.send().await {
            assert!([401, 431].contains(&answer.status().as_u16()), "{size}: {}", answer.status());
        }
        assert!(began.elapsed() < Duration::from_millis(500));
    }
    app.validate(&forge.good).await.ok(200);
}

#[tokio::test]
async fn a_token_counts_in_one_place_only() {
    let app = App::in_memory(&[]).await;
    let good = app.logged_in("alice", None).await;
    let path = "/auth/validate";
    for query in ["token", "access_token"] {
        let path = format!("{path}?{query}={}", good.access);
        app.send(app.request(Method::GET, &path)).await.is(401, "missing_token");
    }
    for header in ["cookie", "x-api-key", "x-access-token", "x-user-id"] {
        let request =
            app.request(Method::GET, path).header(header, format!("token={}", good.access));
        app.send(request).await.is(401, "missing_token");
    }
    let twice = format!("Bearer {0}, Bearer {0}", good.access);
    app.send(app.request(Method::GET, path).header("authorization", twice))
        .await
        .is(400, "invalid_request");
    let bearer = format!("Bearer {}", good.access);
    let request = app
        .request(Method::GET, path)
        .header("authorization", &bearer)
        .header("authorization", &bearer);
    app.send(request).await.is(400, "invalid_request");
    for scheme in ["bearer ", "BEARER "] {
        let request = app
            .request(Method::GET, path)
            .header("authorization", format!("{scheme}{}", good.access));
        app.send(request).await.ok(200);
    }
    for scheme in ["Bearer  ", "Bearer\t", "Bearer", "Basic ", "Token ", ""] {
        let request = app
            .request(Method::GET, path)
            .header("authorization", format!("{scheme}{}", good.access));
        assert_eq!(app.send(request).await.status, 401, "{scheme:?}");
    }
    refused(&app, &good.refresh).await;
}

#[tokio::test]
async fn what_is_published_holds_nothing_private() {
    let app = App::in_memory(&[]).await;
    let answer = app.send(app.request(Method::GET, "/.well-known/jwks.json")).await;
    assert!(answer.header("cache-control").unwrap().starts_with("public, max-age="));
    assert!(answer.header("ratelimit").is_none());
    let body = answer.ok(200);
    assert_eq!(body["login"], "open");
    let key = body["keys"][0].as_object().unwrap();
    let members: Vec<_> = key.keys().map(String::as_str).collect();
    assert_eq!(members, ["kty", "crv", "x", "kid", "alg", "use"]);
}

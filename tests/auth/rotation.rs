//! A key is added while strangers send tokens of keys that do not exist; then `auth` goes away.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::{Backend, Client, TestApp, eventually, signing_key};

/// Strangers at each `chat`.
const STRANGERS: usize = 16;
/// Until a new key signs, and some more.
const SIGNS_WITHIN: Duration = Duration::from_secs(90);

fn kid(token: &str) -> String {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

/// A token like a good one, of a key that nobody has.
fn of_unknown_key(good: &str, number: u64) -> String {
    let header = json!({"typ": "at+jwt", "alg": "EdDSA", "kid": format!("{number:0>43}")});
    let header = URL_SAFE_NO_PAD.encode(header.to_string());
    let (_, rest) = good.split_once('.').unwrap();
    format!("{header}.{rest}")
}

async fn flood(client: Client, numbers: Arc<AtomicU64>, over: Arc<AtomicBool>) {
    while !over.load(Ordering::Relaxed) {
        let token = of_unknown_key(client.token(), numbers.fetch_add(1, Ordering::Relaxed));
        let reply = client.with_token(&token).get("/chat/sessions").await;
        // Once `auth` is gone, nobody knows that there is no such key.
        match reply.status {
            503 => reply.problem(503, "store_unavailable"),
            _ => reply.problem(401, "invalid_token"),
        };
    }
}

/// How often `auth` was asked for its keys.
async fn fetches(app: &TestApp) -> u64 {
    let text = app.stranger().at(app.auth_admin()).get("/metrics").await.text();
    let asked = text.lines().filter(|line| {
        line.starts_with("http_requests_total{") && line.contains("\"/.well-known/jwks.json\"")
    });
    asked.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

#[tokio::test]
async fn a_flood_of_unknown_keys_during_a_rotation_refuses_no_good_token_and_asks_auth_rarely() {
    let app = TestApp::builder(Backend::Redis).chats(2).start().await;
    let alice = app.login("alice").await;
    let old = kid(alice.token());
    let (numbers, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (began, asked) = (Instant::now(), fetches(&app).await);
    let strangers = (0..2 * STRANGERS).map(|number| {
        let client = alice.at(app.chat(number % 2));
        tokio::spawn(flood(client, numbers.clone(), over.clone()))
    });
    let strangers: Vec<_> = strangers.collect();
    let place = app.keys_dir().join("29990101T000000-next.pem");
    std::fs::write(&place, signing_key()).unwrap();
    let mut signers = BTreeSet::new();
    while signers.len() < 2 {
        assert!(began.elapsed() < SIGNS_WITHIN, "the new key never signs");
        let fresh = app.login("alice").await;
        signers.insert(kid(fresh.token()));
        for chat in [app.chat(0), app.chat(1)] {
            fresh.at(chat).get("/chat/sessions").await.expect(200);
            alice.at(chat).get("/chat/sessions").await.expect(200);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(signers.contains(&old));
    let (elapsed, asked) = (began.elapsed().as_secs(), fetches(&app).await - asked);
    // Two of them, each once in 5 s.
    assert!(asked <= 2 * (2 + elapsed / 5), "{asked} fetches in {elapsed} s");
    let newest = app.login("alice").await;
    app.auth_process().kill();
    eventually(Duration::from_secs(10), "auth is gone", || async {
        (newest.get("/.well-known/jwks.json").await.status != 200).then_some(())
    })
    .await;
    for chat in [app.chat(0), app.chat(1)] {
        for good in [&alice, &newest] {
            good.at(chat).get("/chat/sessions").await.expect(200);
        }
    }
    over.store(true, Ordering::Relaxed);
    for ended in join_all(strangers).await {
        ended.unwrap();
    }
    assert!(numbers.load(Ordering::Relaxed) > STRANGERS as u64);
}

//! The hot steps on their own: a token's check, an event on each wire, an answer's lines read.

#![allow(clippy::expect_used, reason = "what goes wrong here is a mistake of the measurement")]

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chat::{domain::event::EventRef, http::encode, llm::providers, store::events::EventBatch};
use common::{
    clock,
    config::{LoginMode, ProviderKind, StoreUrl},
    identity::{Authenticator, Jwk, JwkSet, KeySet, TOKEN_TYPE, TokenRules},
    shutdown::Shutdown,
    store::Store,
};
use divan::{Bencher, black_box};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use tokio::runtime::Runtime;

const TOKEN: &str = " a token";

fn main() {
    divan::main();
}

/// An event encoded as a server-sent event.
#[divan::bench]
fn event_as_sse(bencher: Bencher<'_, '_>) {
    let event = EventRef::Token(TOKEN);
    bencher.bench_local(|| {
        let mut out = String::with_capacity(128);
        encode::sse(black_box(1234), event, "", &mut out);
        out
    });
}

/// An event encoded as a WebSocket frame.
#[divan::bench]
fn event_as_json(bencher: Bencher<'_, '_>) {
    let event = EventRef::Token(TOKEN);
    bencher.bench_local(|| {
        let mut out = String::with_capacity(192);
        let id = "0193b1c1-7a3e-7c63-8f2c-2b4a1d0c9e55";
        encode::json(black_box(1234), event, id, None, "", &mut out);
        out
    });
}

/// An event encoded for the store.
#[divan::bench]
fn event_for_the_store(bencher: Bencher<'_, '_>) {
    let event = EventRef::Token(TOKEN);
    bencher.bench_local(|| {
        let mut batch = EventBatch::default();
        batch.push(black_box(1234), event);
        batch
    });
}

/// A hundred tokens of an answer, and its end.
const TOKENS: usize = 100;

fn answer(line: &str, end: &str) -> Vec<u8> {
    [line.repeat(TOKENS).as_str(), end].concat().into_bytes()
}

fn read(bencher: Bencher<'_, '_>, kind: ProviderKind, bytes: &[u8]) {
    let chunks = providers::parse(kind, [bytes]).expect("an answer");
    assert_eq!(chunks.len(), TOKENS + 1);
    bencher.counter(TOKENS).bench_local(|| providers::parse(kind, [black_box(bytes)]));
}

/// Ollama's lines, by the token.
#[divan::bench]
fn ndjson_lines_read(bencher: Bencher<'_, '_>) {
    let line = "{\"model\":\"m\",\"created_at\":\"2026-01-01T00:00:00.000000Z\",\"message\":{\"role\":\"assistant\",\"content\":\" a token\"},\"done\":false}\n";
    let end = "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\"eval_count\":100}\n";
    read(bencher, ProviderKind::Ollama, &answer(line, end));
}

/// OpenAI's events, by the token.
#[divan::bench]
fn sse_events_read(bencher: Bencher<'_, '_>) {
    let line = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" a token\"},\"finish_reason\":null}]}\n\n";
    let end = "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    read(bencher, ProviderKind::OpenAi, &answer(line, end));
}

/// The key pair of RFC 8032's first test: known to everybody, good for nothing else.
const SEED: [u8; 32] = [
    0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4,
    0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
];
const PUBLIC: [u8; 32] = [
    0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a,
    0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
];
/// What stands before the seed in PKCS#8.
const PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// A token of user `number`.
fn token(number: usize) -> String {
    let now = clock::now_ms() / 1000;
    let claims = serde_json::json!({
        "iss": "chatbot", "aud": "chatbot", "sub": format!("user-{number}"), "sid": "s", "jti": "j",
        "iat": now, "nbf": now, "exp": now + 3600, "gen": 0,
    });
    let header = Header {
        typ: Some(TOKEN_TYPE.into()),
        kid: Some("k".into()),
        ..Header::new(Algorithm::EdDSA)
    };
    let key = EncodingKey::from_ed_der(&[PKCS8.as_slice(), &SEED].concat());
    jsonwebtoken::encode(&header, &claims, &key).expect("a token")
}

fn authenticator(runtime: &Runtime) -> Authenticator {
    let _inside = runtime.enter();
    let shutdown = Shutdown::new();
    let store = Store::open(&StoreUrl::Memory, &shutdown).expect("a store in memory");
    let keys = KeySet::local();
    let jwk = Jwk::ed25519(URL_SAFE_NO_PAD.encode(PUBLIC), "k".into());
    assert!(keys.replace(&JwkSet::new(vec![jwk], LoginMode::Open)));
    let rules = TokenRules { issuer: "chatbot".into(), audience: "chatbot".into() };
    Authenticator::start(rules, keys, store, &shutdown)
}

fn check(runtime: &Runtime, authenticator: &Authenticator, token: &str) {
    let mut deadline = Instant::now() + Duration::from_secs(1);
    let checked = runtime.block_on(authenticator.authenticate(token, &mut deadline));
    assert!(checked.is_ok(), "{checked:?}");
}

/// A token that was seen lately.
#[divan::bench]
fn token_check_again(bencher: Bencher<'_, '_>) {
    let runtime = Runtime::new().expect("a runtime");
    let (authenticator, token) = (authenticator(&runtime), token(0));
    bencher.bench_local(|| check(&runtime, &authenticator, &token));
}

/// A token that is new: with its signature.
#[divan::bench(sample_count = 100, sample_size = 20)]
fn token_check_first(bencher: Bencher<'_, '_>) {
    let runtime = Runtime::new().expect("a runtime");
    let authenticator = authenticator(&runtime);
    let mut number = 0;
    let tokens = || {
        number += 1;
        token(number)
    };
    bencher.with_inputs(tokens).bench_local_refs(|token| check(&runtime, &authenticator, token));
}

//! The forge's tokens are what they claim to be, and the strict reader of streams is strict.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto::verify};
use serde_json::{Value, json};
use tests::{Answer, EventStream, FakeModel, Forge};

/// RFC 8037, appendix A: a key pair that everybody knows.
const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const D: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";

fn forge() -> Forge {
    let der = [
        &[
            0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22,
            0x04, 0x20,
        ][..],
        &URL_SAFE_NO_PAD.decode(D).unwrap(),
    ]
    .concat();
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let folder = tempfile::tempdir().unwrap();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
    std::fs::write(folder.path().join("20260101T000000-a.pem"), pem).unwrap();
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "k"});
    let token = format!("{}.{}.x", part(header), part(json!({"sub": "alice", "exp": 1})));
    Forge::new(&token, folder.path(), &json!({"keys": [{"kid": "k", "x": X}]}))
}

fn holds(token: &str, key: &DecodingKey, algorithm: Algorithm) -> bool {
    let (message, signature) = token.rsplit_once('.').unwrap();
    verify(signature, message.as_bytes(), key, algorithm).unwrap()
}

#[test]
fn forged_tokens_are_signed_as_they_say() {
    let forge = forge();
    let real = DecodingKey::from_ed_components(X).unwrap();
    assert!(holds(&forge.with("sub", "bob"), &real, Algorithm::EdDSA));
    assert!(!holds(&forge.by_a_stranger(), &real, Algorithm::EdDSA));
    let pem = forge.public_pem();
    let secret = DecodingKey::from_secret(pem.as_bytes());
    assert!(holds(&forge.hmac(pem.as_bytes()), &secret, Algorithm::HS256));
    assert!(DecodingKey::from_ed_pem(pem.as_bytes()).is_ok());
    assert!(forge.unsigned("none").ends_with('.'));
    assert!(!forge.without("sub").contains(&URL_SAFE_NO_PAD.encode("alice")));
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\n\
    x-accel-buffering: no\r\nx-request-id: r\r\nconnection: close\r\n\r\n";

/// Reads a stream with that body, in pieces of `cut` bytes.
async fn read(body: &str, cut: usize) -> Vec<tests::Event> {
    let model = FakeModel::ollama().await;
    model.usually(Answer::recorded(format!("{HEAD}{body}").as_bytes(), cut));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let asked = json!({"model": "gemma3:1b", "messages": []});
    let answer =
        client.post(format!("{}/api/chat", model.url())).json(&asked).send().await.unwrap();
    EventStream::open(answer).await.rest().await
}

#[tokio::test]
async fn a_good_stream_is_read_however_it_is_cut() {
    let body = ": hi\n\nid: 1\nevent: start\ndata: {}\n\n: ping\nid: 2\ndata: {\"token\":\"ü\",\"is_final\":false}\n\n\
        id: 3\nevent: done\ndata: {\"token\":\"\"}\n\n";
    for cut in [1, 3, 1000] {
        let events = read(body, cut).await;
        assert_eq!((events.len(), tests::text_of(&events).as_str()), (3, "ü"));
    }
}

#[tokio::test]
async fn a_bad_stream_is_not_let_through() {
    for bad in [
        "id: 1\ndata: {}\n\nid: 3\nevent: done\ndata: {}\n\n",
        "data: {}\n\n",
        "id: 1\nevent: done\ndata: {}\n\nid: 2\nevent: done\ndata: {}\n\n",
        "id: 1\ndata: {\"is_final\":false}\n\n",
        "id: 1\nevent: done\ndata: {}\n",
        "id: 1\nevent: done\ndata: {\ndata: }\n\n",
        "id: 1\r\nevent: done\r\ndata: {}\r\n\r\n",
        "retry: 5\nid: 1\nevent: done\ndata: {}\n\n",
    ] {
        let read = tokio::spawn(async move { read(bad, 1000).await }).await;
        assert!(read.is_err(), "{bad:?} was taken for a stream");
    }
}

//! Bodies that cannot be read: both services refuse them in the same way.

use std::time::{Duration, Instant};

use super::doors;
use tests::{Backend, Client, TestApp, raw};

on_both_stores!(
    a_body_that_is_not_json_is_400,
    a_body_nested_too_deep_is_refused_soon,
    a_body_of_another_kind_is_415,
    a_body_that_may_be_missing_may_be_empty_and_of_any_kind,
    a_body_too_large_is_413,
    a_body_that_never_comes_is_given_up,
);

async fn a_body_that_is_not_json_is_400(on: Backend) {
    let app = TestApp::start(on).await;
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"{".to_vec(),
        b"{\"message\":\"x\"".to_vec(),
        b"{\"message\":\"x\"} x".to_vec(),
        b"{\"message\":\"x\"}{}".to_vec(),
        b"{\"message\":\"\xff\xfe\"}".to_vec(),
        b"{\"message\":\"\\ud800\"}".to_vec(),
        b"{\"message\":\"\\udc00\\ud800\"}".to_vec(),
        b"{\"message\":\"a\nb\"}".to_vec(),
        b"{'message':'x'}".to_vec(),
        b"{\"message\":NaN}".to_vec(),
        b"{\"message\":\"x\",}".to_vec(),
        b"\xef\xbb\xbf{\"message\":\"x\"}".to_vec(),
    ];
    for (client, path) in doors(&app).await {
        for body in &bodies {
            let start = Instant::now();
            let reply = client.post_bytes(path, body.clone()).await;
            let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
            assert_eq!(reply.status, 400, "{path} {shown:?}: {}", reply.text());
            reply.problem(400, "invalid_json");
            assert!(start.elapsed().as_secs() < 2, "{shown:?}");
        }
        for twice in
            [r#"{"user_id":"a","user_id":"b"}"#, r#"{"message":"a","user_id":"a","message":"b"}"#]
        {
            assert_eq!(client.post_bytes(path, twice).await.status, 400, "{path} {twice}");
        }
        for wrong in ["null", "[]", "\"x\"", "5", "{}", r#"{"message":1e999,"user_id":1e999}"#] {
            let reply = client.post_bytes(path, wrong).await;
            assert!(matches!(reply.status, 400 | 422), "{path} {wrong}: {}", reply.status);
        }
    }
}

async fn a_body_nested_too_deep_is_refused_soon(on: Backend) {
    let app = TestApp::start(on).await;
    let deep = |open: &str, close: &str, depth: usize| {
        format!("{}{}", open.repeat(depth), close.repeat(depth))
    };
    let bodies = [
        deep("[", "]", 127),
        deep("[", "]", 129),
        deep("[", "]", 100_000),
        deep("{\"a\":", "", 40_000),
        format!("{{\"message\":{}}}", deep("[", "]", 5000)),
        format!("{{\"user_id\":{}}}", deep("{\"a\":", "1}", 5000)),
    ];
    for (client, path) in doors(&app).await {
        for body in &bodies {
            let start = Instant::now();
            let reply = client.post_bytes(path, body.clone()).await;
            assert!(matches!(reply.status, 400 | 422), "{}", reply.text());
            assert!(start.elapsed().as_secs() < 2, "{:?}", start.elapsed());
        }
        client.get("/livez").await.expect(200);
    }
}

async fn a_body_of_another_kind_is_415(on: Backend) {
    let app = TestApp::start(on).await;
    let form = format!("multipart/form-data; boundary={}", "b".repeat(20_000));
    let kinds = [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "application",
        "",
        &form,
    ];
    for (client, path) in doors(&app).await {
        for kind in kinds {
            let request =
                client.request(reqwest::Method::POST, path).header("content-type", kind).body("{}");
            client.fetch(request).await.problem(415, "unsupported_media_type");
        }
        let missing = client.fetch(client.request(reqwest::Method::POST, path).body("{}")).await;
        missing.problem(415, "unsupported_media_type");
        for kind in [
            "application/json; charset=utf-8",
            "Application/JSON",
            "application/json;charset=UTF-8",
        ] {
            let request =
                client.request(reqwest::Method::POST, path).header("content-type", kind).body("{}");
            assert_eq!(client.fetch(request).await.status, 422, "{kind}");
        }
    }
}

async fn a_body_that_may_be_missing_may_be_empty_and_of_any_kind(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    alice.say("work", "hello").await;
    for path in ["/chat/sessions/work/regenerate", "/auth/logout"] {
        let post = |body: &'static str| {
            alice
                .request(reqwest::Method::POST, path)
                .header("content-type", "application/octet-stream")
                .body(body)
        };
        alice.fetch(post("{}")).await.problem(415, "unsupported_media_type");
        // As aiohttp sends a POST without a body.
        let reply = alice.fetch(post("")).await;
        assert!(matches!(reply.status, 200 | 204), "{}", reply.text());
    }
}

async fn a_body_too_large_is_413(on: Backend) {
    let app = TestApp::start(on).await;
    for (client, path) in doors(&app).await {
        let padded = |size: usize| format!("{{\"x\":1{}}}", " ".repeat(size - 7));
        assert_eq!(client.post_bytes(path, padded(1024 * 1024)).await.status, 422);
        client.post_bytes(path, padded(1024 * 1024 + 1)).await.problem(413, "payload_too_large");
        let announced = format!("{}content-length: 99999999999\r\n\r\n{{", head(&client, path));
        assert_eq!(raw::ask(client.address(), announced).await.status, 413);
        let mut chunked = format!("{}transfer-encoding: chunked\r\n\r\n", head(&client, path));
        for _ in 0..33 {
            chunked.push_str(&format!("8000\r\n{}\r\n", " ".repeat(0x8000)));
        }
        assert_eq!(raw::ask(client.address(), chunked).await.status, 413);
    }
}

async fn a_body_that_never_comes_is_given_up(on: Backend) {
    let app = TestApp::start(on).await;
    let [(chat, message), (auth, register)] = doors(&app).await;
    tokio::join!(outlast(&chat, message), outlast(&auth, register));
}

/// Three connections that do not go on: one says nothing, one stops in its head, one in its body.
async fn outlast(client: &Client, path: &str) {
    let mut silent = raw::Raw::connect(client.address()).await;
    let mut half = raw::Raw::connect(client.address()).await;
    let mut body = raw::Raw::connect(client.address()).await;
    half.send(format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n")).await;
    body.send(format!("{}content-length: 10\r\n\r\n{{", head(client, path))).await;
    let start = Instant::now();
    silent.read_to_close(Duration::from_secs(14)).await;
    half.read_to_close(Duration::from_secs(14)).await;
    assert!(start.elapsed() > Duration::from_secs(8), "{:?}", start.elapsed());
    let answer = body.read_to_close(Duration::from_secs(19)).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
}

/// The head of a JSON request up to what says how long its body is.
fn head(client: &Client, path: &str) -> String {
    let token = client.token();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\n"
    )
}

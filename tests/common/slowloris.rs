//! Bytes that no HTTP client should send: each is refused or served, and the service stays quick for everybody else.

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::{Backend, Client, PATIENCE, TestApp, eventually, raw};

use super::doors;

on_both_stores!(
    heads_that_break_the_rules_are_refused,
    a_body_must_be_as_long_as_it_says,
    an_endless_upload_is_stopped_at_the_limit,
    dots_do_not_lead_out_of_what_is_passed_on_to_auth,
    every_described_path_refuses_other_methods,
);

async fn alive(client: &Client) {
    let start = Instant::now();
    client.get("/livez").await.expect(200);
    assert!(start.elapsed() < Duration::from_secs(1));
}

async fn heads_that_break_the_rules_are_refused(on: Backend) {
    let app = TestApp::start(on).await;
    for (client, _) in doors(&app).await {
        for (head, allowed) in [
            ("GET /livez HTTP/1.1\r\nhost: a\r\nx: 1\r\n folded: 2\r\n\r\n", &[400][..]),
            ("GET /livez HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n", &[400]),
            ("GET /livez HTTP/1.1\r\nhost: a\r\nx y: 1\r\n\r\n", &[400]),
            ("GET /livez HTTP/1.1\r\nhost : a\r\n\r\n", &[400]),
            ("GET /livez HTTP/1.1\r\nhost: a\r\nno colon\r\n\r\n", &[400]),
            ("GET /li\0vez HTTP/1.1\r\nhost: a\r\n\r\n", &[400]),
            ("GET /livez HTTP/3.7\r\nhost: a\r\n\r\n", &[400, 505]),
            ("GET /livez HTTP/2.0\r\nhost: a\r\n\r\n", &[400, 505]),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0, 400, 505]),
            ("GET /livez\r\n\r\n", &[400]),
            ("GET  /livez HTTP/1.1\r\nhost: a\r\n\r\n", &[400]),
            ("get /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", &[400, 405]),
            ("GET /livez HTTP/1.1\r\nconnection: close\r\n\r\n", &[400]),
            ("GET /livez HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n", &[400]),
            ("GET /livez HTTP/1.0\r\n\r\n", &[200]),
            (
                "GET http://localhost/livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
                &[200],
            ),
            (
                "GET http://evil.example/livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
                &[200, 400, 403, 421],
            ),
            ("GET /livez HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n", &[403]),
            ("OPTIONS * HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", &[400, 404, 405]),
            (
                "CONNECT evil.example:443 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
                &[400, 403, 404, 405],
            ),
        ] {
            let reply = raw::ask(client.address(), head).await;
            assert!(allowed.contains(&reply.status), "{head:?}: {}", reply.head);
        }
        alive(&client).await;
    }
}

async fn a_body_must_be_as_long_as_it_says(on: Backend) {
    let app = TestApp::start(on).await;
    for (client, path) in doors(&app).await {
        let ask = |rest: &'static str| {
            let request = format!("{}{rest}", head(&client, path));
            let address = client.address();
            async move { raw::ask(address, request).await }
        };
        for malformed in [
            "content-length: 5\r\ncontent-length: 6\r\n\r\n{}    ",
            "content-length: -1\r\n\r\n{}",
            "content-length: +2\r\n\r\n{}",
            "content-length: 0x2\r\n\r\n{}",
            "content-length: 99999999999999999999999\r\n\r\n{}",
            "transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
            "transfer-encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n",
            "transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}\r\n0\r\n\r\n",
            "transfer-encoding: gzip\r\n\r\n{}",
            "transfer-encoding: identity, chunked, gzip\r\n\r\n{}",
        ] {
            let reply = ask(malformed).await;
            assert!((400..=501).contains(&reply.status), "{malformed:?}: {}", reply.head);
        }
        // What follows a body that says too little is another request, and never belongs to the first.
        let mut connection = raw::Raw::connect(client.address()).await;
        let short = format!("{}content-length: 2\r\n\r\n{{}}{{}}\r\n\r\n", head(&client, path));
        connection.send(short).await;
        assert_eq!(connection.read_reply().await.status, 422);
        let rest = connection.read_to_close(PATIENCE).await;
        assert!(!String::from_utf8_lossy(&rest).contains(" 200 "));
        // Both ways of saying a length: refused, or the length is ignored and the connection closed (RFC 9112, 6.3).
        let both = format!(
            "{}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\nGET /health HTTP/1.1\r\nhost: a\r\n\r\n",
            head(&client, path)
        );
        let mut connection = raw::Raw::connect(client.address()).await;
        connection.send(both).await;
        let reply = connection.read_reply().await;
        assert!(matches!(reply.status, 400 | 422), "{}", reply.head);
        alive(&client).await;
    }
}

async fn an_endless_upload_is_stopped_at_the_limit(on: Backend) {
    let app = TestApp::start(on).await;
    for (client, path) in doors(&app).await {
        let mut upload = raw::Raw::connect(client.address()).await;
        upload.send(format!("{}transfer-encoding: chunked\r\n\r\n", head(&client, path))).await;
        let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x1_0000));
        let start = Instant::now();
        // 100 MB; what the service does not take any more is not sent.
        for _ in 0..1600 {
            if !upload.still_sends(&chunk).await {
                break;
            }
        }
        let reply = upload.read_reply().await;
        // Where the upload outlived the farewell there is a reset and no answer to be read.
        assert!(matches!(reply.status, 413 | 0), "{}", reply.head);
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        alive(&client).await;
    }
}

async fn dots_do_not_lead_out_of_what_is_passed_on_to_auth(on: Backend) {
    let app = TestApp::start(on).await;
    for path in [
        "/auth/%2e%2e/livez",
        "/auth/%2E./livez",
        "/auth/../livez",
        "/auth/x/..%2f../%2e%2e/%2e%2e/openapi.json",
        "/auth/.",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let reply = raw::ask(app.chat(0), request).await;
        assert_eq!(reply.status, 404, "{path}: {}", reply.head);
    }
}

async fn every_described_path_refuses_other_methods(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    for client in [alice.clone(), alice.at_auth()] {
        let document = client.get("/openapi.json").await.expect(200);
        for (path, item) in document["paths"].as_object().unwrap() {
            let path = path.replace(['{', '}'], "");
            for method in
                ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "POST", "PATCH", "DELETE", "BREW"]
            {
                if item[method.to_lowercase()].is_object() {
                    continue;
                }
                refuses(&client, method, &path, item).await;
            }
        }
    }
}

async fn refuses(client: &Client, method: &str, path: &str, item: &Value) {
    let request = client.request(method.parse().unwrap(), path).header("x-echo", "canary");
    let reply = client.fetch(request).await;
    if method == "HEAD" && item["get"].is_object() {
        assert_ne!(reply.status, 405, "HEAD is GET without a body: {path}");
        assert!(reply.text().is_empty(), "{path}");
        let length = reply.header("content-length");
        if !length.is_empty() {
            let whole = client.get(path).await;
            assert_eq!(length, whole.header("content-length"), "{path}");
        }
        return;
    }
    assert_eq!(reply.status, 405, "{method} {path}: {}", reply.text());
    let allow = reply.header("allow");
    for (named, _) in item.as_object().unwrap() {
        assert!(allow.contains(&named.to_uppercase()), "{method} {path}: {allow}");
    }
    assert!(!reply.text().contains("canary"), "{method} {path} echoes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_dribblers_do_not_slow_the_others() {
    let app = TestApp::start(Backend::Redis).await;
    let alice = app.login("alice").await;
    let mut dribblers = Vec::new();
    for _ in 0..200 {
        let mut one = raw::Raw::connect(alice.address()).await;
        one.send("GET /livez HTTP/1.1\r\nhost: a\r\n").await;
        dribblers.push(one);
    }
    let start = Instant::now();
    let mut slowest = Duration::ZERO;
    while start.elapsed() < Duration::from_secs(3) {
        for one in &mut dribblers {
            one.send("x").await;
        }
        let asked = Instant::now();
        alice.get("/chat/sessions").await.expect(200);
        slowest = slowest.max(asked.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    // Bytes that keep coming do not make a head's time longer.
    for one in &mut dribblers {
        one.read_to_close(Duration::from_secs(14)).await;
    }
    let admin = app.stranger().at(app.chat_admin(0));
    eventually(PATIENCE, "their places are free again", || async {
        let metrics = admin.get("/metrics").await.text();
        let open = metrics
            .lines()
            .find_map(|line| line.strip_prefix("http_connections_open "))?
            .parse::<f64>()
            .ok()?;
        (open < 50.0).then_some(())
    })
    .await;
}

/// The head of a JSON request up to what says how long its body is.
fn head(client: &Client, path: &str) -> String {
    let token = client.token();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\n"
    )
}

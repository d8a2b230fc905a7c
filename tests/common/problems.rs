//! Whatever is wrong with a request, both services say it in the same shape.

use serde_json::{Value, json};
use tests::{Backend, Client, Reply, TestApp, raw};

on_both_stores!(
    an_unknown_path_is_404_with_and_without_a_token,
    a_wrong_method_is_405_with_allow,
    a_body_that_is_not_json_is_400,
    a_body_of_another_kind_is_415,
    a_body_too_large_is_413,
    heads_too_large_are_414_and_431,
    every_answer_has_its_headers,
    request_ids_are_kept_if_they_are_good,
    foreign_hosts_are_refused,
    a_body_that_never_comes_is_given_up,
);

/// The two services, each with a path that takes a body.
async fn doors(app: &TestApp) -> [(Client, &'static str); 2] {
    let alice = app.login("alice").await;
    [
        (alice.clone(), "/chat/message"),
        (alice.at_auth(), "/auth/register"),
    ]
}

async fn an_unknown_path_is_404_with_and_without_a_token(on: Backend) {
    let app = TestApp::start(on).await;
    for (client, _) in doors(&app).await {
        for path in [
            "/nothing",
            "/chat/nothing",
            "/auth/nothing",
            "/metrics",
            "/admin",
            "/chat/message/",
            "//",
            "/%00",
        ] {
            assert_eq!(
                client.get(path).await.problem(404, "not_found")["title"],
                "There is nothing here",
                "{path}"
            );
            client
                .with_token("garbage")
                .get(path)
                .await
                .problem(404, "not_found");
        }
    }
}

async fn a_wrong_method_is_405_with_allow(on: Backend) {
    let app = TestApp::start(on).await;
    for (client, path) in doors(&app).await {
        for method in ["GET", "PUT", "DELETE", "TRACE", "BREW"] {
            let reply = client
                .fetch(client.request(method.parse().unwrap(), path))
                .await;
            reply.problem(405, "method_not_allowed");
            assert!(
                reply.header("allow").contains("POST"),
                "{method} {path}: {:?}",
                reply.headers
            );
        }
    }
}

async fn a_body_that_is_not_json_is_400(on: Backend) {
    let app = TestApp::start(on).await;
    let deep = |open: &str, close: &str, depth: usize| {
        format!("{}{}", open.repeat(depth), close.repeat(depth))
    };
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
        deep("[", "]", 100_000).into_bytes(),
        deep("{\"a\":", "", 40_000).into_bytes(),
        format!("{{\"message\":{}}}", deep("[", "]", 5000)).into_bytes(),
    ];
    for (client, path) in doors(&app).await {
        for body in &bodies {
            let start = std::time::Instant::now();
            let reply = client.post_bytes(path, body.clone()).await;
            let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
            assert_eq!(reply.status, 400, "{path} {shown:?}: {}", reply.text());
            reply.problem(400, "invalid_json");
            assert!(start.elapsed().as_secs() < 2, "{shown:?}");
        }
        for twice in [
            r#"{"user_id":"a","user_id":"b"}"#,
            r#"{"message":"a","user_id":"a","message":"b"}"#,
        ] {
            assert_eq!(
                client.post_bytes(path, twice).await.status,
                400,
                "{path} {twice}"
            );
        }
        for wrong in [
            "null",
            "[]",
            "\"x\"",
            "5",
            "{}",
            r#"{"message":1e999,"user_id":1e999}"#,
        ] {
            let reply = client.post_bytes(path, wrong).await;
            assert!(
                matches!(reply.status, 400 | 422),
                "{path} {wrong}: {}",
                reply.status
            );
        }
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
            let request = client
                .request(reqwest::Method::POST, path)
                .header("content-type", kind)
                .body("{}");
            client
                .fetch(request)
                .await
                .problem(415, "unsupported_media_type");
        }
        let missing = client
            .fetch(client.request(reqwest::Method::POST, path).body("{}"))
            .await;
        missing.problem(415, "unsupported_media_type");
        for kind in [
            "application/json; charset=utf-8",
            "Application/JSON",
            "application/json;charset=UTF-8",
        ] {
            let request = client
                .request(reqwest::Method::POST, path)
                .header("content-type", kind)
                .body("{}");
            assert_eq!(client.fetch(request).await.status, 422, "{kind}");
        }
    }
}

async fn a_body_too_large_is_413(on: Backend) {
    let app = TestApp::start(on).await;
    for (client, path) in doors(&app).await {
        let padded = |size: usize| format!("{{\"x\":1{}}}", " ".repeat(size - 7));
        assert_eq!(
            client.post_bytes(path, padded(256 * 1024)).await.status,
            422
        );
        client
            .post_bytes(path, padded(256 * 1024 + 1))
            .await
            .problem(413, "payload_too_large");
        let announced = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             content-length: 99999999999\r\n\r\n{{",
            client.token()
        );
        assert_eq!(raw::ask(client.address(), announced).await.status, 413);
        let mut chunked = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             transfer-encoding: chunked\r\n\r\n",
            client.token()
        );
        for _ in 0..9 {
            chunked.push_str(&format!("8000\r\n{}\r\n", " ".repeat(0x8000)));
        }
        assert_eq!(raw::ask(client.address(), chunked).await.status, 413);
    }
}

async fn heads_too_large_are_414_and_431(on: Backend) {
    let app = TestApp::start(on).await;
    for (client, _) in doors(&app).await {
        client
            .get(&format!("/health?{}", "x".repeat(8 * 1024)))
            .await
            .problem(414, "uri_too_long");
        let big = client
            .request(reqwest::Method::GET, "/health")
            .header("x-big", "x".repeat(33 * 1024));
        client.fetch(big).await.problem(431, "headers_too_large");
        let mut many = client.request(reqwest::Method::GET, "/health");
        for number in 0..70 {
            many = many.header(format!("x-h{number}"), "x");
        }
        client.fetch(many).await.problem(431, "headers_too_large");
        client.get("/health").await.expect(200);
    }
}

async fn every_answer_has_its_headers(on: Backend) {
    let app = TestApp::start(on).await;
    for (client, path) in doors(&app).await {
        let replies: [Reply; 5] = [
            client.get("/health").await,
            client.get("/nothing").await,
            client.post(path, &json!({})).await,
            client.with_token("x").get("/auth/validate").await,
            client.get("/openapi.json").await,
        ];
        for reply in replies {
            assert_eq!(
                reply.header("x-content-type-options"),
                "nosniff",
                "{:?}",
                reply.headers
            );
            assert!(!reply.header("x-request-id").is_empty());
            assert_eq!(reply.header("server"), "");
        }
    }
    let alice = app.login("alice").await;
    alice.say("work", "hello").await;
    for path in [
        "/chat/sessions",
        "/chat/sessions/work",
        "/chat/sessions/work/messages",
        "/auth/validate",
    ] {
        assert!(
            alice
                .get(path)
                .await
                .header("cache-control")
                .contains("no-store"),
            "{path}"
        );
    }
}

async fn request_ids_are_kept_if_they_are_good(on: Backend) {
    let app = TestApp::start(on).await;
    for (client, path) in doors(&app).await {
        let with = async |id: &str| {
            let request = client
                .request(reqwest::Method::POST, path)
                .header("x-request-id", id)
                .json(&json!({}));
            client.fetch(request).await
        };
        for good in ["a", "Abc-123", &"x".repeat(64)] {
            let reply = with(good).await;
            assert_eq!(reply.header("x-request-id"), good);
            assert_eq!(reply.json()["request_id"], good);
        }
        for bad in [
            "",
            "a b",
            "a_b",
            "<script>",
            &"x".repeat(65),
            &"x".repeat(10_000),
        ] {
            let made = with(bad).await.header("x-request-id").to_owned();
            assert!(
                made != bad && !made.is_empty() && made.len() <= 64,
                "{bad:?} -> {made:?}"
            );
        }
        assert_ne!(
            with("").await.header("x-request-id"),
            with("").await.header("x-request-id")
        );
    }
}

async fn foreign_hosts_are_refused(on: Backend) {
    let app = TestApp::builder(on)
        .set("server.allowed_hosts", "chat.example")
        .start()
        .await;
    for address in [app.chat(0), app.auth()] {
        let host = async |host: &str| {
            raw::ask(
                address,
                format!("GET /health HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"),
            )
            .await
        };
        for good in [
            "localhost",
            "localhost:1",
            "127.0.0.1",
            "[::1]:9",
            "192.0.2.7:80",
            "chat",
            "auth:9001",
            "chat.example:443",
        ] {
            assert_eq!(host(good).await.status, 200, "{good}");
        }
        for bad in [
            "evil.example",
            "chat.example.evil.com",
            "localhost.evil.com",
            "127.0.0.1.nip.io:80",
        ] {
            let reply = host(bad).await;
            let problem: Value = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!(
                (reply.status, &problem["code"]),
                (403, &json!("origin_refused")),
                "{bad}"
            );
        }
    }
}

async fn a_body_that_never_comes_is_given_up(on: Backend) {
    let app = TestApp::start(on).await;
    for (client, path) in doors(&app).await {
        let mut silent = raw::Raw::connect(client.address()).await;
        let mut half = raw::Raw::connect(client.address()).await;
        half.send(format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n"))
            .await;
        let mut body = raw::Raw::connect(client.address()).await;
        let token = client.token();
        body.send(format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: 10\r\n\r\n{{"
        ))
        .await;
        let start = std::time::Instant::now();
        silent
            .read_to_close(std::time::Duration::from_secs(14))
            .await;
        half.read_to_close(std::time::Duration::from_secs(14)).await;
        let answer = body.read_to_close(std::time::Duration::from_secs(19)).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
            "{answer}"
        );
        assert!(
            start.elapsed() > std::time::Duration::from_secs(8),
            "{:?}",
            start.elapsed()
        );
    }
}

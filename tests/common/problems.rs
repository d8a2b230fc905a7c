//! Whatever is wrong with a request, both services say it in the same shape.

use super::doors;
use serde_json::{Value, json};
use tests::{Backend, Reply, TestApp, raw};

on_both_stores!(
    an_unknown_path_is_404_with_and_without_a_token,
    a_wrong_method_is_405_with_allow,
    heads_too_large_are_414_and_431,
    every_answer_has_its_headers,
    request_ids_are_kept_if_they_are_good,
    foreign_hosts_are_refused,
    a_refusal_spoils_no_later_request_of_its_connection,
);

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
            client.with_token("garbage").get(path).await.problem(404, "not_found");
        }
    }
}

async fn a_wrong_method_is_405_with_allow(on: Backend) {
    let app = TestApp::start(on).await;
    for (client, path) in doors(&app).await {
        for method in ["GET", "PUT", "DELETE", "TRACE", "BREW"] {
            let reply = client.fetch(client.request(method.parse().unwrap(), path)).await;
            reply.problem(405, "method_not_allowed");
            assert!(reply.header("allow").contains("POST"), "{method} {path}: {:?}", reply.headers);
        }
    }
}

async fn heads_too_large_are_414_and_431(on: Backend) {
    let app = TestApp::start(on).await;
    for (client, _) in doors(&app).await {
        client.get(&format!("/health?{}", "x".repeat(8 * 1024))).await.problem(414, "uri_too_long");
        let big =
            client.request(reqwest::Method::GET, "/health").header("x-big", "x".repeat(33 * 1024));
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
            assert_eq!(reply.header("x-content-type-options"), "nosniff", "{:?}", reply.headers);
            assert!(!reply.header("x-request-id").is_empty());
            assert_eq!(reply.header("server"), "");
        }
    }
    let alice = app.login("alice").await;
    alice.say("work", "hello").await;
    for path in
        ["/chat/sessions", "/chat/sessions/work", "/chat/sessions/work/messages", "/auth/validate"]
    {
        assert!(alice.get(path).await.header("cache-control").contains("no-store"), "{path}");
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
        for bad in ["", "a b", "a_b", "<script>", &"x".repeat(65), &"x".repeat(10_000)] {
            let made = with(bad).await.header("x-request-id").to_owned();
            assert!(made != bad && !made.is_empty() && made.len() <= 64, "{bad:?} -> {made:?}");
        }
        assert_ne!(with("").await.header("x-request-id"), with("").await.header("x-request-id"));
    }
}

async fn foreign_hosts_are_refused(on: Backend) {
    let app = TestApp::builder(on).set("server.allowed_hosts", "chat.example").start().await;
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
        for bad in
            ["evil.example", "chat.example.evil.com", "localhost.evil.com", "127.0.0.1.nip.io:80"]
        {
            let reply = host(bad).await;
            let problem: Value = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!((reply.status, &problem["code"]), (403, &json!("origin_refused")), "{bad}");
        }
    }
}

/// A refusal that needs no body comes before it. Then either the connection says that it closes, or the next request on it works.
async fn a_refusal_spoils_no_later_request_of_its_connection(on: Backend) {
    const BODY: usize = 2000;
    let app = TestApp::start(on).await;
    let (chat, auth) = (app.chat(0), app.auth());
    for (door, path, host, kind, status) in [
        (chat, "/nowhere", "localhost", "application/json", 404),
        (auth, "/nowhere", "localhost", "application/json", 404),
        (chat, "/chat/message", "evil.example", "application/json", 403),
        (auth, "/auth/login", "evil.example", "application/json", 403),
        (chat, "/chat/message", "localhost", "application/json", 401),
        (auth, "/auth/login", "localhost", "text/plain", 415),
    ] {
        for at_once in [true, false] {
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: {kind}\r\ncontent-length: {BODY}\r\n\r\n"
            );
            let body = "x".repeat(BODY);
            let mut connection = raw::Raw::connect(door).await;
            connection.send(if at_once { head + &body } else { head }).await;
            let refusal = connection.read_reply().await;
            assert_eq!(refusal.status, status, "{path}: {}", refusal.head);
            if refusal.header("connection") == "close" {
                continue;
            }
            if !at_once {
                connection.send(&body).await;
            }
            connection.send("GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
            let next = connection.read_reply().await;
            assert_eq!(next.status, 200, "{path}, at once: {at_once}: {}", next.head);
        }
    }
}

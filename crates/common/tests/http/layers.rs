//! What every request goes through: ids, hosts, origins, sizes, times, panics, and the shape of every refusal.

use axum::http::StatusCode;
use common::http::{HostPolicy, ShapedError};
use serde_json::json;

use crate::site::Site;

#[tokio::test]
async fn an_allowed_request_id_comes_back_and_any_other_is_replaced() {
    let site = Site::open().await;
    let kept = site.ask("GET /who", &[("x-request-id", "abc-123")]).await;
    assert_eq!(kept.header("x-request-id"), Some("abc-123"));
    assert_eq!(kept.json()["request_id"], "abc-123");
    for id in ["a b", "a;b", &"x".repeat(65), &"x".repeat(10_000)] {
        let answer = site.ask("GET /nowhere", &[("x-request-id", id)]).await;
        answer.is_problem(404, "not_found");
        assert_eq!(answer.header("x-request-id").map(str::len), Some(36));
    }
}

#[tokio::test]
async fn an_unknown_path_and_a_wrong_method_are_problems() {
    let site = Site::open().await;
    site.ask("GET /nowhere", &[]).await.is_problem(404, "not_found");
    for method in ["PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "MADEUP", "post"] {
        let answer = site.ask(&format!("{method} /who"), &[("x-secret", "s3cret")]).await;
        answer.is_problem(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some("GET,HEAD"), "{method}");
        assert!(!answer.body.contains("s3cret"));
    }
    let head = site.ask("HEAD /who", &[]).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    site.ask("GET /echo", &[]).await.is_problem(405, "method_not_allowed");
}

#[tokio::test]
async fn every_answer_has_the_security_headers() {
    let site = Site::open().await;
    for path in ["/who", "/nowhere", "/fail", "/panic"] {
        let answer = site.ask(&format!("GET {path}"), &[]).await;
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        assert_eq!(answer.header("server"), None);
    }
    assert_eq!(site.ask("GET /cached", &[]).await.header("cache-control"), Some("max-age=60"));
}

#[tokio::test]
async fn a_panic_is_a_500_that_tells_nothing_and_the_service_goes_on() {
    let site = Site::open().await;
    let answer = site.ask("GET /panic", &[]).await;
    answer.is_problem(500, "internal");
    assert!(!answer.body.contains("10.0.0.1"));
    assert_eq!(site.ask("GET /who", &[]).await.status, 200);
}

#[tokio::test]
async fn a_failure_says_what_to_do_and_not_what_broke() {
    let site = Site::open().await;
    let answer = site.ask("GET /fail", &[]).await;
    answer.is_problem(503, "llm_unavailable");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(!answer.body.contains("11434"));
}

#[tokio::test]
async fn too_much_of_an_address_or_of_headers_is_refused() {
    let site = Site::open().await;
    let path = |length: usize| format!("GET /{}", "x".repeat(length - 1));
    site.ask(&path(8 * 1024), &[]).await.is_problem(404, "not_found");
    site.ask(&path(8 * 1024 + 1), &[]).await.is_problem(414, "uri_too_long");
    site.ask(&path(40 * 1024), &[]).await.is_problem(414, "uri_too_long");
    assert_eq!(site.ask("GET /who", &[("x-large", &"y".repeat(31 * 1024))]).await.status, 200);
    for length in [32 * 1024, 64 * 1024] {
        site.ask("GET /who", &[("x-large", &"y".repeat(length))])
            .await
            .is_problem(431, "headers_too_large");
    }
    let many = |count: usize| vec![("x-many", "1"); count - 2];
    assert_eq!(site.ask("GET /who", &many(64)).await.status, 200);
    site.ask("GET /who", &many(65)).await.is_problem(431, "headers_too_large");
    site.ask("GET /who", &many(256)).await.is_problem(431, "headers_too_large");
    // Past what the parser has room for it refuses by itself.
    assert_eq!(site.ask("GET /who", &many(257)).await.status, 431);
    assert_eq!(site.ask("GET /who", &[("x-large", &"y".repeat(400 * 1024))]).await.status, 431);
}

#[tokio::test]
async fn a_body_in_a_coding_that_nobody_takes_off_is_refused() {
    let site = Site::open().await;
    let post = |coding: &str| {
        format!(
            "POST /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n\
             transfer-encoding: {coding}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
        )
    };
    for coding in [
        "gzip, chunked",
        "chunked, chunked",
        "identity, chunked",
        "gzip\r\ntransfer-encoding: chunked",
    ] {
        let answer = site.say(&post(coding)).await;
        answer.is_problem(400, "invalid_request");
        assert_eq!(answer.header("connection"), Some("close"), "{coding}");
    }
    for coding in ["chunked", "Chunked"] {
        let answer = site.say(&post(coding)).await;
        answer.is_problem(422, "validation_failed");
    }
}

#[tokio::test]
async fn malformed_heads_are_refused_and_old_versions_served() {
    let site = Site::open().await;
    for head in [
        "GET /who HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n",
        "GET /who HTTP/1.1\r\nhost: a\r\n: x\r\n\r\n",
        "GET /who HTTP/3.7\r\nhost: a\r\n\r\n",
        "GET /who\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}x",
    ] {
        let status = site.say_and_leave(head).await;
        assert!((400..=505).contains(&status), "{head:?}: {status}");
    }
    for head in [
        "GET /who HTTP/1.1\r\nconnection: close\r\n\r\n",
        "GET /who HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n",
    ] {
        assert_eq!(site.say(head).await.status, 400, "{head:?}");
    }
    assert_eq!(site.say("GET /who HTTP/1.0\r\n\r\n").await.status, 200);
}

impl Site {
    /// The status of the answer to bytes that are no request.
    async fn say_and_leave(&self, head: &str) -> u16 {
        let mut raw = self.connect().await;
        raw.send(head.as_bytes()).await;
        tokio::io::AsyncWriteExt::shutdown(&mut raw.0).await.unwrap();
        raw.answer_then_end().await.status
    }
}

#[tokio::test]
async fn a_guarded_listener_answers_to_its_own_names_alone() {
    let hosts = HostPolicy::guarded(vec!["chat.example.org".into()], || true);
    let site = Site::with_layers(|layers| layers.hosts = hosts).await;
    let ask =
        async |host: &str| site.say(&format!("GET /who HTTP/1.0\r\nhost: {host}\r\n\r\n")).await;
    for host in ["localhost:9001", "127.0.0.1", "[::1]:1", "chat", "chat.example.org:443"] {
        assert_eq!(ask(host).await.status, 200, "{host}");
    }
    for host in ["evil.example", "127.0.0.1.evil.example:9001"] {
        ask(host).await.is_problem(403, "origin_refused");
    }
    let absolute =
        "GET http://evil.example/who HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    site.say(absolute).await.is_problem(403, "origin_refused");
}

#[tokio::test]
async fn only_allowed_origins_may_read_answers() {
    let site =
        Site::with_layers(|layers| layers.allowed_origins = vec!["https://app.example".into()])
            .await;
    let preflight = async |origin: &str| {
        let wanted = "authorization, content-type, x-stainless-lang";
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", wanted),
        ];
        site.ask("OPTIONS /echo", &headers).await
    };
    let answer = preflight("https://app.example").await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(
        answer.header("access-control-allow-headers"),
        Some("authorization, content-type, x-stainless-lang")
    );
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    for foreign in
        ["https://evil.example", "https://app.example.evil.example", "null", "http://app.example"]
    {
        let answer = preflight(foreign).await;
        assert_eq!(
            (answer.status, answer.header("access-control-allow-origin")),
            (403, None),
            "{foreign}"
        );
        answer.is_problem(403, "origin_refused");
        assert!(answer.body.contains("chat.allowed_origins"), "{answer:?}");
    }
    let answer = site.ask("GET /nowhere", &[("origin", "https://app.example")]).await;
    answer.is_problem(404, "not_found");
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    let exposed = answer.header("access-control-expose-headers").unwrap();
    for header in ["RateLimit", "Retry-After", "WWW-Authenticate", "X-Should-Retry", "request-id"] {
        assert!(exposed.contains(header), "{header}");
    }
    assert_eq!(answer.header("vary"), Some("origin"));
}

#[tokio::test]
async fn a_forwarded_address_is_believed_of_trusted_proxies_alone() {
    let forwarded = [("x-forwarded-for", "6.6.6.6, 203.0.113.7")];
    let site = Site::open().await;
    assert_eq!(site.ask("GET /who", &forwarded).await.json()["address"], "127.0.0.1");
    let trusted = vec!["127.0.0.0/8".parse().unwrap()];
    let site = Site::with_layers(|layers| layers.trusted_proxies = trusted).await;
    assert_eq!(site.ask("GET /who", &forwarded).await.json()["address"], "203.0.113.7");
}

#[tokio::test]
async fn store_calls_have_a_second_from_the_arrival() {
    let site = Site::open().await;
    let left = site.ask("GET /who", &[]).await.json()["store_ms"].as_u64().unwrap();
    assert!((500..=1000).contains(&left), "{left}");
}

#[tokio::test]
async fn errors_of_another_apis_paths_have_its_shape() {
    let site = Site::with_layers(|layers| {
        layers.error_shape = Some(std::sync::Arc::new(|path, problem| {
            let error = json!({"code": problem.code, "message": problem.detail});
            let body = json!({ "error": error });
            path.starts_with("/v1/").then_some(ShapedError { status: None, body })
        }));
    })
    .await;
    let answer = site.ask("GET /v1/nowhere", &[]).await;
    assert_eq!((answer.status, answer.header("content-type")), (404, Some("application/json")));
    assert_eq!(answer.json()["error"]["code"], "not_found");
    site.ask("GET /nowhere", &[]).await.is_problem(404, "not_found");
}

//! Bodies, queries and paths that are refused, each in the shape that says why.

use std::time::{Duration, Instant};

use common::http::{BodyLimit, RequestLimits};

use crate::site::Site;

#[tokio::test]
async fn a_body_must_be_json() {
    let site = Site::open().await;
    let good = br#"{"message":"hi"}"#;
    assert_eq!(
        site.post_as("/echo", Some("application/json; charset=utf-8"), good).await.status,
        200
    );
    let boundary = format!("multipart/form-data; boundary={}", "b".repeat(20_000));
    for kind in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("application/json; charset=utf-16"),
        Some("application/jsonx"),
        Some(boundary.as_str()),
    ] {
        site.post_as("/echo", kind, good).await.is_problem(415, "unsupported_media_type");
    }
    for body in [
        "",
        "{",
        r#"{"message":"a"} x"#,
        r#"{"message":"a","message":"b"}"#,
        r#"{"message":"\ud800"}"#,
    ] {
        site.post("/echo", body).await.is_problem(400, "invalid_json");
    }
    site.post_as("/echo", Some("application/json"), b"{\"message\":\"\xff\"}")
        .await
        .is_problem(400, "invalid_json");
}

#[tokio::test]
async fn a_coded_body_is_refused_as_such() {
    let site = Site::open().await;
    let body = r#"{"message":"hi"}"#;
    let post = |coding: &str| {
        format!(
            "POST /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-encoding: {coding}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    for coding in ["gzip", "br", "identity\r\ncontent-encoding: gzip"] {
        site.say(&post(coding)).await.is_problem(415, "unsupported_media_type");
    }
    assert_eq!(site.say(&post("Identity")).await.status, 200);
}

#[tokio::test]
async fn a_wrong_value_is_pointed_at() {
    let site = Site::open().await;
    site.post("/echo", "{}").await.points_at("/message");
    site.post("/echo", "null").await.points_at("");
    site.post("/echo", r#"["a"]"#).await.points_at("");
    site.post("/echo", r#"{"message":"a","extra":1}"#).await.points_at("/extra");
    site.post("/echo", r#"{"message":"a","options":{"temperature":"x"}}"#)
        .await
        .points_at("/options/temperature");
}

#[tokio::test]
async fn a_body_that_may_be_missing_may_be_missing_with_its_type() {
    let site = Site::open().await;
    assert_eq!(site.ask("POST /maybe", &[]).await.status, 200);
    assert_eq!(site.post_as("/maybe", None, b"").await.status, 200);
    assert_eq!(site.post("/maybe", "").await.status, 200);
    assert_eq!(site.post("/maybe", r#"{"message":"a"}"#).await.json()["message"], "a");
    site.post_as("/maybe", None, b"{}").await.is_problem(415, "unsupported_media_type");
    site.post_as("/maybe", Some("text/plain"), b"{}")
        .await
        .is_problem(415, "unsupported_media_type");
    site.post("/maybe", "{").await.is_problem(400, "invalid_json");
    site.post("/maybe", r#"{"message":1}"#).await.points_at("/message");
}

#[tokio::test]
async fn query_and_path_are_held_to_their_types() {
    let site = Site::open().await;
    assert_eq!(site.ask("GET /page?stream=true&limit=5", &[]).await.json()["limit"], 5);
    for query in ["stream=1", "stream=TRUE", "stream=yes", "stream=true&stream=false", "limit=%zz"]
    {
        site.ask(&format!("GET /page?{query}"), &[]).await.is_problem(400, "invalid_request");
    }
    site.ask("GET /page?limit=-1", &[]).await.points_at("/query/limit");
    site.ask("GET /page?colour=red", &[]).await.points_at("/query/colour");
    assert_eq!(site.ask("GET /number/7", &[]).await.body, "7");
    for path in ["/number/x", "/number/300", "/number/%ff"] {
        site.ask(&format!("GET {path}"), &[]).await.is_problem(404, "not_found");
    }
}

#[tokio::test]
async fn a_body_up_to_the_limit_is_taken_and_one_byte_more_refused() {
    let site = Site::open().await;
    let body = |length: usize| {
        let text = "x".repeat(length - r#"{"message":""}"#.len());
        format!(r#"{{"message":"{text}"}}"#)
    };
    let limit = 1024 * 1024;
    assert_eq!(site.post("/echo", &body(limit)).await.status, 200);
    site.post("/echo", &body(limit + 1)).await.is_problem(413, "payload_too_large");

    let chunked = |length: usize| {
        let body = body(length);
        format!(
            "POST /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n\
             transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )
    };
    assert_eq!(site.say(&chunked(limit)).await.status, 200);
    site.say(&chunked(limit + 1)).await.is_problem(413, "payload_too_large");
}

#[tokio::test]
async fn a_dribbled_body_is_given_up_in_time() {
    let limits = RequestLimits {
        body: BodyLimit { bytes: 1024, time: Duration::from_millis(300) },
        ..RequestLimits::default()
    };
    let site = Site::with_layers(|layers| layers.limits = limits).await;
    let begun = Instant::now();
    let answer = site
        .say("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{")
        .await;
    answer.is_problem(408, "request_timeout");
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_failure_of_ours() {
    let site = Site::open().await;
    let broken = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                  transfer-encoding: chunked\r\n\r\nzz\r\n";
    site.say(broken).await.is_problem(400, "invalid_request");
}

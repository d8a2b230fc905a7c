//! Browsers of elsewhere, and addresses that callers claim to have.

use reqwest::Method;
use tests::{Backend, Reply, TestApp};

on_both_stores!(
    only_listed_origins_may_read_answers,
    a_claimed_address_is_not_believed,
    a_trusted_proxys_word_is_taken,
);

async fn preflight(app: &TestApp, origin: &str) -> Reply {
    let somebody = app.stranger();
    let request = somebody.request(Method::OPTIONS, "/chat/message").header("origin", origin);
    let request = request.header("access-control-request-method", "POST");
    let request = request
        .header("access-control-request-headers", "authorization, content-type, x-stainless-os");
    somebody.fetch(request).await
}

async fn only_listed_origins_may_read_answers(on: Backend) {
    let app = TestApp::builder(on).set("chat.allowed_origins", "https://app.example").start().await;
    let good = preflight(&app, "https://app.example").await;
    assert_eq!(good.header("access-control-allow-origin"), "https://app.example");
    let headers = good.header("access-control-allow-headers").to_lowercase();
    assert!(headers.contains("authorization") && headers.contains("x-stainless-os"), "{headers}");
    for bad in
        ["https://evil.example", "null", "http://app.example", "https://app.example.evil.com"]
    {
        let reply = preflight(&app, bad).await;
        let allowed = reply.header("access-control-allow-origin");
        assert!(allowed.is_empty() || allowed == "https://app.example", "{bad}: {allowed}");
    }
    let closed = TestApp::start(on).await;
    assert_eq!(
        preflight(&closed, "https://app.example").await.header("access-control-allow-origin"),
        ""
    );
}

/// How many of five calls, each from another claimed address, are let through by a bucket of two.
async fn admitted(app: &TestApp) -> usize {
    let (somebody, mut passed) = (app.stranger(), 0);
    for number in 0..5 {
        let request = somebody.request(Method::GET, "/chat/sessions");
        let request = request.header("x-forwarded-for", format!("198.51.100.{number}"));
        passed += usize::from(somebody.fetch(request).await.status != 429);
    }
    passed
}

async fn a_claimed_address_is_not_believed(on: Backend) {
    let app = TestApp::builder(on).set("rate_limit.requests", 2).set("rate_limit.period", "10m");
    let app = app.without_waiting().start().await;
    app.wait_up().await;
    assert_eq!(admitted(&app).await, 2);
}

async fn a_trusted_proxys_word_is_taken(on: Backend) {
    let app = TestApp::builder(on).set("rate_limit.requests", 2).set("rate_limit.period", "10m");
    let app = app.set("server.trusted_proxies", "127.0.0.1").without_waiting().start().await;
    app.wait_up().await;
    assert_eq!(admitted(&app).await, 5);
}

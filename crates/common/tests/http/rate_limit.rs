//! The rate limit through its door: who is counted, what an answer says, and when a retry is admitted.

use std::time::Duration;

use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn, from_fn_with_state},
    response::Response,
    routing::get,
};
use common::{
    config::StoreUrl,
    errors::{ApiError, Code},
    http::{ConnectionLimits, HostPolicy, Layers, wrap},
    identity::{Credential, Identity, Owner, UserId},
    rate_limiter::{RateLimiter, limit},
    shutdown::Shutdown,
    store::{Quota, Store},
};

use crate::site::{Site, server_settings};

/// An identity layer as plain as can be: who is in `x-user`, is.
async fn identify(mut request: Request, next: Next) -> Response {
    let user =
        request.headers().get("x-user").and_then(|value| UserId::parse(value.to_str().ok()?));
    if let Some(user) = user {
        let owner = Owner { user, generation: 0 };
        let identity = Identity::new(owner, Credential::Open, 0);
        request.extensions_mut().insert(identity);
    }
    next.run(request).await
}

async fn site(burst: u32, period: Duration) -> Site {
    let shutdown = Shutdown::new();
    let store = Store::open(&StoreUrl::Memory, &shutdown).unwrap();
    let limiter = RateLimiter::new(store, Quota { burst, period }, "c");
    let router = Router::new()
        .route("/ok", get(async || "ok"))
        .route("/refused", get(async || ApiError::new(Code::MissingToken, "A token is needed.")))
        .layer(from_fn_with_state(limiter, limit))
        .layer(from_fn(identify))
        .route("/free", get(async || "free"));
    let layers = Layers::new("test", HostPolicy::any(), &server_settings());
    Site::serving(wrap(router, layers), ConnectionLimits::default(), Shutdown::new()).await
}

#[tokio::test]
async fn a_full_bucket_lets_its_size_through_and_then_says_when_to_come_back() {
    let site = site(3, Duration::from_secs(3)).await;
    let ask = async || site.ask("GET /ok", &[("x-user", "alice")]).await;
    for left in [2, 1, 0] {
        let answer = ask().await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("ratelimit-policy"), Some("\"user\";q=3;w=3"));
        assert!(answer.header("ratelimit").unwrap().starts_with(&format!("\"user\";r={left};t=")));
    }
    let refused = ask().await;
    refused.is_problem(429, "rate_limited");
    assert!(refused.header("ratelimit").unwrap().starts_with("\"user\";r=0;t="));
    let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    tokio::time::sleep(Duration::from_secs(after)).await;
    assert_eq!(ask().await.status, 200);
}

#[tokio::test]
async fn users_and_addresses_are_counted_apart() {
    let site = site(1, Duration::from_secs(60)).await;
    for headers in
        [&[("x-user", "alice")][..], &[("x-user", "bob")], &[("x-forwarded-for", "1.2.3.4")]]
    {
        assert_eq!(site.ask("GET /ok", headers).await.status, 200);
        site.ask("GET /ok", headers).await.is_problem(429, "rate_limited");
    }
    let spoofed = site.ask("GET /ok", &[("x-forwarded-for", "5.6.7.8")]).await;
    spoofed.is_problem(429, "rate_limited");
    assert_eq!(spoofed.header("ratelimit-policy"), Some("\"address\";q=1;w=60"));
}

#[tokio::test]
async fn refusals_cost_as_well_and_say_what_is_left() {
    let site = site(1, Duration::from_secs(60)).await;
    let answer = site.ask("GET /refused", &[]).await;
    answer.is_problem(401, "missing_token");
    assert!(answer.header("ratelimit").is_some() && answer.header("www-authenticate").is_some());
    site.ask("GET /refused", &[]).await.is_problem(429, "rate_limited");
    assert_eq!(site.ask("GET /free", &[]).await.status, 200);
    assert_eq!(site.ask("GET /free", &[]).await.header("ratelimit"), None);
}

#[tokio::test]
async fn of_many_at_once_exactly_the_quota_is_admitted() {
    let site = site(20, Duration::from_secs(600)).await;
    let asked = (0..80).map(|_| site.ask("GET /ok", &[("x-user", "alice")]));
    let answers = futures_util::future::join_all(asked).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 20);
    assert_eq!(answers.iter().filter(|answer| answer.status == 429).count(), 60);
}

//! `/openapi.json`, and `/docs` to read and try the API. Nothing is loaded from other hosts, and every address is relative,
//! so that both work under a path prefix of a proxy.

use std::sync::{Arc, LazyLock};

use axum::{
    Router,
    http::{HeaderValue, header},
    middleware::map_response,
    response::Response,
    routing::get,
};
use bytes::Bytes;
use utoipa::openapi::{OpenApi, Server};
use utoipa_swagger_ui::{Config, SwaggerUi};

/// The page's own scripts, styles and images, and calls to this service; nothing else.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The document is made when it is first asked for (it takes megabytes and some milliseconds), and its text is kept.
pub fn routes<S: Clone + Send + Sync + 'static>(openapi: fn() -> OpenApi) -> Router<S> {
    let text = LazyLock::new(move || {
        let mut openapi = openapi();
        openapi.servers = Some(vec![Server::new(".")]);
        Bytes::from(openapi.to_json().unwrap_or_default())
    });
    let text = Arc::new(text);
    let json = [(header::CONTENT_TYPE, "application/json")];
    let description = get(move || std::future::ready((json, Bytes::clone(&text))));
    // The page would otherwise ask a validator elsewhere for its badge.
    let config = Config::new(["../openapi.json"]).validator_url("none").try_it_out_enabled(true);
    Router::from(SwaggerUi::new("/docs").config(config))
        .route("/openapi.json", description)
        .layer(map_response(add_policy))
}

async fn add_policy(mut response: Response) -> Response {
    let headers = response.headers_mut();
    // The redirect of /docs.
    if headers.contains_key(header::LOCATION) {
        headers.insert(header::LOCATION, HeaderValue::from_static("docs/"));
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
    if headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/html") {
        let kind = HeaderValue::from_static("text/html; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, kind);
    }
    response
}

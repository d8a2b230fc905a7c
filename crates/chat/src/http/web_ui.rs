//! The page to talk on: its files, carried by the binary and served without a token and without cost.

use axum::{
    Router,
    extract::{Path, Request},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
    routing::get,
};
use common::errors::{ApiError, Code};
use rust_embed::{EmbeddedFile, RustEmbed};
use tower_http::compression::CompressionLayer;

use crate::http::header_list;

/// Everything under `web/`; a debug build reads it from there on each request, so that a change shows on reload.
#[derive(RustEmbed)]
#[folder = "web"]
struct Files;

/// The page's own scripts, styles, images and calls; nothing inline, nothing from elsewhere, no frame round it. HTML
/// that a script wants to write must have come through the sanitiser.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types dompurify",
);
/// Asked for again each time, and answered with 304 while nothing has changed.
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache");
/// For files whose path holds their version.
const KEEP: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(page))
        .route("/assets/{*path}", get(asset))
        .layer(CompressionLayer::new())
}

/// Answers `/` as an Ollama does, for who does not ask for a page.
pub async fn answer_as_ollama(request: Request, next: Next) -> Response {
    if request.uri().path() != "/" {
        return next.run(request).await;
    }
    let is_read = [Method::GET, Method::HEAD].contains(request.method());
    let wants_page = request.headers().get_all(header::ACCEPT).iter().any(|value| {
        let value = value.to_str().unwrap_or_default().to_ascii_lowercase();
        value.contains("html")
    });
    let mut response = if is_read && !wants_page {
        "Ollama is running".into_response()
    } else {
        next.run(request).await
    };
    // One address, one policy, whichever of the two it answers with.
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    response
}

async fn page(headers: HeaderMap) -> Result<Response, ApiError> {
    file("index.html", &headers)
}

async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    file(&path, &headers)
}

fn file(path: &str, request: &HeaderMap) -> Result<Response, ApiError> {
    let file = Files::get(path)
        .ok_or_else(|| ApiError::new(Code::NotFound, "The page has no such file."))?;
    let tag = tag(&file)?;
    let mut response = if is_known(request, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let kind = file.metadata.mimetype();
        let charset = if kind.starts_with("text/") { "; charset=utf-8" } else { "" };
        let kind =
            HeaderValue::from_str(&format!("{kind}{charset}")).map_err(ApiError::internal)?;
        ([(header::CONTENT_TYPE, kind)], file.data.into_owned()).into_response()
    };
    let keep = if path.starts_with("vendor/") { KEEP } else { ASK_AGAIN };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, tag);
    headers.insert(header::CACHE_CONTROL, keep);
    headers.insert(header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    Ok(response)
}

/// Weak, for the same file goes out compressed and not.
fn tag(file: &EmbeddedFile) -> Result<HeaderValue, ApiError> {
    let hash: String = hex::encode(&file.metadata.sha256_hash()[..16]);
    HeaderValue::from_str(&format!("W/\"{hash}\"")).map_err(ApiError::internal)
}

/// Whether the caller has this version already. Tags are compared weakly, as `If-None-Match` asks.
fn is_known(request: &HeaderMap, tag: &HeaderValue) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let Ok(tag) = tag.to_str().map(opaque) else { return false };
    header_list::members(request, header::IF_NONE_MATCH)
        .any(|known| known == "*" || opaque(known) == tag)
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn get(path: &str, name: header::HeaderName, value: &str) -> Response {
        let request = Request::get(path).header(name, value).body(Body::empty());
        let router: Router = routes();
        router.oneshot(request.unwrap()).await.unwrap()
    }

    fn header_of(response: &Response, name: header::HeaderName) -> &str {
        response.headers()[name].to_str().unwrap()
    }

    #[tokio::test]
    async fn the_page_runs_nothing_but_its_own_files() {
        let response = get("/", header::ACCEPT, "*/*").await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(header_of(&response, header::CONTENT_TYPE), "text/html; charset=utf-8");
        let policy = header_of(&response, header::CONTENT_SECURITY_POLICY);
        assert!(policy.contains("script-src 'self';") && policy.contains("connect-src 'self';"));
        assert!(!policy.contains("unsafe"));
    }

    #[tokio::test]
    async fn a_known_version_is_not_sent_again() {
        let first = get("/assets/main.js", header::ACCEPT, "*/*").await;
        let tag = header_of(&first, header::ETAG).to_owned();
        let tags = format!("\"other\", {tag}");
        let again = get("/assets/main.js", header::IF_NONE_MATCH, &tags).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(header_of(&again, header::ETAG), tag);
        let body = again.into_body().collect().await.unwrap().to_bytes();
        assert!(body.is_empty());
    }

    #[tokio::test]
    async fn files_with_a_version_in_their_path_are_kept_for_good() {
        let kept = Files::iter().filter(|path| path.starts_with("vendor/"));
        for path in kept {
            let response = get(&format!("/assets/{path}"), header::ACCEPT, "*/*").await;
            assert!(header_of(&response, header::CACHE_CONTROL).contains("immutable"));
        }
        let own = get("/assets/style.css", header::ACCEPT, "*/*").await;
        assert_eq!(header_of(&own, header::CACHE_CONTROL), "no-cache");
    }

    #[tokio::test]
    async fn everything_a_first_visit_may_load_weighs_less_than_150_kb() {
        let mut bytes = 0;
        for path in Files::iter().filter(|path| !path.contains("LICENSE")) {
            let response = get(&format!("/assets/{path}"), header::ACCEPT_ENCODING, "gzip").await;
            bytes += response.into_body().collect().await.unwrap().to_bytes().len();
        }
        assert!(bytes < 150_000, "{bytes}");
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_is_a_404() {
        for path in ["/assets/nothing.js", "/assets/../Cargo.toml", "/assets/"] {
            let response = get(path, header::ACCEPT, "*/*").await;
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
}

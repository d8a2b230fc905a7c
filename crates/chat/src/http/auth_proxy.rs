//! `/auth/*` and the key set, passed on to `auth`, so that a browser needs one origin only.

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header},
    response::{IntoResponse, Response},
    routing::any,
};
use common::{
    errors::{ApiError, Code},
    http::{ClientIp, RequestId, X_REQUEST_ID},
    otel::{self, Span, SpanKind},
};
use url::Url;

use crate::http::header_list;

/// Longest answer of `auth` that is passed on, in bytes.
const ANSWER_LIMIT: usize = 1024 * 1024;

/// Headers that belong to one connection (RFC 9110, section 7.6.1), or that the client on the way makes itself.
const NOT_PASSED_ON: [HeaderName; 10] = [
    header::CONNECTION,
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Where `auth` is, and how to reach it.
#[derive(Clone, Debug)]
pub struct RemoteAuth {
    pub url: Url,
    pub client: reqwest::Client,
}

/// The routes that are passed on. They cost nothing here: `auth` counts them.
pub fn routes(auth: RemoteAuth) -> Router {
    Router::new()
        .route("/auth/{*rest}", any(pass))
        .route("/.well-known/jwks.json", any(pass))
        .with_state(auth)
}

async fn pass(State(auth): State<RemoteAuth>, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let url = destination(&auth.url, &parts.uri)?;
    // The layers have bounded the body; what went wrong with it is said by them.
    let body = to_bytes(body, usize::MAX)
        .await
        .map_err(|error| common::http::BodyError::answer(&error))?;
    let mut headers = passed_on(&parts.headers);
    headers.remove(FORWARDED_FOR);
    headers.remove(header::FORWARDED);
    if let Some(ClientIp(address)) = parts.extensions.get::<ClientIp>() {
        let address = HeaderValue::from_str(&address.to_string()).map_err(ApiError::internal)?;
        headers.insert(FORWARDED_FOR, address);
    }
    if let Some(RequestId(id)) = parts.extensions.get::<RequestId>() {
        headers.insert(X_REQUEST_ID, HeaderValue::from_str(id).map_err(ApiError::internal)?);
    }
    let is_head = parts.method == Method::HEAD;
    let span = Span::child("auth", SpanKind::Client);
    let sent = span.run(async {
        otel::inject(&mut headers);
        auth.client.request(parts.method, url).headers(headers).body(body).send().await
    });
    let sent = sent.await.map_err(|error| {
        span.fail("unreachable");
        let detail = "The auth service cannot be reached; try again in a moment.";
        ApiError::new(Code::Overloaded, detail).caused_by(error.without_url())
    })?;
    let status = sent.status();
    let mut headers = passed_on(sent.headers());
    // Without a body to count, the length of the one that GET would have is in the header alone.
    if let (true, Some(length)) = (is_head, sent.headers().get(header::CONTENT_LENGTH)) {
        headers.insert(header::CONTENT_LENGTH, length.clone());
    }
    // Our own layers write their own id and security headers.
    headers.remove(X_REQUEST_ID);
    let body = Body::new(http_body_util::Limited::new(reqwest::Body::from(sent), ANSWER_LIMIT));
    Ok((status, headers, body).into_response())
}

/// The same address at `auth`. One that means another once its dots are resolved is none of its.
fn destination(auth: &Url, asked: &Uri) -> Result<Url, ApiError> {
    let path = format!("{}{}", auth.path().trim_end_matches('/'), asked.path());
    let mut url = auth.clone();
    url.set_path(&path);
    if url.path() != path {
        return Err(ApiError::new(Code::NotFound, "There is nothing at this address."));
    }
    url.set_query(asked.query());
    Ok(url)
}

fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<&str> = header_list::members(headers, header::CONNECTION).collect();
    let keep = |name: &HeaderName| {
        !NOT_PASSED_ON.contains(name)
            && !named.iter().any(|hop| hop.eq_ignore_ascii_case(name.as_str()))
    };
    let kept = headers.iter().filter(|(name, _)| keep(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_passed_on_as_it_was_asked_or_not_at_all() {
        let pass = |auth: &str, asked: &str| {
            destination(&auth.parse().unwrap(), &asked.parse().unwrap())
                .map(|url| url.to_string())
                .map_err(|error| error.code)
        };
        for (auth, asked, there) in [
            ("http://auth:9001", "/auth/login?a=b", "http://auth:9001/auth/login?a=b"),
            ("http://auth/base/", "/auth/login", "http://auth/base/auth/login"),
            ("http://auth", "/auth/keys/%2e%2e%2fx", "http://auth/auth/keys/%2e%2e%2fx"),
        ] {
            assert_eq!(pass(auth, asked), Ok(there.to_owned()));
        }
        for asked in [
            "/auth/../metrics",
            "/auth/./login",
            "/auth/%2e%2e/health",
            "/auth/x/%2E./%2e%2E/health",
            "/auth/..",
        ] {
            assert_eq!(pass("http://auth:9001", asked), Err(Code::NotFound), "{asked}");
        }
    }
}

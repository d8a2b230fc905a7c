//! Cross-origin calls: only the configured browser origins may read answers; there are no cookies to send.
//!
//! Written by hand, since `tower_http::cors` answers the preflight of any origin with 200, and adds `Vary` to every
//! answer even where no origin is configured.

use std::io;

use axum::{
    http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header, uri::Authority},
    response::{IntoResponse, Response},
};

use crate::errors::{ApiError, Code};

const ALLOWED_METHODS: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
/// The headers that a page may read: a client that retries must see whether and when it may. `request-id` is Anthropic's name.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "X-Request-Id, request-id, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, X-Should-Retry",
);
/// How long a browser may remember a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

#[derive(Clone, Debug)]
pub(super) struct Cors {
    allowed: Vec<HeaderValue>,
}

impl Cors {
    /// Origins that cannot stand in a header are left out: no browser could send them.
    pub(super) fn new(origins: &[String]) -> Self {
        let allowed = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
        Self { allowed: allowed.collect() }
    }

    pub(super) fn origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if self.allowed.is_empty() {
            return None;
        }
        let origin = headers.get(header::ORIGIN)?;
        self.allowed.iter().find(|allowed| *allowed == origin).cloned()
    }

    /// The answer to a preflight; `None` where the request is anything else.
    pub(super) fn preflight<B>(
        &self,
        request: &Request<B>,
        allowed: Option<&HeaderValue>,
    ) -> Option<Response> {
        let headers = request.headers();
        let is_preflight = request.method() == Method::OPTIONS
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let origin = headers.get(header::ORIGIN).filter(|_| is_preflight)?;
        if allowed.is_none() {
            return Some(refuse(origin).into_response());
        }
        let mut response = StatusCode::NO_CONTENT.into_response();
        let answer = response.headers_mut();
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
        answer.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        if let Some(wanted) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
        Some(response)
    }

    /// Lets an allowed origin read the answer, and keeps caches from giving it to another.
    pub(super) fn mark(&self, answer: &mut HeaderMap, origin: Option<HeaderValue>) {
        if self.allowed.is_empty() {
            return;
        }
        answer.append(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = origin {
            answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
}

/// Names the setting, for the developer who looks at the answer and for the operator who looks at the log.
fn refuse(origin: &HeaderValue) -> ApiError {
    let shown: String = String::from_utf8_lossy(origin.as_bytes()).chars().take(200).collect();
    ApiError::new(
        Code::OriginRefused,
        "Browsers may not call this service from pages of this origin; its operator can add the origin to \
         chat.allowed_origins, and pages call chat, which also forwards /auth.",
    )
    .caused_by(io::Error::other(format!("the origin {shown:?} is not in chat.allowed_origins")))
}

/// Whether an origin is that of the host a request was sent to, whatever the scheme, since TLS is the proxy's. A port may
/// be left out on either side where it is the default of the origin's scheme.
pub fn is_same_origin(origin: &str, host: &str) -> bool {
    let Ok(origin) = origin.parse::<Uri>() else { return false };
    let default_port = match origin.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return false,
    };
    let (Some(own), Ok(host)) = (origin.authority(), host.parse::<Authority>()) else {
        return false;
    };
    own.host().eq_ignore_ascii_case(host.host())
        && own.port_u16().unwrap_or(default_port) == host.port_u16().unwrap_or(default_port)
}

#[cfg(test)]
mod tests {
    use super::is_same_origin;

    #[test]
    fn an_origin_is_ours_with_or_without_the_default_port() {
        for (origin, host) in [
            ("https://name", "name"),
            ("https://name", "name:443"),
            ("https://name:443", "NAME"),
            ("http://name", "name:80"),
            ("http://name:9002", "name:9002"),
            ("https://[::1]:9002", "[::1]:9002"),
        ] {
            assert!(is_same_origin(origin, host), "{origin} {host}");
        }
        for (origin, host) in [
            ("https://name", "name:80"),
            ("https://name", "name:9002"),
            ("http://name:9002", "name"),
            ("https://other", "name"),
            ("https://name.evil.example", "name"),
            ("app://name", "name"),
            ("null", "name"),
            ("name", "name"),
            ("https://", ""),
        ] {
            assert!(!is_same_origin(origin, host), "{origin} {host}");
        }
    }
}

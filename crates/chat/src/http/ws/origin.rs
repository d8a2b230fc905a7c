//! Which pages may open a socket: a browser sends its page's origin, and cannot be made to send another.

use axum::http::{HeaderMap, header};
use common::{
    errors::{ApiError, Code},
    http::is_same_origin,
};

/// Passes a request without `Origin` (no browser's), one from our own authority, and those allowed.
pub fn check(headers: &HeaderMap, allowed: &[String]) -> Result<(), ApiError> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let is_own = is_same_origin(origin, host);
    let is_allowed = allowed.iter().any(|allowed| allowed == origin);
    if origins.next().is_none() && (is_own || is_allowed) {
        return Ok(());
    }
    let detail = "Pages of this origin may not open a socket here; the operator can add it to chat.allowed_origins.";
    Err(ApiError::new(Code::OriginRefused, detail))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn passes(origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("chat.example:9002"));
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).expect("a header value"));
        }
        check(&headers, &["https://app.example".to_owned()]).is_ok()
    }

    #[test]
    fn only_our_own_and_allowed_origins_pass() {
        for good in [
            None,
            Some("http://chat.example:9002"),
            Some("https://CHAT.example:9002"),
            Some("https://app.example"),
        ] {
            assert!(passes(good), "{good:?}");
        }
        for bad in [
            "null",
            "",
            "https://chat.example",
            "https://chat.example:9002.evil.com",
            "https://app.example.evil.com",
            "http://app.example",
            "https://app.example:8443",
            "https://APP.example",
            "chat.example:9002",
        ] {
            assert!(!passes(Some(bad)), "{bad}");
        }
    }
}

//! The id of a request, in its answer, in the logs and in problem documents.
//!
//! Not `tower_http::request_id`, which takes over any id that a caller sends: ours go into the log.

use std::{convert::Infallible, sync::Arc};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, request::Parts},
};
use uuid::Uuid;

pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const MAX_LENGTH: usize = 64;

/// A request's id: the caller's own, if it is 1 to 64 of `A-Z a-z 0-9 -`, else a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub Arc<str>);

impl RequestId {
    pub fn random() -> Self {
        let mut buffer = Uuid::encode_buffer();
        Self(Arc::from(&*Uuid::new_v4().hyphenated().encode_lower(&mut buffer)))
    }

    /// The caller's id, or a new one where the caller sent none that is allowed.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(X_REQUEST_ID).iter();
        match (values.next().and_then(|value| value.to_str().ok()), values.next()) {
            (Some(text), None) if is_allowed(text) => Self(text.into()),
            _ => Self::random(),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn header_value(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_else(Self::random))
    }
}

fn is_allowed(text: &str) -> bool {
    (1..=MAX_LENGTH).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> RequestId {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(X_REQUEST_ID, HeaderValue::from_str(value).unwrap());
        }
        RequestId::of(&headers)
    }

    #[test]
    fn an_allowed_id_is_kept_and_any_other_replaced() {
        assert_eq!(of(&["abc-DEF-123"]).as_str(), "abc-DEF-123");
        let longest = "x".repeat(64);
        assert_eq!(of(&[&longest]).as_str(), longest);
        for refused in ["", "a b", "a_b", "ä", &"x".repeat(65)] {
            assert_ne!(of(&[refused]).as_str(), refused);
            assert_eq!(of(&[refused]).as_str().len(), 36);
        }
        assert_eq!(of(&["a", "b"]).as_str().len(), 36, "two ids are none");
    }
}

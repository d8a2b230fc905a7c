//! What the fuzz targets in `fuzz/` call; built for them alone.

use axum::http::{HeaderMap, HeaderValue, header::AUTHORIZATION};

use super::{TokenRules, bearer, token};

/// Takes the bytes for an `Authorization` header, for the token in it, and for the claims of a token of ours.
pub fn credential(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(bytes) {
        headers.insert(AUTHORIZATION, value);
    }
    if let Ok(text) = bearer(&headers) {
        let _ = token::parse(text);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = token::parse(text);
    }
    let expected = TokenRules { issuer: "chatbot".to_owned(), audience: "chatbot".to_owned() };
    if let Ok(claims) = token::parse_claims(bytes)
        && let Ok((_, _, validity)) = claims.check(&expected)
    {
        let _ = validity.check(1_700_000_000);
    }
}

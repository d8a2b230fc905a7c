//! What the fuzz targets in `fuzz/` call; built for them alone.

use axum::http::{HeaderMap, HeaderValue, header::AUTHORIZATION};

use super::{Verifier, bearer, token};

/// Takes the bytes for an `Authorization` header, for the token in it, and for the claims of a token of ours.
pub fn credential(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(bytes) {
        headers.insert(AUTHORIZATION, value);
    }
    if let Ok(text) = bearer(&headers) {
        let _ = token::open(text);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = token::open(text);
    }
    let expected = Verifier {
        issuer: "chatbot".to_owned(),
        audience: "chatbot".to_owned(),
    };
    let _ = token::claims(bytes).and_then(|claims| claims.check(&expected, 1_700_000_000));
}

//! The HTTP side of identity: reads the credential of a request, and hands [`Identity`] to handlers.
//!
//! The middleware [`identify`] never refuses: it stores an [`Identity`] or the reason why there is none, so that the rate
//! limit inside it counts everybody; the extractor then refuses. A credential is read from the one `Authorization` header,
//! or under `/v1/` from `x-api-key`, and from nowhere else.

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts, Request, State},
    middleware::Next,
    response::Response,
};
use http::{
    HeaderMap, HeaderValue,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
    request::Parts,
};

use super::{Authenticator, Identity, IdentityError};
use crate::{
    errors::{ApiError, Code},
    http::Deadline,
    otel::{Span, SpanKind},
};

/// Why a request has no identity: an extension that [`identify`] leaves.
#[derive(Clone, Debug)]
pub struct Unidentified(pub ApiError);

/// The credential of a request.
///
/// # Errors
/// 401 `missing_token` where there is none, or one of another scheme; 401 `invalid_token` for what cannot be a token;
/// 400 `invalid_request` for more than one.
pub fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or_else(missing)?;
    if values.next().is_some() || value.as_bytes().contains(&b',') {
        let detail = "Send one Authorization header with one token.";
        return Err(ApiError::new(Code::InvalidRequest, detail));
    }
    let malformed = || {
        ApiError::new(Code::InvalidToken, "The header must read `Authorization: Bearer <token>`.")
    };
    let value = value.to_str().map_err(|_| malformed())?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    let plain = !token.is_empty() && token.bytes().all(|c| c.is_ascii_graphic());
    if plain { Ok(token) } else { Err(malformed()) }
}

/// Stores the caller's [`Identity`], or [`Unidentified`], in the request's extensions.
pub async fn identify(
    State(authenticator): State<Authenticator>,
    mut request: Request,
    next: Next,
) -> Response {
    let Deadline(mut deadline) = Deadline::of(request.extensions());
    let found = match credential(&request) {
        Ok(token) => {
            let authenticated = authenticator.authenticate(token, &mut deadline);
            let span = Span::child("authenticate", SpanKind::Internal);
            span.run(authenticated).await.map_err(ApiError::from)
        }
        Err(refusal) => Err(refusal),
    };
    let extensions = request.extensions_mut();
    extensions.insert(Deadline(deadline));
    match found {
        Ok(identity) => drop(extensions.insert(identity)),
        Err(refusal) => drop(extensions.insert(Unidentified(refusal))),
    }
    next.run(request).await
}

/// The credential of a request; for the APIs under `/v1/` also from `x-api-key`, where there is no `Authorization`.
fn credential(request: &Request) -> Result<&str, ApiError> {
    let headers = request.headers();
    let has_bearer = headers.contains_key(AUTHORIZATION);
    match headers.get("x-api-key") {
        Some(key) if !has_bearer && request.uri().path().starts_with("/v1/") => {
            let key = key.to_str().unwrap_or_default();
            let is_plain = !key.is_empty() && key.bytes().all(|c| c.is_ascii_graphic());
            is_plain.then_some(key).ok_or_else(|| {
                ApiError::new(Code::InvalidToken, "The header must read `x-api-key: <key>`.")
            })
        }
        _ => bearer(headers),
    }
}

impl From<IdentityError> for ApiError {
    fn from(error: IdentityError) -> Self {
        let challenge = |code: Code, detail: &str| {
            let value = HeaderValue::from_static("Bearer error=\"invalid_token\"");
            ApiError::new(code, detail).header(WWW_AUTHENTICATE, value)
        };
        match error {
            IdentityError::Expired => {
                challenge(Code::TokenExpired, "The token has expired: refresh it, or log in again.")
            }
            IdentityError::Invalid(_) => {
                challenge(Code::InvalidToken, "The token is not valid: log in for a new one.")
                    .caused_by(error)
            }
            IdentityError::Revoked => {
                challenge(Code::TokenRevoked, "The token has been revoked: log in again.")
            }
            IdentityError::PasswordRequired => ApiError::new(
                Code::PasswordRequired,
                "This account has a password: log in and send its token.",
            ),
            IdentityError::LoginNotOpen => missing(),
            IdentityError::NoKeys => ApiError::new(
                Code::StoreUnavailable,
                "The signing keys could not be fetched; try again in a moment.",
            ),
            IdentityError::Store(error) => error.into(),
        }
    }
}

fn missing() -> ApiError {
    let detail = "Send an access token or an API key: `Authorization: Bearer <token>`.";
    ApiError::new(Code::MissingToken, detail)
}

fn found(parts: &Parts) -> Result<Identity, ApiError> {
    if let Some(identity) = parts.extensions.get::<Identity>() {
        return Ok(identity.clone());
    }
    Err(parts.extensions.get::<Unidentified>().map_or_else(missing, |why| why.0.clone()))
}

impl<S: Send + Sync> FromRequestParts<S> for Identity {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        found(parts)
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for Identity {
    type Rejection = ApiError;

    /// `None` only where no credential was sent; one that was sent must be good.
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, ApiError> {
        match found(parts) {
            Ok(identity) => Ok(Some(identity)),
            Err(refusal) if refusal.code == Code::MissingToken => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(values: &[&'static str]) -> Result<String, Code> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, http::HeaderValue::from_static(value));
        }
        bearer(&headers).map(str::to_owned).map_err(|error| error.code)
    }

    #[test]
    fn one_header_with_one_space_and_one_token_is_taken() {
        for good in ["Bearer abc", "bearer abc", "BEARER abc"] {
            assert_eq!(code(&[good]), Ok("abc".into()));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!(code(&[]), Err(Code::MissingToken));
        assert_eq!(code(&["Basic abc"]), Err(Code::MissingToken));
        assert_eq!(code(&["Bearerabc"]), Err(Code::MissingToken));
        for bad in ["Bearer", "Bearer ", "Bearer  abc", "Bearer a b", "Bearer\tabc", "Bearer a\tb"]
        {
            assert!(
                matches!(code(&[bad]), Err(Code::InvalidToken | Code::MissingToken)),
                "{bad:?}"
            );
        }
        assert_eq!(code(&["Bearer a", "Bearer b"]), Err(Code::InvalidRequest));
        assert_eq!(code(&["Bearer a, Bearer b"]), Err(Code::InvalidRequest));
        assert_eq!(code(&["Bearer a,"]), Err(Code::InvalidRequest));
    }
}

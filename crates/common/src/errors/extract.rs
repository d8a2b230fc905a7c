//! Extractors for JSON bodies, query strings and path segments, which refuse with an [`ApiError`].

use axum::{
    body::{Body as HttpBody, Bytes},
    extract::{FromRequest, FromRequestParts, Path as AxumPath, Request},
    http::{HeaderMap, header, request::Parts},
};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use super::{ApiError, Code, json, query};
use crate::http::BodyError;

/// A JSON body, which must be there.
///
/// Refuses with `unsupported_media_type` for anything but plain `application/json` in UTF-8, `payload_too_large` and
/// `request_timeout` for the limits of the layers, `invalid_json`, and `validation_failed` with a pointer.
#[derive(Clone, Copy, Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        expect_json(&parts.headers)?;
        json::parse(&read(body).await?).map(Self)
    }
}

/// A JSON body that may be missing, whatever its `Content-Type` says (some clients name one for nothing at all): then the
/// default. Refuses as [`Body`] does.
#[derive(Clone, Copy, Debug)]
pub struct OptionalBody<T>(pub T);

impl<T: DeserializeOwned + Default, S: Sync> FromRequest<S> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let named = expect_json(&parts.headers);
        let bytes = read(body).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        named?;
        json::parse(&bytes).map(Self)
    }
}

/// The query string. A parameter may come once; flags are `true` or `false` (else `invalid_request`); unknown names and
/// wrong values are `validation_failed` with `/query/<name>`.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        query::parse(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// The named segments of the path. What cannot be one is `not_found`: nothing is there.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match AxumPath::from_request_parts(parts, state).await {
            Ok(AxumPath(value)) => Ok(Self(value)),
            Err(_) => Err(ApiError::new(Code::NotFound, "There is nothing at this address.")),
        }
    }
}

async fn read(body: HttpBody) -> Result<Bytes, ApiError> {
    let collected = body.collect().await.map_err(|error| BodyError::answer(&error))?;
    Ok(collected.to_bytes())
}

/// Lets pass a body with no coding to be taken off.
pub fn expect_no_coding(headers: &HeaderMap) -> Result<(), ApiError> {
    let is_coded =
        |coding: &header::HeaderValue| !coding.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(header::CONTENT_ENCODING).iter().any(is_coded) {
        let detail = "Send the body as it is, without a Content-Encoding.";
        return Err(ApiError::new(Code::UnsupportedMediaType, detail));
    }
    Ok(())
}

/// The same for exactly one `Content-Type: application/json`, with no `charset` but UTF-8.
pub fn expect_json(headers: &HeaderMap) -> Result<(), ApiError> {
    expect_no_coding(headers)?;
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
    let is_json = match (kinds.next().and_then(|kind| kind.to_str().ok()), kinds.next()) {
        (Some(kind), None) => is_json(kind),
        _ => false,
    };
    if is_json {
        return Ok(());
    }
    Err(ApiError::new(Code::UnsupportedMediaType, "Send the body as application/json in UTF-8."))
}

fn is_json(kind: &str) -> bool {
    let mut parts = kind.split(';').map(str::trim);
    parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"))
        && parts.filter(|parameter| !parameter.is_empty()).all(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            !name.trim().eq_ignore_ascii_case("charset")
                || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_in_utf_8_is_json() {
        for kind in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
            "application/json; profile=x",
            "application/json;",
        ] {
            assert!(is_json(kind), "{kind}");
        }
        for kind in [
            "",
            "text/plain",
            "application/jsonx",
            "application/json; charset=utf-16",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/problem+json",
            "application/json, text/plain",
        ] {
            assert!(!is_json(kind), "{kind}");
        }
    }
}

//! The caller, refused as Ollama's clients expect it.

use axum::{
    extract::FromRequestParts,
    http::{header::AUTHORIZATION, request::Parts},
};
use common::{
    errors::{ApiError, Code},
    identity::Identity,
};

const NO_KEY: &str = "This server needs an API key in the header `Authorization: Bearer <key>`. Set OLLAMA_API_KEY for ollama-python, `headers` for ollama-js. The `ollama` command line sends no key: let it go through a proxy that adds the header.";

const SIGNED: &str = "This server does not know the signatures of OLLAMA_AUTH. Unset it, and let the `ollama` command line go through a proxy that adds the header `Authorization: Bearer <key>`.";

/// The caller. Without a key it is refused with 403: at a 401 the command line talks of signing in to ollama.com, and does
/// not show what the error says.
#[derive(Clone, Debug)]
pub struct Caller(pub Identity);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let identity = <Identity as FromRequestParts<S>>::from_request_parts(parts, state).await;
        identity.map(Self).map_err(|error| match error.code {
            // The command line's own form: its public key, a colon, a signature.
            Code::MissingToken if parts.headers.contains_key(AUTHORIZATION) => {
                ApiError::new(Code::Forbidden, SIGNED)
            }
            Code::MissingToken => ApiError::new(Code::Forbidden, NO_KEY),
            _ => error,
        })
    }
}

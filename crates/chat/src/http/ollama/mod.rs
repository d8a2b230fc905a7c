//! Ollama's own API under `/api`, behind accounts: what its clients send, and what they need in return.
//!
//! Clients read no codes: only the status, and the text under `error`.

pub mod any_case;
pub mod generate;
pub mod models;
pub mod request;
mod response;

use std::sync::Arc;

use axum::{
    Router,
    extract::FromRequestParts,
    http::{HeaderValue, StatusCode, header::AUTHORIZATION, request::Parts},
    routing::{any, get, post},
};
use common::{
    errors::{ApiError, Code, FieldError, Problem},
    http::{ErrorShape, ShapedError},
    identity::Identity,
};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::{
    domain::base64::is_base64,
    http::{embeddings, inference::errors::renamed},
    state::AppState,
};

/// Names of members, ours and this API's, where they differ; a message is in `messages` or in `prompt`, and needs no name.
const NAMES: &[(&str, &str)] =
    &[("/message", ""), ("/options/think", "/think"), ("/response_format", "/format")];

/// Calls that change what an Ollama holds, or whose it is.
const MANAGEMENT: [&str; 9] = [
    "/api/pull",
    "/api/push",
    "/api/create",
    "/api/copy",
    "/api/delete",
    "/api/blobs/{digest}",
    "/api/me",
    "/api/signout",
    "/api/user/keys/{key}",
];

/// An error as Ollama's clients read it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorText {
    /// What happened and what to do.
    error: String,
}

pub fn routes() -> Router<Arc<AppState>> {
    let routes = Router::new()
        .route("/api/chat", post(generate::chat))
        .route("/api/generate", post(generate::generate))
        .route("/api/embed", post(embeddings::ollama::embed))
        .route("/api/embeddings", post(embeddings::ollama::embed_one))
        .route("/api/tags", get(models::tags))
        .route("/api/ps", get(models::loaded))
        .route("/api/show", post(models::show))
        .route("/api/version", get(models::version));
    MANAGEMENT.into_iter().fold(routes, |routes, path| routes.route(path, any(refuse)))
}

async fn refuse() -> ApiError {
    let detail =
        "Models are managed by the operator of this service; they cannot be changed from here.";
    ApiError::new(Code::Forbidden, detail)
}

/// The shape of every error under `/api`.
pub fn error_shape() -> ErrorShape {
    Arc::new(|path: &str, problem: &Problem| {
        path.starts_with("/api/").then(|| ShapedError {
            // Ollama has no other status for a body that is wrong.
            status: (problem.code == Code::ValidationFailed).then_some(StatusCode::BAD_REQUEST),
            body: json!(ErrorText::new(&problem.detail, &problem.errors)),
        })
    })
}

impl ErrorText {
    /// The text, with the member that is wrong.
    fn new(detail: &str, errors: &[FieldError]) -> Self {
        let wrong = errors.first().map(|wrong| (renamed(&wrong.pointer, NAMES), &wrong.detail));
        let error = match wrong {
            Some((pointer, detail)) if !pointer.is_empty() => {
                let name = pointer.trim_start_matches('/').replace('/', ".");
                format!("{name}: {detail}")
            }
            _ => detail.to_owned(),
        };
        Self { error }
    }
}

const NO_KEY: &str = "This server needs an API key in the header `Authorization: Bearer <key>`. Set OLLAMA_API_KEY for ollama-python, `headers` for ollama-js. The `ollama` command line sends no key: let it go through a proxy that adds the header.";

const SIGNED: &str = "This server does not know the signatures of OLLAMA_AUTH. Unset it, and let the `ollama` command line go through a proxy that adds the header `Authorization: Bearer <key>`.";

/// True for the command line's own form: its public key in base64, a colon, a signature in base64.
fn is_signature(value: &[u8]) -> bool {
    let signed = str::from_utf8(value).ok().and_then(|value| value.split_once(':'));
    signed.is_some_and(|(key, signature)| is_base64(key) && is_base64(signature))
}

/// The caller. Without a key it is refused with 403: at a 401 the command line talks of signing in to ollama.com, and does
/// not show what the error says.
#[derive(Clone, Debug)]
pub struct Caller(pub Identity);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let identity = <Identity as FromRequestParts<S>>::from_request_parts(parts, state).await;
        identity.map(Self).map_err(|error| match error.code {
            Code::MissingToken => match parts.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes)
            {
                None | Some(b"") => ApiError::new(Code::Forbidden, NO_KEY),
                Some(value) if is_signature(value) => ApiError::new(Code::Forbidden, SIGNED),
                Some(_) => error,
            },
            _ => error,
        })
    }
}

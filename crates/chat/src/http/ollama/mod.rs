//! Ollama's own API under `/api`, behind accounts: what its clients send, and what they need in return.
//!
//! Clients read no codes: only the status, and the text under `error`.

pub mod caller;
pub mod generate;
pub mod models;
pub mod request;
mod response;

use std::sync::Arc;

use axum::{http::StatusCode, routing::any};
use common::{
    errors::{ApiError, Code, FieldError, Problem},
    http::{ErrorShape, ShapedError},
};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{http::embeddings, state::AppState};

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

pub fn routes() -> OpenApiRouter<Arc<AppState>> {
    let routes = OpenApiRouter::new()
        .routes(routes!(generate::chat))
        .routes(routes!(generate::generate))
        .routes(routes!(embeddings::ollama::embed))
        .routes(routes!(embeddings::ollama::embed_one))
        .routes(routes!(models::tags))
        .routes(routes!(models::loaded))
        .routes(routes!(models::show))
        .routes(routes!(models::version));
    MANAGEMENT.into_iter().fold(routes, |routes, path| routes.route(path, any(refuse)))
}

async fn refuse() -> ApiError {
    ApiError::new(
        Code::Forbidden,
        "Models are managed by the operator of this service; they cannot be changed from here.",
    )
}

/// The shape of every error under `/api`.
pub fn error_shape() -> ErrorShape {
    Arc::new(|path: &str, problem: &Problem| {
        path.starts_with("/api/").then(|| ShapedError {
            // Ollama has no other status for a request that is wrong.
            status: (problem.status == 422).then_some(StatusCode::BAD_REQUEST),
            body: json!(ErrorText::new(&problem.detail, &problem.errors)),
        })
    })
}

impl ErrorText {
    /// The text, with the member that is wrong.
    fn new(detail: &str, errors: &[FieldError]) -> Self {
        let error = match errors.first() {
            Some(FieldError { pointer, detail }) if !pointer.is_empty() => {
                let name = pointer.trim_start_matches('/').replace('/', ".");
                format!("{name}: {detail}")
            }
            _ => detail.to_owned(),
        };
        Self { error }
    }
}

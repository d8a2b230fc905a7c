//! The routes of the service, and their OpenAPI document.

use std::sync::Arc;

use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
};
use common::{
    http::{add_bearer, operations},
    identity::identify,
    rate_limiter::{limit, limit_by_handler},
};
use utoipa::{OpenApi, openapi::security::SecurityRequirement};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    http::{
        anthropic, event_schema, export, messages, models, ollama, openai, sessions, usage,
        v1_models, ws,
    },
    state::AppState,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Chat",
        description = "Messages, sessions, streams and models.\n\nEvery call takes a token: `POST /auth/login` on this address with `{\"user_id\": \"alice\"}` (and a `password`, where login is not open) answers with an `access_token`. On this page it goes into *Authorize*.",
    ),
    components(schemas(
        common::errors::Problem,
        common::errors::Code,
        event_schema::ServerFrame,
        ws::frames::MessageFrame,
        ws::frames::CancelFrame,
        ws::frames::ResumeFrame,
        ws::frames::AuthFrame,
    ))
)]
struct Document;

/// All routes that ask for an identity, by how the rate limit counts them. `ollama_api`: whether Ollama's API is served.
struct Routes {
    /// Those that start a turn: counted as the turn is accepted, in one step.
    turns: OpenApiRouter<Arc<AppState>>,
    /// Counted before their handler runs.
    others: OpenApiRouter<Arc<AppState>>,
    /// Counted in a bucket of their own.
    token_counts: OpenApiRouter<Arc<AppState>>,
}

impl Routes {
    fn new(ollama_api: bool) -> Self {
        let turns = OpenApiRouter::new()
            .routes(routes!(messages::send))
            .routes(routes!(messages::regenerate));
        let others = OpenApiRouter::new()
            .routes(routes!(messages::stream))
            .routes(routes!(messages::cancel))
            .routes(routes!(sessions::list, sessions::create))
            .routes(routes!(sessions::read, sessions::change, sessions::delete))
            .routes(routes!(sessions::messages))
            .routes(routes!(export::export))
            .routes(routes!(models::list))
            .routes(routes!(usage::read))
            .routes(routes!(ws::connect))
            .merge(openai::routes())
            .merge(v1_models::routes())
            .merge(anthropic::routes());
        let others = if ollama_api { others.merge(ollama::routes()) } else { others };
        Self { turns, others, token_counts: anthropic::count_routes() }
    }
}

pub fn document() -> utoipa::openapi::OpenApi {
    let Routes { turns, others, token_counts } = Routes::new(true);
    let mut document = OpenApiRouter::with_openapi(Document::openapi())
        .merge(turns)
        .merge(others)
        .merge(token_counts)
        .into_openapi();
    let bearer = "An access token or an API key of the auth service.";
    add_bearer(&mut document, Some(bearer));
    // Every call takes one; a socket may also open without it.
    for operation in operations(&mut document) {
        let bearer = SecurityRequirement::new("bearer", Vec::<String>::new());
        operation.security.get_or_insert_with(|| vec![bearer]);
    }
    document
}

/// Identity comes first, then the rate limit, which counts every request, whatever its handler makes of it.
pub fn build(state: &Arc<AppState>, ollama_api: bool) -> Router {
    let Routes { turns, others, token_counts } = Routes::new(ollama_api);
    let limiter = || state.limiter.clone();
    let turns = Router::from(turns).layer(from_fn_with_state(limiter(), limit_by_handler));
    let others = Router::from(others).layer(from_fn_with_state(limiter(), limit));
    let count_limiter = state.count_limiter.clone();
    let token_counts = Router::from(token_counts).layer(from_fn_with_state(count_limiter, limit));
    turns
        .merge(others)
        .merge(token_counts)
        .layer(from_fn(anthropic::mark))
        .layer(from_fn_with_state(state.authenticator.clone(), identify))
        .with_state(Arc::clone(state))
}

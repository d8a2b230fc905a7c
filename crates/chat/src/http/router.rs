//! The routes of the service, and their OpenAPI document.

use std::sync::Arc;

use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
    routing::{get, post},
};
use common::{
    http::{add_bearer, operations},
    identity::identify,
    rate_limiter::{limit, limit_by_handler},
};
use utoipa::{
    OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, SecurityRequirement, SecurityScheme},
};

use crate::{
    http::{
        anthropic, embeddings, event_schema, export, messages, models, ollama, openai, sessions,
        usage, v1_models, ws,
    },
    state::AppState,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Chat",
        description = "Messages, sessions, streams and models.\n\nEvery call takes a token: `POST /auth/login` on this address with `{\"user_id\": \"alice\"}` (and a `password`, where login is not open) answers with an `access_token`. On this page it goes into *Authorize*.",
    ),
    paths(
        messages::send,
        messages::regenerate,
        messages::stream,
        messages::cancel,
        sessions::list,
        sessions::create,
        sessions::read,
        sessions::change,
        sessions::delete,
        sessions::messages,
        export::export,
        models::list,
        usage::read,
        ws::connect,
        openai::chat_completions::complete,
        openai::responses::create,
        embeddings::openai::create,
        v1_models::list,
        v1_models::read,
        anthropic::messages::create,
        anthropic::messages::count_tokens,
        ollama::generate::chat,
        ollama::generate::generate,
        embeddings::ollama::embed,
        embeddings::ollama::embed_one,
        ollama::models::tags,
        ollama::models::loaded,
        ollama::models::show,
        ollama::models::version,
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

/// Those that start a turn: the rate limit counts them as the turn is accepted, in one step.
fn turn_routes() -> Router<Arc<AppState>> {
    Router::new()
        .route("/chat/message", post(messages::send))
        .route("/chat/sessions/{session_id}/regenerate", post(messages::regenerate))
}

/// Those that the rate limit counts before their handler runs. `ollama_api`: whether Ollama's API is served.
fn other_routes(ollama_api: bool) -> Router<Arc<AppState>> {
    let session = get(sessions::read).patch(sessions::change).delete(sessions::delete);
    let routes = Router::new()
        .route("/chat/messages/{message_id}/stream", get(messages::stream))
        .route("/chat/messages/{message_id}/cancel", post(messages::cancel))
        .route("/chat/sessions", get(sessions::list).post(sessions::create))
        .route("/chat/sessions/{session_id}", session)
        .route("/chat/sessions/{session_id}/messages", get(sessions::messages))
        .route("/chat/sessions/{session_id}/export", get(export::export))
        .route("/chat/models", get(models::list))
        .route("/chat/usage", get(usage::read))
        .route("/chat/ws", get(ws::connect))
        .merge(openai::routes());
    if ollama_api { routes.merge(ollama::routes()) } else { routes }
}

pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    let bearer = "An access token or an API key of the auth service.";
    add_bearer(&mut document, Some(bearer));
    let key = ApiKeyValue::with_description("x-api-key", "As Anthropic's clients send it.");
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("x-api-key", SecurityScheme::ApiKey(ApiKey::Header(key)));
    // Every call takes one; a socket may also open without it.
    for (path, operation) in operations(&mut document) {
        let by = |scheme: &str| SecurityRequirement::new(scheme, Vec::<String>::new());
        let security = operation.security.get_or_insert_with(|| vec![by("bearer")]);
        if path.starts_with("/v1/") {
            security.push(by("x-api-key"));
        }
    }
    document
}

/// Identity comes first, then the rate limit, which counts every request, whatever its handler makes of it.
pub fn build(state: &Arc<AppState>, ollama_api: bool) -> Router {
    let limiter = || state.limiter.clone();
    let count_limiter = state.count_limiter.clone();
    let for_anthropic_clients = anthropic::routes()
        .merge(v1_models::routes())
        .layer(from_fn_with_state(limiter(), limit))
        .merge(anthropic::count_routes().layer(from_fn_with_state(count_limiter, limit)))
        .layer(from_fn(anthropic::mark));
    turn_routes()
        .layer(from_fn_with_state(limiter(), limit_by_handler))
        .merge(other_routes(ollama_api).layer(from_fn_with_state(limiter(), limit)))
        .merge(for_anthropic_clients)
        .layer(from_fn_with_state(state.authenticator.clone(), identify))
        .with_state(Arc::clone(state))
}

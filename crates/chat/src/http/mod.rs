//! The doors of the chat service: each handler parses, asks the service, and answers.

pub mod auth_proxy;
pub mod collect;
pub mod encode;
pub mod error;
pub mod export;
pub mod messages;
pub mod models;
pub mod openai;
pub mod requests;
pub mod session_dto;
pub mod sessions;
pub mod sse;
pub mod usage;
pub mod validation;
pub mod web_ui;
pub mod ws;

use std::{ops::Deref, sync::Arc, time::Duration};

use axum::{Router, middleware::from_fn_with_state};
use common::{
    identity::{Authenticator, identify},
    rate_limiter::{RateLimiter, limit, limit_by_handler},
    shutdown::Shutdown,
};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    generation::stateless::CompletionService, llm::LlmService, sessions::SessionService,
    turns::service::TurnService, usage::UsageService,
};

/// What the handlers need. Cheap to clone: each request does.
#[derive(Clone)]
pub struct App(Arc<Parts>);

impl App {
    /// The handlers' state.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// What an [`App`] holds.
pub struct Parts {
    pub turns: TurnService,
    pub completions: CompletionService,
    pub sessions: SessionService,
    pub usage: UsageService,
    /// The model servers.
    pub llm: LlmService,
    /// Who calls.
    pub authenticator: Authenticator,
    /// How often they may.
    pub limiter: RateLimiter,
    /// How long a streamed turn goes on when nobody watches it.
    pub disconnect_grace: Duration,
    /// The quota, for the usage call.
    pub tokens_per_day: Option<u64>,
    /// Browser origins beside our own.
    pub allowed_origins: Arc<[String]>,
    /// The open sockets of each user.
    pub sockets: ws::Sockets,
    /// When to stop.
    pub shutdown: Shutdown,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Chat", description = "Messages, sessions, streams and models."),
    components(schemas(common::errors::Problem, common::errors::Code)),
    modifiers(&BearerToken),
)]
struct Document;

/// The scheme that `security(("bearer" = []))` names.
struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An access token or an API key of the auth service."))
            .build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    }
}

/// What begins a turn: counted by the rate limit as the turn is accepted, in one step.
fn turns() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(messages::send))
        .routes(routes!(messages::regenerate))
}

/// Everything else with an identity.
fn others() -> OpenApiRouter<App> {
    OpenApiRouter::new()
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
}

/// The description of every call.
pub fn document() -> utoipa::openapi::OpenApi {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(turns())
        .merge(others())
        .into_openapi()
}

/// Identity first, then the rate limit, which counts everybody, whatever a handler makes of the request.
pub fn router(app: &App) -> Router {
    let limiter = || app.limiter.clone();
    let turns = Router::from(turns()).layer(from_fn_with_state(limiter(), limit_by_handler));
    let others = Router::from(others()).layer(from_fn_with_state(limiter(), limit));
    turns
        .merge(others)
        .layer(from_fn_with_state(app.authenticator.clone(), identify))
        .with_state(app.clone())
}

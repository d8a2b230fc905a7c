//! The routes of the service, and their OpenAPI document.

use std::sync::Arc;

use axum::{Router, middleware::from_fn_with_state};
use common::{
    identity::identify,
    rate_limiter::{limit, limit_by_handler},
};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    http::{export, messages, models, openai, sessions, usage, ws},
    state::AppState,
};

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

/// Routes that start a turn: the rate limit counts them as the turn is accepted, in one step.
fn turn_routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::new()
        .routes(routes!(messages::send))
        .routes(routes!(messages::regenerate))
}

/// All other routes with an identity.
fn other_routes() -> OpenApiRouter<Arc<AppState>> {
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

/// The OpenAPI document of all routes.
pub fn document() -> utoipa::openapi::OpenApi {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(turn_routes())
        .merge(other_routes())
        .into_openapi()
}

/// Identity comes first, then the rate limit, which counts every request, whatever its handler makes of it.
pub fn build(state: &Arc<AppState>) -> Router {
    let limiter = || state.limiter.clone();
    let turns = Router::from(turn_routes()).layer(from_fn_with_state(limiter(), limit_by_handler));
    let others = Router::from(other_routes()).layer(from_fn_with_state(limiter(), limit));
    turns
        .merge(others)
        .layer(from_fn_with_state(state.authenticator.clone(), identify))
        .with_state(Arc::clone(state))
}

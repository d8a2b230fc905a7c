//! The doors of `auth`: one file a group of calls, one line a route.

mod account;
mod errors;
mod jwks;
mod keys;
mod login;
mod measured;
mod validate;

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderValue, header::CACHE_CONTROL},
    middleware::map_response,
    response::Response,
};
use common::http::complete_openapi;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) use self::measured::describe;
use crate::service::Accounts;

/// The head of the OpenAPI document.
#[derive(OpenApi)]
#[openapi(
    info(title = "Auth", description = "Accounts, tokens and API keys."),
    components(schemas(common::errors::Problem, common::errors::Code)),
    modifiers(&Bearer)
)]
struct Document;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// The calls that identify their caller and are limited.
pub fn limited(accounts: Arc<Accounts>) -> Router {
    Router::from(identified())
        .layer(map_response(no_store))
        .with_state(accounts)
}

/// The calls that cost nothing.
pub fn published(accounts: Arc<Accounts>) -> Router {
    Router::from(free()).with_state(accounts)
}

/// The description of every call.
pub fn document() -> utoipa::openapi::OpenApi {
    let document = OpenApiRouter::with_openapi(Document::openapi())
        .merge(identified())
        .merge(free())
        .into_openapi();
    complete_openapi(document)
}

fn identified() -> OpenApiRouter<Arc<Accounts>> {
    OpenApiRouter::new()
        .routes(routes!(login::login))
        .routes(routes!(login::refresh))
        .routes(routes!(login::logout))
        .routes(routes!(account::register))
        .routes(routes!(account::change_password))
        .routes(routes!(account::delete_account))
        .routes(routes!(keys::make_key, keys::list_keys))
        .routes(routes!(keys::revoke_key))
        .routes(routes!(validate::validate))
}

fn free() -> OpenApiRouter<Arc<Accounts>> {
    OpenApiRouter::new().routes(routes!(jwks::jwks))
}

/// Nothing that is said about accounts is kept by anybody in between.
async fn no_store(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

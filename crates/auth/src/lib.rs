//! The `auth` service: accounts, logins, tokens and API keys.
//!
//! `api` parses and answers, `service` decides, `repository` keeps, `models` are the words they share. [`build`] puts
//! them together; what it gives is served by the binary `auth`, or by `chatbot` beside `chat`.

pub mod api;
pub mod cli;
pub mod models;
pub mod repository;
pub mod service;

use std::sync::Arc;

use axum::{Router, middleware::from_fn_with_state};
use common::{
    config::{Environment, LoginMode, Settings},
    http::{
        CheckFailure, HostPolicy, Layers, admin, docs, health, health::Health,
        metrics::PrometheusHandle, wrap,
    },
    identity::{Authenticator, TokenRules, identify},
    rate_limiter::{RateLimiter, limit},
    shutdown::Shutdown,
    store::{Eviction, Quota, Store},
};
use utoipa::openapi::OpenApi;

use crate::{
    repository::{KeyFileError, Repository},
    service::{Accounts, KeyRing},
};

/// A running `auth`, but for its listeners.
pub struct Service {
    /// The public listener's routes, with all layers.
    pub public: Router,
    /// The admin listener's routes, with all layers.
    pub admin: Router,
    /// The rules, for operators' commands.
    pub accounts: Arc<Accounts>,
    /// Checks tokens and keys with what this process holds; `chatbot` gives it to `chat`.
    pub authenticator: Authenticator,
}

/// Puts the service together. It reads (or makes) the signing keys; it does not wait for the store.
///
/// # Errors
/// The folder of signing keys is not usable.
pub async fn build(
    settings: &Settings,
    store: Store,
    metrics: PrometheusHandle,
    shutdown: &Shutdown,
) -> Result<Service, KeyFileError> {
    let strict = settings.environment == Environment::Prod;
    let ring = KeyRing::open(settings.auth.keys_dir.clone(), strict, settings.auth.login).await?;
    ring.watch(shutdown);
    let rules = TokenRules {
        issuer: settings.auth.issuer.clone(),
        audience: settings.auth.audience.clone(),
    };
    let authenticator = Authenticator::start(rules, ring.key_set(), store.clone(), shutdown);
    let repository = Repository::new(store.clone());
    let accounts = Arc::new(Accounts::new(
        repository,
        settings.auth.clone(),
        ring,
        authenticator.clone(),
    ));
    accounts.sweep(shutdown);
    api::describe();

    let health = health(&store, &authenticator, shutdown);
    let quota = Quota {
        burst: settings.rate_limit.requests.get(),
        period: settings.rate_limit.period,
    };
    let limiter = RateLimiter::new(store, quota, "a");
    let public = public(settings, &accounts, &authenticator, limiter, health.clone());
    let admin = wrap(
        admin::router(health, metrics, shutdown),
        Layers::admin("auth"),
    );
    Ok(Service {
        public,
        admin,
        accounts,
        authenticator,
    })
}

/// The description of every call.
pub fn openapi() -> OpenApi {
    api::document()
}

/// The same as JSON: what the subcommand `openapi` prints.
pub fn openapi_json() -> String {
    openapi().to_pretty_json().unwrap_or_default()
}

fn health(store: &Store, authenticator: &Authenticator, shutdown: &Shutdown) -> Health {
    let (store, authenticator) = (store.clone(), authenticator.clone());
    let eviction = Eviction::watch(store.clone(), shutdown);
    Health::new("Auth", shutdown.clone())
        .gate("store", move || {
            let store = store.clone();
            async move {
                store
                    .ping()
                    .await
                    .map_err(|error| CheckFailure::of_store(&error))
            }
        })
        .gate("keys", move || {
            let ready = authenticator.has_keys();
            async move {
                ready
                    .then_some(())
                    .ok_or_else(|| "there is no signing key".into())
            }
        })
        .report("eviction", move || {
            std::future::ready(eviction.check().map_err(Into::into))
        })
        .build()
}

fn public(
    settings: &Settings,
    accounts: &Arc<Accounts>,
    authenticator: &Authenticator,
    limiter: RateLimiter,
    health: Health,
) -> Router {
    // The rate limit stands inside the identity, so that users are counted as such, and round every handler that may
    // refuse an identity.
    let limited = api::limited(accounts.clone())
        .layer(from_fn_with_state(limiter, limit))
        .layer(from_fn_with_state(authenticator.clone(), identify));
    let free = api::published(accounts.clone());
    let router = Router::new()
        .merge(limited)
        .merge(free)
        .merge(health::routes(health))
        .merge(docs::routes(openapi()));
    let guarded = settings.auth.listen.ip().is_loopback() || settings.auth.login == LoginMode::Open;
    let hosts = HostPolicy::guarded(settings.server.allowed_hosts.clone(), move || guarded);
    wrap(router, Layers::new("auth", hosts, &settings.server))
}

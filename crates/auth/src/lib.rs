//! The `auth` service: accounts, logins, tokens and API keys.
//!
//! `http` translates, `services` decide, `store` keeps, `domain` has the types and rules. [`build`] puts them together; the
//! binary `auth` serves the result, or `chatbot` beside `chat`.

pub mod cli;
pub mod domain;
pub mod http;
mod metrics;
pub mod services;
pub mod state;
pub mod store;

use std::sync::Arc;

use axum::Router;
use common::{
    config::{Environment, LoginMode, Settings},
    http::{
        HostPolicy, Layers, admin, docs, health, health::Health, metrics::PrometheusHandle, wrap,
    },
    identity::{Authenticator, TokenRules},
    rate_limiter::RateLimiter,
    shutdown::Shutdown,
    store::{Quota, Store},
};

use crate::{
    domain::password::PasswordPolicy,
    services::{
        accounts::AccountService, api_keys::ApiKeyService, cleanup::Cleanup, logins::LoginService,
        passwords::PasswordHasher, signing_keys::SigningKeys, throttle::LoginThrottle,
        tokens::TokenService,
    },
    state::AppState,
    store::{AccountStore, AttemptStore, key_files::KeyFileError},
};

pub use self::http::router::document as openapi;

pub struct Service {
    /// The public listener's routes, with all layers.
    pub public: Router,
    /// The admin listener's routes, with all layers.
    pub admin: Router,
    /// Checks tokens and keys with what this process holds; `chatbot` gives it to `chat`.
    pub authenticator: Authenticator,
}

/// Puts the service together. It reads (or makes) the signing keys; it does not wait for the store. Time is the store's.
///
/// # Errors
/// The folder of signing keys is not usable.
pub async fn build(
    settings: &Settings,
    store: Store,
    prometheus: PrometheusHandle,
    shutdown: &Shutdown,
) -> Result<Service, KeyFileError> {
    let state = Arc::new(state(settings, &store, shutdown).await?);
    metrics::describe();
    let health = health(store.clone(), state.authenticator.clone(), shutdown);
    let quota =
        Quota { burst: settings.rate_limit.requests.get(), period: settings.rate_limit.period };
    let limiter = RateLimiter::new(store, quota, "a");
    Ok(Service {
        public: public(settings, &state, limiter, health.clone()),
        admin: wrap(admin::router(health, prometheus, shutdown), Layers::admin("auth")),
        authenticator: state.authenticator.clone(),
    })
}

async fn state(
    settings: &Settings,
    store: &Store,
    shutdown: &Shutdown,
) -> Result<AppState, KeyFileError> {
    let auth = &settings.auth;
    let strict = settings.environment == Environment::Prod;
    let clock = store.clock().clone();
    let keys = SigningKeys::open(auth.keys_dir.clone(), strict, auth.login, clock).await?;
    keys.watch(shutdown);
    let rules = TokenRules { issuer: auth.issuer.clone(), audience: auth.audience.clone() };
    let accounts = AccountStore::new(store.clone());
    Cleanup::new(auth.login, accounts.clone()).spawn(shutdown);
    let throttle = Arc::new(LoginThrottle::new(AttemptStore::new(store.clone())));
    let hasher = Arc::new(PasswordHasher::default());
    let tokens = TokenService::new(accounts.clone(), keys.clone(), auth);
    Ok(AppState {
        accounts: AccountService::new(
            auth.registration,
            PasswordPolicy::new(auth.password_min),
            accounts.clone(),
            throttle.clone(),
            hasher.clone(),
        ),
        api_keys: ApiKeyService::new(accounts.clone()),
        logins: LoginService::new(auth.login, accounts, tokens.clone(), throttle, hasher),
        tokens,
        authenticator: Authenticator::start(rules, keys.key_set(), store.clone(), shutdown),
        keys,
        login: auth.login,
        registration: auth.registration,
    })
}

fn health(store: Store, authenticator: Authenticator, shutdown: &Shutdown) -> Health {
    Health::builder("Auth", shutdown.clone())
        .store(store)
        .gate("keys", move || {
            let ready = authenticator.has_keys();
            async move { ready.then_some(()).ok_or_else(|| "there is no signing key".into()) }
        })
        .build()
}

fn public(
    settings: &Settings,
    state: &Arc<AppState>,
    limiter: RateLimiter,
    health: Health,
) -> Router {
    let router = http::router::build(state, limiter)
        .merge(health::routes(health))
        .merge(docs::routes(openapi));
    let guarded = settings.auth.listen.ip().is_loopback() || settings.auth.login == LoginMode::Open;
    let hosts = HostPolicy::guarded(settings.server.allowed_hosts.clone(), move || guarded);
    wrap(router, Layers::new("auth", hosts, &settings.server))
}

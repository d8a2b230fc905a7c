//! The chat service: messages, sessions, streams, and the model servers behind them.
//!
//! `api` parses and answers, `service` decides, `repository` keeps, `adapters` talk to model servers, `models` are the
//! words they share. [`build`] puts them together.

pub mod domain;
pub mod erasure;
pub mod events;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod generation;
pub mod http;
pub mod llm;
mod metrics;
pub mod sessions;
pub mod store;
pub mod turns;

use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use common::{
    config::{LoginMode, Settings},
    http::{
        HostPolicy, Layers, admin, complete_openapi, docs,
        health::{self, Health},
        metrics::PrometheusHandle,
        wrap,
    },
    identity::{Authenticator, KeySet, Revocations, Verifier},
    rate_limiter::RateLimiter,
    shutdown::Shutdown,
    store::{Eviction, Quota, Store},
};
use utoipa::openapi::OpenApi;

use crate::{
    http::{App, Parts, ws::Sockets},
    llm::LlmService,
    store::Repository,
    turns::service::{Limits, Turns},
};

/// The routers of the service, ready to be served.
#[derive(Debug)]
pub struct Service {
    /// The public listener's.
    pub public: Router,
    /// The admin listener's.
    pub admin: Router,
}

/// Who checks tokens, and where calls to `auth` go.
pub struct Identities {
    /// Checks tokens.
    pub authenticator: Authenticator,
    /// `/auth/*` and the key set, as this service passes them on.
    pub passed_on: Router,
}

impl Identities {
    /// Keys from, and calls passed on to, the `auth` that the settings name.
    ///
    /// # Errors
    /// Where the settings name none, or no HTTP client can be made.
    pub fn remote(settings: &Settings, store: &Store, shutdown: &Shutdown) -> anyhow::Result<Self> {
        let url = settings
            .chat
            .auth_url
            .clone()
            .context("chat.auth_url must be set")?;
        let client = common::clients::http::auth().context("the HTTP client for auth")?;
        let keys = KeySet::remote(&url, client.clone(), shutdown);
        let revocations = Revocations::start(store.clone(), shutdown);
        let verifier = Verifier {
            issuer: settings.auth.issuer.clone(),
            audience: settings.auth.audience.clone(),
        };
        Ok(Self {
            authenticator: Authenticator::new(verifier, keys, revocations, store.clone()),
            passed_on: http::auth_proxy::routes(http::auth_proxy::RemoteAuth { url, client }),
        })
    }
}

/// The description of the public API.
pub fn openapi() -> OpenApi {
    complete_openapi(http::document())
}

/// Puts the service together.
pub fn build(
    settings: &Settings,
    store: Store,
    llm: LlmService,
    identities: Identities,
    metrics: PrometheusHandle,
    shutdown: &Shutdown,
) -> Service {
    let Identities {
        authenticator,
        passed_on,
    } = identities;
    self::metrics::describe();
    self::metrics::watch(llm.clone(), shutdown);
    let repository = Repository::new(
        store.clone(),
        settings.chat.session_ttl,
        settings.chat.lease,
    );
    let turns = Turns::new(
        repository,
        llm.clone(),
        Limits::from_settings(settings),
        shutdown.clone(),
    );
    let quota = Quota {
        burst: settings.rate_limit.requests.get(),
        period: settings.rate_limit.period,
    };
    let app = App::new(Parts {
        turns,
        llm: llm.clone(),
        authenticator: authenticator.clone(),
        limiter: RateLimiter::new(store.clone(), quota, "c"),
        disconnect_grace: settings.chat.disconnect_grace,
        tokens_per_day: settings.rate_limit.tokens_per_day,
        allowed_origins: settings.chat.allowed_origins.clone().into(),
        sockets: Sockets::new(settings.chat.sockets_per_user),
        shutdown: shutdown.clone(),
    });
    let health = health_of(store, authenticator.clone(), llm, shutdown.clone());
    let router = http::router(&app)
        .merge(passed_on)
        .merge(health::routes(health.clone()))
        .merge(docs::routes(openapi()))
        .merge(http::web_ui::routes());
    let mut layers = Layers::new("chat", hosts(settings, authenticator), &settings.server);
    layers
        .allowed_origins
        .clone_from(&settings.chat.allowed_origins);
    layers.error_shape = Some(http::openai::error::shape());
    Service {
        public: wrap(router, layers),
        admin: wrap(
            admin::router(health, metrics, shutdown),
            Layers::admin("chat"),
        ),
    }
}

/// Names are guarded while bound to loopback, or while `auth` says that login is open.
fn hosts(settings: &Settings, authenticator: Authenticator) -> HostPolicy {
    let is_loopback = settings.chat.listen.ip().is_loopback();
    HostPolicy::guarded(settings.server.allowed_hosts.clone(), move || {
        is_loopback || authenticator.login_mode() == LoginMode::Open
    })
}

fn health_of(
    store: Store,
    authenticator: Authenticator,
    llm: LlmService,
    shutdown: Shutdown,
) -> Health {
    let eviction = Eviction::watch(store.clone(), &shutdown);
    Health::new("Chat", shutdown)
        .gate("store", move || {
            let store = store.by(std::time::Instant::now() + Duration::from_millis(400));
            async move {
                store
                    .ping()
                    .await
                    .map_err(|_| "cannot be reached".to_owned())
            }
        })
        .gate("keys", move || {
            let has_keys = authenticator.has_keys();
            async move {
                if has_keys {
                    Ok(())
                } else {
                    Err("none from auth yet".to_owned())
                }
            }
        })
        .report("eviction", move || std::future::ready(eviction.check()))
        .report("llm", move || {
            let down: Vec<&str> = llm
                .status()
                .into_iter()
                .filter(|status| status.up == Some(false) || status.breaker_open)
                .map(|status| status.provider.as_str())
                .collect();
            async move {
                if down.is_empty() {
                    Ok(())
                } else {
                    Err(format!("cannot be reached: {}", down.join(", ")))
                }
            }
        })
        .build()
}

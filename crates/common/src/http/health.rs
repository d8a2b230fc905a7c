//! What probes ask: is the process alive, is the service ready, and if not, what is missing.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::future::join_all;
use serde::Serialize;
use tokio::{sync::Mutex, time::timeout};
use utoipa::{OpenApi, ToSchema};

use crate::shutdown::Shutdown;

/// How long one look holds: however many probes ask, the checks run twice a second at most.
const LOOK_HOLDS: Duration = Duration::from_millis(500);

/// How long one holds that found something missing: whoever waits for a start, or for the store's return, hears of it soon.
const MISSING_HOLDS: Duration = Duration::from_millis(50);

/// What one check gets before it counts as failed.
const CHECK_TIME: Duration = Duration::from_millis(500);

type CheckFuture = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

struct Check {
    name: &'static str,
    gating: bool,
    run: Box<dyn Fn() -> CheckFuture + Send + Sync>,
}

/// What readiness depends on. Cheap to clone; all clones share one look.
#[derive(Clone)]
pub struct Health {
    shared: Arc<Shared>,
}

struct Shared {
    display_name: &'static str,
    shutdown: Shutdown,
    checks: Vec<Check>,
    last: Mutex<Option<(Instant, Ready)>>,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health")
            .field("service", &self.shared.display_name)
            .finish_non_exhaustive()
    }
}

/// What `/readyz` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Ready {
    /// `ready` or `unavailable`.
    pub status: &'static str,
    /// What keeps the service from being ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<&'static str>,
    /// Every check: `ok`, or what is wrong in a few words that name no address.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub checks: serde_json::Map<String, serde_json::Value>,
}

/// What `/health` answers.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Healthy {
    /// Always `ok`.
    pub status: &'static str,
    /// A sentence for people.
    pub message: String,
}

/// What `/livez` answers.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Live {
    /// Always `ok`.
    pub status: &'static str,
}

impl Health {
    /// Readiness of the service that people know as `display_name` ("Auth", "Chat"), without any check yet.
    #[expect(
        clippy::new_ret_no_self,
        reason = "the checks come one by one; `build` ends them"
    )]
    pub fn new(display_name: &'static str, shutdown: Shutdown) -> HealthBuilder {
        HealthBuilder {
            display_name,
            shutdown,
            checks: Vec::new(),
        }
    }

    /// The state of every check, at most half a second old; while draining, never ready.
    pub async fn ready(&self) -> Ready {
        let mut ready = self.look().await;
        if self.shared.shutdown.is_draining() {
            ready.status = "unavailable";
            ready.missing.push("draining");
        }
        ready
    }

    /// One look for all who ask at the same time: the others wait at the lock and find it done.
    async fn look(&self) -> Ready {
        let mut last = self.shared.last.lock().await;
        if let Some((at, ready)) = &*last {
            let holds = if ready.missing.is_empty() {
                LOOK_HOLDS
            } else {
                MISSING_HOLDS
            };
            if at.elapsed() < holds {
                return ready.clone();
            }
        }
        let results = join_all(self.shared.checks.iter().map(|check| async move {
            let result = timeout(CHECK_TIME, (check.run)()).await;
            (
                check,
                result.unwrap_or_else(|_| Err("timed out".to_owned())),
            )
        }))
        .await;
        let mut missing = Vec::new();
        let mut checks = serde_json::Map::new();
        for (check, result) in results {
            if check.gating && result.is_err() {
                missing.push(check.name);
            }
            let text = result.map_or_else(|wrong| wrong, |()| "ok".to_owned());
            checks.insert(check.name.to_owned(), text.into());
        }
        let status = if missing.is_empty() {
            "ready"
        } else {
            "unavailable"
        };
        let ready = Ready {
            status,
            missing,
            checks,
        };
        *last = Some((Instant::now(), ready.clone()));
        ready
    }
}

/// A [`Health`] that still takes checks.
pub struct HealthBuilder {
    display_name: &'static str,
    shutdown: Shutdown,
    checks: Vec<Check>,
}

impl HealthBuilder {
    /// Without this the service is not ready. The check's error is shown: a few words, no addresses.
    #[must_use]
    pub fn gate<F>(self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.add(name, true, check)
    }

    /// This is reported, and the service is ready without it.
    #[must_use]
    pub fn report<F>(
        self,
        name: &'static str,
        check: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.add(name, false, check)
    }

    fn add<F>(
        mut self,
        name: &'static str,
        gating: bool,
        check: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.checks.push(Check {
            name,
            gating,
            run: Box::new(move || Box::pin(check())),
        });
        self
    }

    /// Done.
    pub fn build(self) -> Health {
        let Self {
            display_name,
            shutdown,
            checks,
        } = self;
        Health {
            shared: Arc::new(Shared {
                display_name,
                shutdown,
                checks,
                last: Mutex::new(None),
            }),
        }
    }
}

/// `/health`, `/livez` and `/readyz`.
pub fn routes<S: Clone + Send + Sync + 'static>(health: Health) -> Router<S> {
    Router::new()
        .route("/health", get(say_health))
        .route("/livez", get(say_live))
        .route("/readyz", get(say_ready))
        .with_state(health)
}

/// The description of these calls.
#[derive(OpenApi)]
#[openapi(paths(say_health, say_live, say_ready))]
pub(super) struct Document;

/// Says that the service answers.
#[utoipa::path(get, path = "/health", tag = "health", responses((status = 200, body = Healthy)))]
async fn say_health(State(health): State<Health>) -> Json<Healthy> {
    let message = format!("{} service is running!", health.shared.display_name);
    Json(Healthy {
        status: "ok",
        message,
    })
}

/// Says that the process is alive: asks nobody.
#[utoipa::path(get, path = "/livez", tag = "health", responses((status = 200, body = Live)))]
async fn say_live() -> Json<Live> {
    Json(Live { status: "ok" })
}

/// Says whether the service can do its work, and what is missing. The model servers are reported and do not gate.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    responses((status = 200, body = Ready), (status = 503, description = "Not now: see `missing`.", body = Ready))
)]
async fn say_ready(State(health): State<Health>) -> Response {
    let ready = health.ready().await;
    if ready.missing.is_empty() {
        return Json(ready).into_response();
    }
    let retry_after = [(header::RETRY_AFTER, HeaderValue::from_static("1"))];
    (StatusCode::SERVICE_UNAVAILABLE, retry_after, Json(ready)).into_response()
}

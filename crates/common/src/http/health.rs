//! Liveness and readiness: `/health`, `/livez`, `/readyz`.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, PoisonError},
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
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};
use utoipa::{OpenApi, ToSchema};

use super::CheckFailure;
use crate::shutdown::Shutdown;

/// How long a result is reused: however many probes ask, the checks run twice a second at most.
const READY_REUSED: Duration = Duration::from_millis(500);
/// The same while something is missing, so that a start or the store's return is seen soon.
const UNREADY_REUSED: Duration = Duration::from_millis(50);
/// A check that takes longer has failed.
const CHECK_TIMEOUT: Duration = Duration::from_millis(500);

/// How often the checks run although nobody probes, so that the log says what fails.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// A failure is logged once it has lasted that long: at a start some checks fail for a moment.
const LOGGED_AFTER: Duration = Duration::from_secs(1);

type CheckResult = Result<(), CheckFailure>;
type CheckFuture = Pin<Box<dyn Future<Output = CheckResult> + Send>>;

struct HealthCheck {
    name: &'static str,
    is_gating: bool,
    run: Box<dyn Fn() -> CheckFuture + Send + Sync>,
    /// Since when it fails, and whether that is in the log.
    failing: std::sync::Mutex<Option<(Instant, bool)>>,
}

/// The readiness of one service. Cheap to clone; all clones share one result.
#[derive(Clone)]
pub struct Health(Arc<HealthBuilder>);

/// A [`Health`] that still takes checks.
pub struct HealthBuilder {
    display_name: &'static str,
    shutdown: Shutdown,
    checks: Vec<HealthCheck>,
    last: Mutex<Option<(Instant, Ready)>>,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Health").field(&self.0.display_name).finish()
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
    /// A service without any check yet, by the name that people know it by ("Auth", "Chat").
    #[expect(
        clippy::new_ret_no_self,
        reason = "checks are added one by one, then `build` ends the list"
    )]
    pub fn new(display_name: &'static str, shutdown: Shutdown) -> HealthBuilder {
        HealthBuilder {
            display_name,
            shutdown,
            checks: Vec::new(),
            last: Mutex::new(None),
        }
    }

    /// The result of every check, at most half a second old; never ready while draining.
    pub async fn ready(&self) -> Ready {
        let mut ready = self.0.recent().await;
        if self.0.shutdown.is_draining() {
            ready.status = "unavailable";
            ready.missing.push("draining");
        }
        ready
    }
}

impl HealthBuilder {
    /// Adds a check without which the service is not ready. Its error is shown: a few words, no addresses.
    #[must_use]
    pub fn gate<F>(self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = CheckResult> + Send + 'static,
    {
        self.add(name, true, check)
    }

    /// Adds a check that is reported and does not gate.
    #[must_use]
    pub fn report<F>(
        self,
        name: &'static str,
        check: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = CheckResult> + Send + 'static,
    {
        self.add(name, false, check)
    }

    fn add<F>(
        mut self,
        name: &'static str,
        is_gating: bool,
        check: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = CheckResult> + Send + 'static,
    {
        self.checks.push(HealthCheck {
            name,
            is_gating,
            run: Box::new(move || Box::pin(check())),
            failing: std::sync::Mutex::default(),
        });
        self
    }

    /// Ends the list, and begins to log what fails. Must be called within a runtime.
    pub fn build(self) -> Health {
        let health = Health(Arc::new(self));
        let (watched, shutdown) = (health.clone(), health.0.shutdown.clone());
        shutdown.clone().spawn(async move {
            let watch = async {
                loop {
                    sleep(WATCH_INTERVAL).await;
                    watched.0.recent().await;
                }
            };
            tokio::select! {
                () = watch => {}
                () = shutdown.draining() => {}
            }
        });
        health
    }

    /// The last result, or a new one for all who ask at the same time: the others wait for the lock and find it done.
    async fn recent(&self) -> Ready {
        let mut last = self.last.lock().await;
        if let Some((at, ready)) = &*last {
            let reused = match ready.missing.is_empty() {
                true => READY_REUSED,
                false => UNREADY_REUSED,
            };
            if at.elapsed() < reused {
                return ready.clone();
            }
        }
        let ready = self.check().await;
        *last = Some((Instant::now(), ready.clone()));
        ready
    }

    async fn check(&self) -> Ready {
        let results = join_all(self.checks.iter().map(|check| async move {
            let result = timeout(CHECK_TIMEOUT, (check.run)()).await;
            (check, result.unwrap_or_else(|_| Err("timed out".into())))
        }));
        let (mut missing, mut checks) = (Vec::new(), serde_json::Map::new());
        for (check, result) in results.await {
            if check.is_gating && result.is_err() {
                missing.push(check.name);
            }
            if check.is_gating {
                check.log(self.display_name, result.as_ref().err());
            }
            let text = result.map_or_else(|failure| failure.shown, |()| "ok".to_owned());
            checks.insert(check.name.to_owned(), text.into());
        }
        Ready {
            status: if missing.is_empty() {
                "ready"
            } else {
                "unavailable"
            },
            missing,
            checks,
        }
    }
}

impl HealthCheck {
    /// Logs when a failure has lasted, and when it is over.
    fn log(&self, service: &str, failure: Option<&CheckFailure>) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let check = self.name;
        match (failure, &mut *failing) {
            (Some(_), None) => *failing = Some((Instant::now(), false)),
            (Some(failure), Some((since, is_logged))) => {
                if !*is_logged && since.elapsed() >= LOGGED_AFTER {
                    *is_logged = true;
                    tracing::warn!(
                        service,
                        check,
                        reason = failure.reason,
                        "not ready: a check fails"
                    );
                }
            }
            (None, _) => {
                if let Some((since, true)) = failing.take() {
                    let seconds = since.elapsed().as_secs();
                    tracing::info!(service, check, seconds, "a check passes again");
                }
            }
        }
    }
}

/// `/health`, `/livez` and `/readyz`.
pub fn routes<S: Clone + Send + Sync + 'static>(health: Health) -> Router<S> {
    Router::new()
        .route("/health", get(service_health))
        .route("/livez", get(liveness))
        .route("/readyz", get(readiness))
        .with_state(health)
}

#[derive(OpenApi)]
#[openapi(paths(service_health, liveness, readiness))]
pub(super) struct Document;

/// Says that the service answers.
#[utoipa::path(get, path = "/health", operation_id = "say_health", tag = "health", responses((status = 200, body = Healthy)))]
async fn service_health(State(Health(health)): State<Health>) -> Json<Healthy> {
    let message = format!("{} service is running!", health.display_name);
    Json(Healthy {
        status: "ok",
        message,
    })
}

/// Says that the process is alive: asks nobody.
#[utoipa::path(get, path = "/livez", operation_id = "say_live", tag = "health", responses((status = 200, body = Live)))]
async fn liveness() -> Json<Live> {
    Json(Live { status: "ok" })
}

/// Says whether the service can do its work, and what is missing. The model servers are reported and do not gate.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "say_ready",
    tag = "health",
    responses((status = 200, body = Ready), (status = 503, description = "Not now: see `missing`.", body = Ready))
)]
async fn readiness(State(health): State<Health>) -> Response {
    let ready = health.ready().await;
    if ready.missing.is_empty() {
        return Json(ready).into_response();
    }
    let retry_after = [(header::RETRY_AFTER, HeaderValue::from_static("1"))];
    (StatusCode::SERVICE_UNAVAILABLE, retry_after, Json(ready)).into_response()
}

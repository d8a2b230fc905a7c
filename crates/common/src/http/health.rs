//! Liveness and readiness: `/health`, `/livez`, `/readyz`.

use std::{
    future::{Future, ready},
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
use futures_util::future::{BoxFuture, join_all};
use serde::Serialize;
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};
use utoipa::{OpenApi, ToSchema};

use super::{
    CheckFailure,
    check_failure::{check_durability, check_store},
};
use crate::{
    scheduling_delay,
    shutdown::Shutdown,
    store::{Eviction, Store},
};

/// How long a result is reused: however many probes ask, the checks run twice a second at most.
const READY_REUSED: Duration = Duration::from_millis(500);
/// The same while something is missing, so that a start or the store's return is seen soon.
const UNREADY_REUSED: Duration = Duration::from_millis(10);
const CHECK_TIMEOUT: Duration = Duration::from_millis(500);

/// How often the checks run although nobody probes, so that the log says what fails.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// A failure is logged once it has lasted that long: at a start some checks fail for a moment.
const LOGGED_AFTER: Duration = Duration::from_secs(1);

/// How long a success holds while checks fail and this process is short of CPU.
const PASSED_HOLDS: Duration = Duration::from_secs(5);

type CheckResult = Result<(), CheckFailure>;

struct HealthCheck {
    name: &'static str,
    is_gating: bool,
    run: Box<dyn Fn() -> BoxFuture<'static, CheckResult> + Send + Sync>,
    /// Since when it fails, and what is in the log of it: that it fails in part, or wholly.
    failing: parking_lot::Mutex<Option<(Instant, Option<bool>)>>,
    passed: parking_lot::Mutex<Option<Instant>>,
}

/// The readiness of one service. Cheap to clone; all clones share one result.
#[derive(Clone)]
pub struct Health(Arc<HealthBuilder>);

pub struct HealthBuilder {
    display_name: &'static str,
    shutdown: Shutdown,
    checks: Vec<HealthCheck>,
    last: Mutex<Option<(Instant, Ready)>>,
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
    pub fn builder(display_name: &'static str, shutdown: Shutdown) -> HealthBuilder {
        HealthBuilder { display_name, shutdown, checks: Vec::new(), last: Mutex::new(None) }
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
    /// Adds what every service asks of its store: that it answers, which gates, and whether it may lose data, which does not.
    #[must_use]
    pub fn store(self, store: Store) -> Self {
        let (durable, eviction) = (store.clone(), Eviction::watch(store.clone(), &self.shutdown));
        self.gate("store", move || check_store(store.clone()))
            .report("durability", move || check_durability(durable.clone()))
            .report("eviction", move || ready(eviction.check().map_err(Into::into)))
    }

    /// Adds a check without which the service is not ready. Its error is shown: a few words, no addresses.
    #[must_use]
    pub fn gate<F: Future<Output = CheckResult> + Send + 'static>(
        self,
        name: &'static str,
        check: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        self.add(name, true, check)
    }

    /// Adds a check that is reported and does not gate.
    #[must_use]
    pub fn report<F: Future<Output = CheckResult> + Send + 'static>(
        self,
        name: &'static str,
        check: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        self.add(name, false, check)
    }

    fn add<F: Future<Output = CheckResult> + Send + 'static>(
        mut self,
        name: &'static str,
        is_gating: bool,
        check: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        self.checks.push(HealthCheck {
            name,
            is_gating,
            run: Box::new(move || Box::pin(check())),
            failing: parking_lot::Mutex::default(),
            passed: parking_lot::Mutex::default(),
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
            let reused = if ready.missing.is_empty() { READY_REUSED } else { UNREADY_REUSED };
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
            let begun = Instant::now();
            let result = timeout(CHECK_TIMEOUT, (check.run)()).await;
            let result = result.unwrap_or_else(|_| Err("timed out".into()));
            (check, check.judge(result, scheduling_delay::late_since(begun)))
        }));
        let (mut missing, mut checks) = (Vec::new(), serde_json::Map::new());
        for (check, result) in results.await {
            let is_missing = result.as_ref().is_err_and(|failure| !failure.is_partial);
            if check.is_gating && is_missing {
                missing.push(check.name);
            }
            let failure = result.as_ref().err();
            // What else does not gate has a log of its own.
            if check.is_gating || failure.is_none_or(|failure| failure.is_partial) {
                check.log(self.display_name, failure);
            }
            let text = result.map_or_else(|failure| failure.shown, |()| "ok".to_owned());
            checks.insert(check.name.to_owned(), text.into());
        }
        Ready { status: if missing.is_empty() { "ready" } else { "unavailable" }, missing, checks }
    }
}

impl HealthCheck {
    /// A failure while this process was short of CPU may be its own: for a while the last success holds.
    fn judge(&self, result: CheckResult, is_late: bool) -> CheckResult {
        let mut passed = self.passed.lock();
        if result.is_ok() {
            *passed = Some(Instant::now());
        } else if is_late && passed.is_some_and(|at| at.elapsed() < PASSED_HOLDS) {
            return Ok(());
        }
        result
    }

    /// Logs when a failure has lasted, and when it is over.
    fn log(&self, service: &str, failure: Option<&CheckFailure>) {
        let mut failing = self.failing.lock();
        let check = self.name;
        match (failure, &mut *failing) {
            (Some(_), None) => *failing = Some((Instant::now(), None)),
            (Some(failure), Some((since, logged))) => {
                let is_partial = failure.is_partial;
                if *logged != Some(is_partial) && since.elapsed() >= LOGGED_AFTER {
                    *logged = Some(is_partial);
                    let reason = &failure.reason;
                    if is_partial {
                        tracing::warn!(service, check, reason, "a check fails in part");
                    } else {
                        tracing::warn!(service, check, reason, "not ready: a check fails");
                    }
                }
            }
            (None, _) => {
                if let Some((since, Some(_))) = failing.take() {
                    let seconds = since.elapsed().as_secs();
                    tracing::info!(service, check, seconds, "a check passes again");
                }
            }
        }
    }
}

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
#[utoipa::path(get, path = "/health", operation_id = "health", tag = "health", responses((status = 200, body = Healthy)))]
async fn service_health(State(Health(health)): State<Health>) -> Json<Healthy> {
    let message = format!("{} service is running!", health.display_name);
    Json(Healthy { status: "ok", message })
}

/// Says that the process is alive: asks nobody.
#[utoipa::path(get, path = "/livez", operation_id = "live", tag = "health", responses((status = 200, body = Live)))]
async fn liveness() -> Json<Live> {
    Json(Live { status: "ok" })
}

/// Says whether the service can do its work, and what is missing. The model servers are reported and do not gate.
#[utoipa::path(
    get, path = "/readyz", operation_id = "ready", tag = "health",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_our_own_takes_nothing_out_of_service() {
        let check = HealthCheck {
            name: "store",
            is_gating: true,
            run: Box::new(|| Box::pin(std::future::ready(Ok(())))),
            failing: parking_lot::Mutex::default(),
            passed: parking_lot::Mutex::default(),
        };
        let failed = || Err("timed out".into());
        assert!(check.judge(failed(), true).is_err(), "it never passed");
        assert!(check.judge(Ok(()), false).is_ok());
        assert!(check.judge(failed(), true).is_ok());
        assert!(check.judge(failed(), false).is_err());
    }
}

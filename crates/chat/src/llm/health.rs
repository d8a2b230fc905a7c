//! Health probes: whether a model server can be reached, and which models it has.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use common::{config::ProviderKind, shutdown::Shutdown};
use tokio::{sync::Notify, time::Instant};

use crate::llm::{
    error::{ErrorKind, ProviderError},
    providers::{ModelInfo, Provider},
    redaction::Redactor,
};

/// Between two probes of a server that is up.
const INTERVAL: Duration = Duration::from_secs(10);
/// Between two probes of a server that is down, or did not answer the last one.
const INTERVAL_DOWN: Duration = Duration::from_secs(1);
/// How long a probe may take past connecting.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// Probes in a row that may go unanswered: a busy server is not a dead one.
const MAX_MISSES: u32 = 2;

pub(super) struct Health {
    snapshot: ArcSwap<Snapshot>,
    probe_now: Notify,
    probed: Notify,
    has_answered: AtomicBool,
    /// When it last sent a part of an answer: milliseconds since `started`, 0 for never.
    last_output: AtomicU64,
    started: Instant,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    /// Whether it is there; `None` while it was not probed, when it is worth trying.
    pub(super) up: Option<bool>,
    /// The models as last listed; `None` while no list was ever had.
    pub(super) models: Option<Arc<[ModelInfo]>>,
    /// The problem that the last probe found.
    pub(super) problem: Option<Problem>,
}

/// The problem of a server: what was asked, what came, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// In our own words, for whoever asks.
    pub shown: String,
    /// With what the server said, for operators.
    pub reason: String,
}

impl Health {
    /// The default snapshot is of a server that has not been probed yet.
    pub(super) fn new(snapshot: Snapshot) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            probe_now: Notify::new(),
            probed: Notify::new(),
            has_answered: AtomicBool::new(false),
            last_output: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    pub(super) fn is_down(&self) -> bool {
        self.snapshot.load().up == Some(false)
    }

    /// Resolves when probes have found nobody where no answer ever came from: an address that accepts connections and says
    /// nothing. A server that did answer once may be slow.
    pub(super) async fn found_absent(&self) {
        loop {
            let probed = self.probed.notified();
            let has_answered = self.has_answered.load(Ordering::Relaxed);
            if self.is_down() && !has_answered {
                return;
            }
            probed.await;
        }
    }

    pub(super) fn record_output(&self, now: Instant) {
        self.last_output.store(self.age(now).max(1), Ordering::Relaxed);
    }

    /// Asks for a probe now, because a request just met nobody there.
    pub(super) fn request_probe(&self) {
        self.probe_now.notify_one();
    }

    pub(super) async fn run_probes(
        &self,
        kind: ProviderKind,
        provider: &dyn Provider,
        connect_timeout: Duration,
        redactor: Redactor<'_>,
        shutdown: &Shutdown,
    ) {
        let mut misses = 0;
        loop {
            let timeout = connect_timeout.saturating_add(PROBE_TIMEOUT);
            let listing = tokio::time::timeout(timeout, provider.list_models());
            let listed = tokio::select! {
                biased;
                () = shutdown.stopping() => return,
                listed = listing => listed.ok(),
            };
            misses = if listed.is_none() { misses + 1 } else { 0 };
            self.update(kind, listed, misses, &redactor);
            let is_fine = misses == 0 && !self.is_down();
            let pause = if is_fine { INTERVAL } else { INTERVAL_DOWN };
            tokio::select! {
                () = shutdown.stopping() => return,
                () = tokio::time::sleep(pause) => {}
                () = self.probe_now.notified() => {}
            }
        }
    }

    fn update(
        &self,
        kind: ProviderKind,
        listed: Option<Result<Vec<ModelInfo>, ProviderError>>,
        misses: u32,
        redactor: &Redactor<'_>,
    ) {
        let before = self.snapshot.load();
        let now = match listed {
            Some(Ok(models)) => Snapshot::listed(models),
            Some(Err(error)) => before.refused(&error, redactor),
            None => before.unanswered(misses, self.is_sending()),
        };
        if now.up == Some(true) {
            self.has_answered.store(true, Ordering::Relaxed);
        }
        if (now.up, &now.problem) != (before.up, &before.problem) {
            let (provider, up) = (kind.as_str(), now.up == Some(true));
            let models = now.models.as_ref().map_or(0, |models| models.len());
            match &now.problem {
                None => tracing::info!(provider, up, models, "model server is up"),
                Some(Problem { reason: error, .. }) => {
                    tracing::warn!(
                        provider,
                        up,
                        models,
                        error,
                        "model server did not list its models"
                    );
                }
            }
        }
        self.snapshot.store(Arc::new(now));
        self.probed.notify_waiters();
    }

    /// Whether the server sent a part of an answer since the last probe was due: it may be too busy to answer a probe.
    fn is_sending(&self) -> bool {
        let last = self.last_output.load(Ordering::Relaxed);
        let recent = u64::try_from(INTERVAL.as_millis()).unwrap_or(u64::MAX);
        last > 0 && self.age(Instant::now()).saturating_sub(last) < recent
    }

    fn age(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }
}

impl Snapshot {
    pub(super) fn listed(models: Vec<ModelInfo>) -> Self {
        Self { up: Some(true), models: Some(models.into()), problem: None }
    }

    /// After a probe that failed. A server that answers, whatever it says, is there; one that says 502, 503 or 504 is as
    /// good as away. The models of the last list stay known.
    fn refused(&self, error: &ProviderError, redactor: &Redactor<'_>) -> Self {
        let away = if error.is_outage() { "cannot be reached: " } else { "" };
        let problem = Problem {
            shown: format!("{away}{}", error.describe(None)),
            reason: format!("{away}{}", error.describe(Some(redactor))),
        };
        let up = Some(!error.is_outage());
        Self { up, models: self.models.clone(), problem: Some(problem) }
    }

    /// After `misses` probes in a row that nobody answered in time. A server that was up is doubted slowly, and not at
    /// all while it is sending answers: some do one thing at a time.
    fn unanswered(&self, misses: u32, is_sending: bool) -> Self {
        if self.up == Some(true) && (misses < MAX_MISSES || is_sending) {
            return self.clone();
        }
        let silent = "it accepts connections and does not answer";
        self.refused(&ProviderError::new(ErrorKind::Unreachable, silent), &Redactor::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_was_up_is_doubted_slowly_and_not_while_it_sends() {
        let up = Snapshot::listed(Vec::new());
        assert_eq!(up.up, Some(true));
        let after = |misses, is_sending| up.unanswered(misses, is_sending).up;
        assert_eq!(after(1, false), Some(true));
        assert_eq!(after(2, false), Some(false));
        assert_eq!(after(9, true), Some(true));
        let unknown = Snapshot::default().unanswered(1, true);
        assert_eq!(unknown.up, Some(false));
    }

    #[test]
    fn only_outages_take_a_server_for_down_and_its_models_stay_known() {
        let model = ModelInfo {
            id: "m".to_owned(),
            window: None,
            capabilities: None,
            facts: Arc::default(),
        };
        let before = Snapshot::listed(vec![model]);
        for (kind, up) in [
            (ErrorKind::Unreachable, Some(false)),
            (ErrorKind::Outage, Some(false)),
            (ErrorKind::Busy, Some(true)),
            (ErrorKind::ModelNotFound, Some(true)),
            (ErrorKind::Failed, Some(true)),
        ] {
            let now = before.refused(&ProviderError::new(kind, ""), &Redactor::default());
            let models = now.models.map(|models| models.len());
            assert_eq!((now.up, models), (up, Some(1)));
        }
    }
}

//! `max_concurrency` over all instances that use one store, where `concurrency_scope` is `shared`.
//!
//! Each instance publishes what its users run and have waiting. One where somebody waits reads what all have published, decides as
//! every other one does who is next, and takes free slots for its own users unless another one took slots meanwhile. While the
//! store cannot be reached the instance's own limit holds.

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    config::{self, ConcurrencyScope},
    shutdown::Shutdown,
    store::StoreError,
};
use tokio::time::{sleep, sleep_until};

use crate::{
    concurrency::order::decide,
    domain::InstanceLoad,
    llm::{LlmService, Placement, Scheduler},
    store::{ChatStore, concurrency::Ledger},
};

mod order;

/// How often an instance where somebody waits looks for a free slot, on average.
const POLL: Duration = Duration::from_millis(100);

/// The shortest time between two rounds, so that a burst of requests is decided on together.
const ROUND_GAP: Duration = Duration::from_millis(10);

/// After so many failures of the store in a row, a [`POLL`] apart, the instance's own limit holds.
const FAILURES: u32 = 3;

struct SharedConcurrency {
    store: ChatStore,
    provider: &'static str,
    scheduler: Arc<Scheduler>,
    own: InstanceLoad,
    /// What others know of this instance, and since when; `None` where that is unknown.
    published: Option<(InstanceLoad, Instant)>,
    failures: u32,
}

/// Shares the slots of every provider whose settings say so, until the stop. A store of our own has no other instances.
pub fn spawn(store: &ChatStore, llm: &LlmService, settings: &config::Llm, shutdown: &Shutdown) {
    for (kind, scheduler) in llm.schedulers() {
        let scope = settings.provider(kind).map(|provider| provider.concurrency_scope);
        if scope != Some(ConcurrencyScope::Shared) || !store.is_shared() {
            continue;
        }
        scheduler.share(true);
        let mut concurrency = SharedConcurrency {
            store: store.clone(),
            provider: kind.as_str(),
            scheduler: scheduler.clone(),
            own: InstanceLoad::new(),
            published: Some((InstanceLoad::new(), Instant::now())),
            failures: 0,
        };
        let stopping = shutdown.clone();
        shutdown.spawn(async move {
            tokio::select! {
                () = concurrency.run() => {}
                () = stopping.stopping() => {}
            }
            // Where this fails, the slots come back with the lease.
            concurrency.published = None;
            let _ = concurrency.publish(InstanceLoad::new(), None).await;
        });
    }
}

impl SharedConcurrency {
    async fn run(&mut self) {
        loop {
            let pause = match self.round().await {
                Ok(pause) => {
                    self.failures = 0;
                    pause
                }
                Err(error) => {
                    self.failed(&error);
                    POLL
                }
            };
            let ended = tokio::time::Instant::now();
            tokio::select! {
                () = self.scheduler.changed() => sleep_until(ended + ROUND_GAP).await,
                // Not at the same time on all instances.
                () = sleep(pause.mul_f64(rand::random_range(0.7..1.0))) => {}
            }
        }
    }

    /// Publishes what is new here, and takes the free slots that are this instance's; returns when it is to be called next.
    async fn round(&mut self) -> Result<Duration, StoreError> {
        if self.failures >= FAILURES {
            self.refresh(&[]);
            self.publish(self.own.clone(), None).await?;
            tracing::info!(provider = self.provider, "max_concurrency is shared again");
            self.scheduler.share(true);
            self.failures = 0;
        }
        if self.scheduler.load().1 == 0 {
            self.refresh(&[]);
            self.publish(self.own.clone(), None).await?;
            return Ok(self.store.lease() / 3);
        }
        let ledger = self.store.concurrency().read(self.provider).await?;
        self.refresh(&ledger.others);
        let placements = decide(&self.own, &ledger.others, self.scheduler.running_limit());
        let takes = placements.iter().any(|(.., position)| position.is_none());
        let load = self.with_given(&placements);
        if !self.publish(load, takes.then_some(&ledger)).await? {
            return Ok(ROUND_GAP);
        }
        self.scheduler.place(&placements);
        Ok(POLL)
    }

    /// Looks what runs and waits here, and when the turn of each user was, on any instance.
    fn refresh(&mut self, others: &[InstanceLoad]) {
        let now = self.store.now_ms();
        let before = mem::replace(&mut self.own, self.scheduler.load_by_user());
        for (key, load) in &mut self.own {
            let others = others.iter().filter_map(|other| other.get(key));
            let elsewhere = others.map(|load| load.turn).max();
            let here = match before.get(key) {
                Some(before) if before.running == load.running => Some(before.turn),
                None if load.running == 0 => elsewhere,
                _ => None,
            };
            load.turn = here.unwrap_or(now).max(elsewhere.unwrap_or(i64::MIN));
        }
    }

    /// What this instance has once it has taken what it is given.
    fn with_given(&self, placements: &[Placement]) -> InstanceLoad {
        let (mut load, now) = (self.own.clone(), self.store.now_ms());
        for (lane, user, _) in placements.iter().filter(|(.., position)| position.is_none()) {
            if let Some(load) = load.get_mut(&(*lane, user.clone())) {
                (load.running, load.waiting, load.turn) = (load.running + 1, load.waiting - 1, now);
            }
        }
        load
    }

    /// Publishes what this instance has where others do not know it, or will soon take it for dead. `false` where it takes slots that
    /// were free in a ledger, and another one took slots meanwhile.
    async fn publish(
        &mut self,
        load: InstanceLoad,
        taking: Option<&Ledger>,
    ) -> Result<bool, StoreError> {
        let is_known = self.published.as_ref().is_some_and(|(known, at)| {
            *known == load && (at.elapsed() < self.store.lease() / 4 || load.is_empty())
        });
        if !is_known {
            if !self.store.concurrency().publish(self.provider, &load, taking).await? {
                return Ok(false);
            }
            self.published = Some((load.clone(), Instant::now()));
            self.own = load;
        }
        Ok(true)
    }

    fn failed(&mut self, error: &StoreError) {
        self.published = None;
        self.failures = self.failures.saturating_add(1);
        if self.failures == FAILURES {
            let provider = self.provider;
            tracing::warn!(provider, %error, "max_concurrency holds for this instance alone");
            self.scheduler.share(false);
        }
    }
}

//! What was revoked and has not expired yet: written by `auth` to one index, polled by every process, asked in memory.
//!
//! The index `i:revoked` has one member a [`Revocation`], scored by the store's clock when it was written. A process
//! reads what is new every second, with an overlap for writes that were under way, and all of it once a minute. While
//! the store is down, what is known stays known. The same poll learns how far this machine's clock is from the store's,
//! so that all instances judge expiry by one clock.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    Identity,
    revoked::{Known, Revocation},
};
use crate::{
    clock,
    shutdown::Shutdown,
    store::{Op, Read, Store, StoreError, Txn},
};

/// The index of revocations.
pub const REVOKED: &str = "i:revoked";
/// Between two polls; a revocation is seen everywhere within that and one store call.
const INTERVAL: Duration = Duration::from_secs(1);
/// How far back a poll looks behind the one before, in milliseconds: a write that was held up appears late.
const OVERLAP_MS: i64 = 60_000;
/// Every so many polls the whole index is read, and what `auth` has trimmed is forgotten.
const FULL_EVERY: u64 = 60;
/// Most members read in one call.
const PAGE: usize = 10_000;

/// What this process knows to be revoked. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Revocations {
    known: Arc<RwLock<Known>>,
    /// Counts changes; 0 until the index was read once.
    version: watch::Sender<u64>,
    /// The store's clock minus this machine's, in milliseconds.
    offset_ms: Arc<AtomicI64>,
}

impl Revocations {
    /// Begins to poll; ends with the second stage of the shutdown.
    pub fn start(store: Store, shutdown: &Shutdown) -> Self {
        let revocations = Self {
            known: Arc::default(),
            version: watch::Sender::new(0),
            offset_ms: Arc::new(AtomicI64::new(0)),
        };
        shutdown.spawn({
            let (revocations, shutdown) = (revocations.clone(), shutdown.clone());
            async move {
                tokio::select! {
                    () = shutdown.stopping() => {}
                    () = revocations.poll(store) => {}
                }
            }
        });
        revocations
    }

    /// Whether that identity is known to be refused.
    pub fn has(&self, identity: &Identity) -> bool {
        self.known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .has(identity)
    }

    /// Resolves once that identity is refused.
    pub async fn wait_for(&self, identity: &Identity) {
        let mut version = self.version.subscribe();
        while !self.has(identity) {
            if version.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until the index was read at least once, at most until `deadline`; whether it was.
    pub async fn loaded(&self, deadline: Instant) -> bool {
        let mut version = self.version.subscribe();
        tokio::time::timeout_at(deadline.into(), version.wait_for(|version| *version > 0))
            .await
            .is_ok_and(|it| it.is_ok())
    }

    /// Now by the store's clock, in milliseconds since the Unix epoch, as far as this process knows it.
    pub fn now_ms(&self) -> i64 {
        clock::now_ms().saturating_add(self.offset_ms.load(Ordering::Relaxed))
    }

    /// Writes entries to the index and knows them at once; of what could not be written it knows nothing. `now` is the
    /// store's clock. Safe to repeat.
    pub async fn publish(
        &self,
        store: &Store,
        now: i64,
        entries: Vec<Revocation>,
    ) -> Result<(), StoreError> {
        let txn = entries.iter().fold(Txn::durable(), |txn, entry| {
            txn.op(Op::MemberSet(REVOKED.into(), entry.member(), now))
        });
        store.commit(txn).await?;
        self.learn(entries.into_iter().map(|entry| (entry, now)).collect());
        Ok(())
    }

    fn learn(&self, entries: Vec<(Revocation, i64)>) {
        let mut changed = false;
        {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            for (entry, score) in entries {
                changed |= known.insert(entry, score);
            }
        }
        if changed {
            // 0 stays 0: knowing one entry is not having read the index.
            self.version
                .send_modify(|version| *version += u64::from(*version > 0));
        }
    }

    async fn poll(&self, store: Store) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut polls, mut since) = (0_u64, 0);
        loop {
            ticks.tick().await;
            let full = polls.is_multiple_of(FULL_EVERY);
            match self.read(&store, if full { 0 } else { since }).await {
                Ok((now, entries)) => {
                    if full {
                        self.replace(entries, now - 2 * OVERLAP_MS);
                    } else {
                        self.learn(entries);
                    }
                    since = now - OVERLAP_MS;
                    polls += 1;
                }
                Err(error) => tracing::debug!(error = %error, "revocations not read"),
            }
        }
    }

    async fn read(
        &self,
        store: &Store,
        since: i64,
    ) -> Result<(i64, Vec<(Revocation, i64)>), StoreError> {
        let (mut entries, mut score, mut limit) = (Vec::new(), since, PAGE);
        loop {
            let mut page = store
                .read(vec![Read::Since {
                    key: REVOKED.into(),
                    score,
                    limit,
                }])
                .await?;
            self.offset_ms
                .store(page.now - clock::now_ms(), Ordering::Relaxed);
            let members = page.members(0);
            let last = members.last().map_or(score, |(_, last)| *last);
            let more = members.len() >= limit;
            entries.extend(
                members
                    .into_iter()
                    .filter_map(|(member, at)| Some((Revocation::parse(&member)?, at))),
            );
            if !more {
                return Ok((page.now, entries));
            }
            // A page of one score only: the next must be larger, or it would be the same again.
            limit = if last == score { limit * 2 } else { PAGE };
            score = last;
        }
    }

    fn replace(&self, entries: Vec<(Revocation, i64)>, keep_since: i64) {
        let mut fresh = Known::default();
        for (entry, score) in entries {
            fresh.insert(entry, score);
        }
        {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            fresh.keep_since(&known, keep_since);
            *known = fresh;
        }
        self.version.send_modify(|version| *version += 1);
    }
}

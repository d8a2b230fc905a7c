//! Copies new events of running turns to the store, off their live path, and renews their leases.

use std::{collections::HashMap, sync::Arc, time::Duration};

use common::shutdown::Shutdown;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::{
    domain::StopReason,
    events::registry::{Registry, RunningTurn},
    store::{ChatStore, control::TurnProgress, events::EventBatch, turns::Replication},
};

/// Time between two rounds: what a dead instance's readers saw and the stored log lacks is at most this.
const PERIOD: Duration = Duration::from_millis(250);

/// The same on a store of our own, which writes to its file every 140 ms.
const PERIOD_OF_OWN: Duration = Duration::from_millis(100);

/// Turns whose events are stored in one pipeline. More follow one pipeline after the other, spread over the period: all at
/// once they would delay every stream for as long as that takes.
const BATCH_SIZE: usize = 64;

/// Bytes of one turn's events that one round stores; what is more follows in the next ones.
const ROUND_SIZE: usize = 256 * 1024;

/// What a round changes, and what the result of the change means.
enum Change {
    Events(u64),
    Lease,
}

pub struct Replicator {
    store: ChatStore,
    registry: Arc<Registry>,
}

impl Replicator {
    /// Starts a replicator that runs until the service stops.
    pub fn spawn(store: ChatStore, registry: Arc<Registry>, shutdown: &Shutdown) {
        let replicator = Self { store, registry };
        let stopping = shutdown.clone();
        shutdown.spawn(async move { replicator.run(&stopping).await });
    }

    async fn run(&self, shutdown: &Shutdown) {
        let period = if self.store.is_shared() { PERIOD } else { PERIOD_OF_OWN };
        loop {
            tokio::select! {
                () = self.registry.not_empty() => {}
                () = shutdown.stopping() => return,
            }
            // Not at once: a turn that ends within the period needs no replication.
            sleep(period).await;
            loop {
                let turns = self.registry.all();
                let batches = turns.chunks(BATCH_SIZE);
                let Ok(count @ 1..) = u32::try_from(batches.len()) else { break };
                let mut ticks = interval(period / count);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                for batch in batches {
                    ticks.tick().await;
                    self.replicate(batch).await;
                }
                ticks.tick().await;
            }
        }
    }

    async fn replicate(&self, turns: &[Arc<RunningTurn>]) {
        let now = Instant::now();
        let (mut replications, mut changes) = (Vec::new(), Vec::new());
        let mut news: HashMap<String, Vec<TurnProgress>> = HashMap::new();
        for turn in turns {
            let (owner, id) = (turn.owner.clone(), turn.id().clone());
            let (batch, last) = unstored(turn, ROUND_SIZE);
            let grows = !batch.is_empty() && !turn.log.has_ended();
            let watching = turn.watching_instances();
            if !watching.is_empty() && turn.owes_progress(grows) {
                let progress = TurnProgress::new(id.clone(), last, &batch);
                for instance in watching {
                    news.entry(instance).or_default().push(progress.clone());
                }
            }
            if grows {
                replications.push(Replication::Events(owner.clone(), id.clone(), batch));
                changes.push((turn, Change::Events(last)));
            }
            if turn.lease_renewed_at() + self.store.lease() / 3 <= now {
                replications.push(Replication::Lease(owner, id));
                changes.push((turn, Change::Lease));
            }
        }
        // After the events themselves: whoever is told of them finds them.
        let news = news.into_iter();
        replications.extend(news.map(|(to, turns)| Replication::Progress(to, turns)));
        if replications.is_empty() {
            return;
        }
        let applied = self.store.turns().replicate(&replications).await;
        for ((turn, change), applied) in changes.into_iter().zip(applied) {
            match change {
                Change::Events(last) if applied == Some(true) => turn.set_replicated(last),
                Change::Lease if applied == Some(true) => turn.set_lease_renewed(now),
                _ if applied == Some(false) => self.retake(turn).await,
                // The next round repeats it: readers skip events that they have.
                _ => {}
            }
        }
    }

    /// The store has no lease or no log of a turn that runs here: takes the lease again, or ends the turn if it was closed.
    async fn retake(&self, turn: &RunningTurn) {
        if turn.log.has_ended() {
            return;
        }
        let store = self.store.turns();
        let retaken = store.retake_lease(&turn.owner, &turn.session_id, &turn.open).await;
        if matches!(retaken, Ok(false)) {
            turn.stop(StopReason::LeaseLost);
        }
    }
}

/// The events of a turn that are not known to be stored, up to about that many bytes, and the id of the last one.
pub fn unstored(turn: &RunningTurn, size: usize) -> (EventBatch, u64) {
    let mut batch = EventBatch::default();
    let last = turn.log.for_each_after(turn.replicated(), |id, event| {
        batch.push(id, event);
        batch.size() < size
    });
    (batch, last)
}

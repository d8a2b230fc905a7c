//! Copies new events of running turns to the store, off their live path, and renews their leases.

use std::{sync::Arc, time::Duration};

use common::{shutdown::Shutdown, store::StoreError};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::{
    domain::StopReason,
    events::registry::{Registry, RunningTurn},
    store::{ChatStore, control::InboxRequest, events::EventBatch, turns::Replication},
};

/// Time between two rounds: what a dead instance's readers saw and the stored log lacks is at most this.
const PERIOD: Duration = Duration::from_millis(250);

/// Turns whose events are stored in one pipeline. More follow one pipeline after the other, spread over the period: all at
/// once they would delay every stream for as long as that takes.
const BATCH_SIZE: usize = 64;

/// What a round changes, and what the result of the change means.
enum Change {
    Events(u64),
    Lease,
}

/// Replicates all turns of this instance.
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
        loop {
            tokio::select! {
                () = self.registry.not_empty() => {}
                () = shutdown.stopping() => return,
            }
            // Not at once: a turn that ends within the period needs no replication.
            sleep(PERIOD).await;
            loop {
                let turns = self.registry.all();
                let batches = turns.chunks(BATCH_SIZE);
                let Ok(count @ 1..) = u32::try_from(batches.len()) else {
                    break;
                };
                let mut ticks = interval(PERIOD / count);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                for batch in batches {
                    ticks.tick().await;
                    self.replicate(batch).await;
                }
                self.read_inbox().await;
                ticks.tick().await;
            }
        }
    }

    async fn replicate(&self, turns: &[Arc<RunningTurn>]) {
        let now = Instant::now();
        let (mut replications, mut changes) = (Vec::new(), Vec::new());
        for turn in turns {
            let (owner, id) = (turn.owner().clone(), turn.id().clone());
            let (batch, last) = unstored(turn);
            if !batch.is_empty() && !turn.log().has_ended() {
                replications.push(Replication::Events(owner.clone(), id.clone(), batch));
                changes.push((turn, Change::Events(last)));
            }
            if turn.lease_renewed_at() + self.store.lease() / 3 <= now {
                replications.push(Replication::Lease(owner, id));
                changes.push((turn, Change::Lease));
            }
        }
        if replications.is_empty() {
            return;
        }
        for ((turn, change), applied) in changes.into_iter().zip(self.apply(&replications).await) {
            match change {
                Change::Events(last) if applied == Some(true) => turn.set_replicated(last),
                Change::Lease if applied == Some(true) => turn.set_lease_renewed(now),
                _ if applied == Some(false) => self.retake(turn).await,
                // The next round repeats it: readers skip events that they have.
                _ => {}
            }
        }
    }

    /// Applies changes, in one pipeline if possible; `None` for those whose outcome is unknown. A key that something else has
    /// overwritten fails the whole pipeline: then each change is applied on its own, so that it spoils no other turn.
    async fn apply(&self, replications: &[Replication]) -> Vec<Option<bool>> {
        let turns = self.store.turns();
        match turns.replicate(replications).await {
            Ok(applied) => applied.into_iter().map(Some).collect(),
            Err(StoreError::Corrupt(_)) => {
                let mut applied = Vec::with_capacity(replications.len());
                for one in replications.chunks(1) {
                    let alone = turns.replicate(one).await.ok();
                    applied.push(alone.and_then(|applied| applied.first().copied()));
                }
                applied
            }
            Err(_) => vec![None; replications.len()],
        }
    }

    /// The store has no lease or no log of a turn that runs here: takes the lease again, or ends the turn if it was closed.
    async fn retake(&self, turn: &RunningTurn) {
        if turn.log().has_ended() {
            return;
        }
        let store = self.store.turns();
        let retaken = store
            .retake_lease(turn.owner(), turn.session_id(), turn.open())
            .await;
        if matches!(retaken, Ok(false)) {
            turn.stop(StopReason::LeaseLost);
        }
    }

    async fn read_inbox(&self) {
        for InboxRequest::Cancel { message_id } in
            self.store.control().receive().await.unwrap_or_default()
        {
            self.registry.stop(&message_id, StopReason::Cancelled);
        }
    }
}

/// The events of a turn that are not known to be stored, and the id of the last one.
pub fn unstored(turn: &RunningTurn) -> (EventBatch, u64) {
    let mut batch = EventBatch::default();
    let last = turn
        .log()
        .for_each_after(turn.replicated(), |id, event| batch.push(id, event));
    (batch, last)
}

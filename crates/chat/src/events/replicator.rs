//! The one writer that keeps the events of running turns in the store, off their live path, and renews their leases.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use common::store::Op;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::{
    store::{control::Request, keys::Keys},
    turns::service::{Stop, Turn, Turns},
};

/// How often: what a dead instance's watchers saw and its log lacks is at most this.
const PERIOD: Duration = Duration::from_millis(250);

/// Turns whose events go to the store together. More go one part after the other, spread over the period: all at once they
/// would hold up every stream for as long as it takes to write and store them.
const AT_ONCE: usize = 64;

/// What one round asks of the store, and what its answer will mean.
enum Change {
    Events(Arc<Turn>, u64),
    Lease(Arc<Turn>),
}

impl Turns {
    /// Runs until the service stops and no turn runs any more.
    pub(crate) async fn mirror(self: Arc<Self>) {
        loop {
            if self.is_idle() {
                tokio::select! {
                    () = self.began.notified() => {}
                    () = self.shutdown.stopping() => return,
                }
            }
            // Not at once: a turn that ends within the period needs no mirror.
            sleep(PERIOD).await;
            loop {
                let turns = self.running();
                let parts = turns.chunks(AT_ONCE);
                let Ok(count @ 1..) = u32::try_from(parts.len()) else {
                    break;
                };
                let mut ticks = interval(PERIOD / count);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                for part in parts {
                    ticks.tick().await;
                    self.mirror_some(part).await;
                }
                self.read_inbox().await;
                ticks.tick().await;
            }
        }
    }

    async fn mirror_some(&self, turns: &[Arc<Turn>]) {
        let now = Instant::now();
        let (mut ops, mut changes) = (Vec::new(), Vec::new());
        for turn in turns {
            let keys = Keys::of(&turn.owner);
            let (lines, last) = turn.log.lines_after(turn.mirrored.load(Ordering::SeqCst));
            if !lines.is_empty() && !turn.log.has_ended() {
                ops.push(Op::PushExisting(keys.events(&turn.open.id), lines.into()));
                changes.push(Change::Events(Arc::clone(turn), last));
            }
            let due = turn.lease_renewed_at() + self.repository.lease() / 3 <= now;
            if due {
                ops.push(Op::Expire(
                    keys.lease(&turn.open.id),
                    Some(self.repository.lease()),
                ));
                changes.push(Change::Lease(Arc::clone(turn)));
            }
        }
        if ops.is_empty() {
            return;
        }
        // A failed round is repeated by the next: readers pass over events that they have.
        let Ok(taken) = self.repository.mirror(ops).await else {
            return;
        };
        for (change, taken) in changes.into_iter().zip(taken) {
            match change {
                Change::Events(turn, last) if taken => turn.note_mirrored(last),
                Change::Lease(turn) if taken => turn.note_lease_renewed(now),
                Change::Events(turn, _) | Change::Lease(turn) => self.mend(&turn).await,
            }
        }
    }

    /// The store has no lease or log of a turn that runs here: take the lease again, or end the turn if it was closed.
    async fn mend(&self, turn: &Turn) {
        if turn.log.has_ended() {
            return;
        }
        let taken = self
            .repository
            .retake_lease(&turn.owner, &turn.session_id, &turn.open, &self.instance)
            .await;
        if matches!(taken, Ok(false)) {
            turn.stop(Stop::Lost);
        }
    }

    async fn read_inbox(&self) {
        let Ok(requests) = self.repository.take_inbox(&self.instance).await else {
            return;
        };
        for Request::Cancel(id) in requests {
            if let Some(turn) = self.running().into_iter().find(|turn| turn.open.id == id) {
                turn.stop(Stop::Cancelled);
            }
        }
    }
}

//! Waits for a session's turn: for those before it on this instance, and for those of other instances.

use std::time::Duration;

use common::shutdown::Shutdown;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::{
    domain::OpenTurn,
    error::ChatError,
    events::recovery::Recovery,
    store::{
        ChatStore,
        turns::{LeaseHolder, TurnState},
    },
    turns::{plan::TurnPlan, request::TurnRequest, session_queue::SessionPermit},
};

/// How often a request that waits looks whether another instance has finished its turn, or a joined key has settled.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_millis(50);

pub(super) struct SlotWaiter {
    pub(super) store: ChatStore,
    pub(super) recovery: Recovery,
    pub(super) shutdown: Shutdown,
}

impl SlotWaiter {
    /// Waits for the turns before this one, here and on other instances. Whether it had to: then what was read is old.
    pub(super) async fn wait_for_slot(
        &self,
        permit: &mut SessionPermit,
        store: &ChatStore,
        request: &TurnRequest,
        plan: &TurnPlan,
        give_up: Instant,
    ) -> Result<bool, ChatError> {
        if !permit.is_first() {
            // Boxed, as is what else a turn seldom waits for: it would make every request larger.
            Box::pin(self.wait_in_queue(permit, request, give_up)).await?;
            return Ok(true);
        }
        match &plan.session.session.open {
            Some(open) => {
                Box::pin(self.wait_for_remote_turn(store, request, open, give_up)).await?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Waits for the turns before this one on this instance; not longer than until a turn has started under its key.
    async fn wait_in_queue(
        &self,
        permit: &mut SessionPermit,
        request: &TurnRequest,
        give_up: Instant,
    ) -> Result<(), ChatError> {
        loop {
            let look_again = async {
                match &request.key {
                    Some(_) => sleep(RETRY_INTERVAL * 4).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = permit.first() => return Ok(()),
                () = self.shutdown.draining() => return Ok(()),
                () = sleep_until(give_up) => return Err(ChatError::SessionBusy),
                () = look_again => {
                    if let Some(key) = &request.key
                        && self.store.turns().idempotency(&request.identity.owner, &key.digest).await?.is_some()
                    {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Waits until the turn of another instance is closed; closes it if its instance is dead.
    async fn wait_for_remote_turn(
        &self,
        store: &ChatStore,
        request: &TurnRequest,
        open: &OpenTurn,
        give_up: Instant,
    ) -> Result<(), ChatError> {
        let (owner, session) = (&request.identity.owner, &request.session);
        let mut store = store.clone();
        let closed = async {
            loop {
                match store.turns().get(owner, session, &open.id).await?.state {
                    TurnState::Running { holder: LeaseHolder::Nobody, .. } => {
                        self.recovery.close_dead(&store, owner, session, &open.id).await?;
                        return Ok(());
                    }
                    TurnState::Running { .. } => {}
                    _ => return Ok(()),
                }
                if self.shutdown.is_draining() {
                    return Err(ChatError::ShuttingDown);
                }
                sleep(RETRY_INTERVAL).await;
                store = self.store.clone();
            }
        };
        timeout_at(give_up, closed).await.unwrap_or(Err(ChatError::SessionBusy))
    }
}

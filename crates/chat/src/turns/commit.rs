//! Accepts a planned turn and starts its task.

use std::{sync::Arc, time::Duration};

use common::{
    identity::Owner, rate_limiter::RateLimitTicket, shutdown::Shutdown, store::StoreError,
};
use tokio::time::sleep;

use crate::{
    error::ChatError,
    llm::Generation,
    retry,
    store::{
        ChatStore,
        accept::{Accept, Accepted},
        sessions::StoredSession,
    },
    turns::{
        plan::TurnPlan,
        request::{StartedTurn, TurnRequest},
        session_queue::SessionPermit,
        task::{TurnRunner, TurnTask},
    },
};

/// Pauses between the tries of an accept whose outcome is unknown.
const RETRY_PAUSES: [Duration; 3] = [
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::ZERO,
];

/// A planned turn with everything that it needs to run.
pub(super) struct ReadyTurn {
    pub(super) plan: TurnPlan,
    pub(super) accept: Accept,
    pub(super) generation: Generation,
    pub(super) permit: SessionPermit,
}

/// The outcome of a commit.
pub(super) enum Committed {
    Started(StartedTurn),
    /// What was read is old; the place in the session's queue comes back.
    Changed(SessionPermit),
}

/// Accepts turns.
#[derive(Clone)]
pub(super) struct Committer {
    store: ChatStore,
    runner: Arc<TurnRunner>,
    tokens_per_day: Option<u64>,
    shutdown: Shutdown,
}

impl Committer {
    pub(super) fn new(
        store: ChatStore,
        runner: Arc<TurnRunner>,
        tokens_per_day: Option<u64>,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            store,
            runner,
            tokens_per_day,
            shutdown,
        }
    }

    /// Accepts the turn and starts its task. Runs detached, so a client disconnect cannot leave an accepted turn without a
    /// runner.
    pub(super) async fn commit(
        &self,
        store: &ChatStore,
        request: &TurnRequest,
        ready: ReadyTurn,
    ) -> Result<Committed, ChatError> {
        let (committer, store, request) = (self.clone(), store.clone(), request.clone());
        let task = self.shutdown.spawn(async move {
            let (owner, ticket) = (&request.owner, &request.ticket);
            match committer
                .accept(&store, owner, &ready.accept, ticket)
                .await?
            {
                Accepted::Yes(session) => Ok(Committed::Started(
                    committer.launch(&request, *session, ready),
                )),
                Accepted::Changed => Ok(Committed::Changed(ready.permit)),
                Accepted::RateLimited => {
                    ticket.result()?;
                    Ok(Committed::Changed(ready.permit))
                }
                // Dead processes must not hold quota.
                Accepted::QuotaExceeded if store.reservations().settle_dead(owner).await? > 0 => {
                    Ok(Committed::Changed(ready.permit))
                }
                Accepted::QuotaExceeded => {
                    let tokens_per_day = committer.tokens_per_day.unwrap_or_default();
                    Err(ChatError::QuotaExceeded { tokens_per_day })
                }
            }
        });
        task.await
            .map_err(|error| StoreError::Corrupt(format!("accepting a turn panicked: {error}")))?
    }

    /// Accepts; where the outcome stays unknown, makes sure in the background that the turn never runs.
    async fn accept(
        &self,
        store: &ChatStore,
        owner: &Owner,
        accept: &Accept,
        ticket: &RateLimitTicket,
    ) -> Result<Accepted, ChatError> {
        let mut unknown = false;
        for pause in RETRY_PAUSES {
            match try_accept(store, owner, accept, ticket, unknown).await {
                Ok(Accepted::Yes(session)) => return Ok(Accepted::Yes(session)),
                Ok(refused) if !unknown => return Ok(refused),
                // Refused because of the first try itself, or of another change; then the first may still be applied later.
                Ok(refused) => match store.turns().was_accepted(owner, accept).await {
                    Ok(Some(session)) => {
                        ticket.record_lost().await;
                        return Ok(Accepted::Yes(Box::new(session)));
                    }
                    looked => {
                        self.withdraw_later(owner, accept);
                        looked?;
                        return Ok(refused);
                    }
                },
                Err(StoreError::Unavailable(_)) if pause > Duration::ZERO => {
                    unknown = true;
                    sleep(pause).await;
                }
                Err(error) => {
                    if unknown || matches!(error, StoreError::Unavailable(_)) {
                        self.withdraw_later(owner, accept);
                    }
                    return Err(error.into());
                }
            }
        }
        Ok(Accepted::Changed)
    }

    fn withdraw_later(&self, owner: &Owner, accept: &Accept) {
        let (store, owner, accept) = (self.store.clone(), owner.clone(), accept.clone());
        retry::in_background(&self.shutdown, move || {
            let (store, owner, accept) = (store.clone(), owner.clone(), accept.clone());
            Box::pin(async move { store.turns().withdraw(&owner, &accept).await })
        });
    }

    fn launch(
        &self,
        request: &TurnRequest,
        session: StoredSession,
        ready: ReadyTurn,
    ) -> StartedTurn {
        let ReadyTurn {
            plan,
            accept,
            generation,
            permit,
        } = ready;
        let id = accept.open.id.clone();
        let task = TurnTask::new(request, accept, session, Arc::new(plan.prompt), permit);
        let events = task.turn().log().subscribe(0);
        self.runner.register(&task);
        let runner = Arc::clone(&self.runner);
        let work = self.shutdown.work();
        self.shutdown.spawn(async move {
            runner.run(task, generation).await;
            drop(work);
        });
        StartedTurn { id, events }
    }
}

/// One try, which also counts the request if that was not done yet. After one whose outcome is unknown it first looks
/// whether that was accepted, since the request was then counted with it.
async fn try_accept(
    store: &ChatStore,
    owner: &Owner,
    accept: &Accept,
    ticket: &RateLimitTicket,
    unknown: bool,
) -> Result<Accepted, StoreError> {
    let turns = store.turns();
    if unknown && let Some(session) = turns.was_accepted(owner, accept).await? {
        ticket.record_lost().await;
        return Ok(Accepted::Yes(Box::new(session)));
    }
    let bucket = ticket.pending_bucket();
    let (accepted, admission) = turns.accept(owner, accept, bucket.as_ref()).await?;
    // A refusal after an unknown outcome is not the last word: that outcome may have been a yes.
    if let Some(admission) = admission.filter(|admission| admission.allowed || !unknown) {
        ticket.record(admission);
    }
    Ok(accepted)
}

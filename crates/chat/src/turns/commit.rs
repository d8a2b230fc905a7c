//! Accepts a planned turn and starts its task.

use std::{sync::Arc, time::Duration};

use common::{
    identity::{Authenticator, Owner},
    otel::{Span, SpanKind},
    shutdown::Shutdown,
    store::StoreError,
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

/// Pauses before an accept whose outcome is unknown is tried again, as far as the request's deadline leaves time.
const RETRY_PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(50)];

/// A planned turn with everything that it needs to run.
pub(super) struct ReadyTurn {
    pub(super) plan: Box<TurnPlan>,
    pub(super) accept: Accept,
    pub(super) generation: Box<Generation>,
    pub(super) permit: SessionPermit,
}

pub(super) enum Committed {
    Started(StartedTurn),
    /// What was read is old; the place in the session's queue comes back.
    Changed(SessionPermit),
}

pub(super) struct Committer {
    pub(super) store: ChatStore,
    pub(super) authenticator: Authenticator,
    pub(super) runner: Arc<TurnRunner>,
    pub(super) tokens_per_day: Option<u64>,
    pub(super) shutdown: Shutdown,
}

impl Committer {
    /// Accepts the turn and starts its task. Runs detached, so a client disconnect cannot leave an accepted turn without a runner.
    pub(super) async fn commit(
        self: &Arc<Self>,
        store: &ChatStore,
        request: &Arc<TurnRequest>,
        mut ready: Box<ReadyTurn>,
    ) -> Result<Committed, ChatError> {
        let (committer, store, mut request) =
            (Arc::clone(self), store.clone(), Arc::clone(request));
        let task = self.shutdown.spawn(Span::current().run(async move {
            loop {
                let accepted = committer.accept(&store, &request, &ready.accept);
                match Span::child("accept", SpanKind::Internal).run(accepted).await? {
                    Accepted::Yes(session) => {
                        let started = committer.launch(&request, session, ready);
                        return Ok(Committed::Started(started));
                    }
                    Accepted::Changed => return Ok(Committed::Changed(ready.permit)),
                    Accepted::AccountChanged => {
                        let renewed =
                            committer.authenticator.recheck(&request.identity, store.end());
                        Arc::make_mut(&mut request).identity = renewed.await?;
                    }
                    Accepted::RateLimited => {
                        request.ticket.result()?;
                        return Ok(Committed::Changed(ready.permit));
                    }
                    Accepted::QuotaExceeded => {
                        committer.fit_quota(&store, &request.identity.owner, &mut ready).await?;
                    }
                }
            }
        }));
        task.await
            .map_err(|error| StoreError::Corrupt(format!("accepting a turn panicked: {error}")))?
    }

    /// Limits the answer to what is left of the day's quota.
    async fn fit_quota(
        &self,
        store: &ChatStore,
        owner: &Owner,
        ready: &mut ReadyTurn,
    ) -> Result<(), ChatError> {
        let (asked, quota) = (ready.accept.reservation(), self.tokens_per_day);
        let fitted = store.reservations().fit(owner, &asked, quota).await?;
        let tokens_per_day = quota.unwrap_or_default();
        let fitted = fitted
            .map_err(|why| ChatError::QuotaExceeded { tokens_per_day, is_held: why.is_held })?;
        // Otherwise a dead process held what was missing.
        if fitted.tokens < asked.tokens {
            ready.accept.set_reserved(fitted.tokens);
            let answer = fitted.tokens.saturating_sub(fitted.prompt);
            ready.plan.prompt.limit_answer(answer);
        }
        Ok(())
    }

    /// Accepts; where the outcome stays unknown, makes sure in the background that the turn never runs.
    async fn accept(
        &self,
        store: &ChatStore,
        request: &TurnRequest,
        accept: &Accept,
    ) -> Result<Accepted, ChatError> {
        let owner = &request.identity.owner;
        let (mut unknown, mut pauses) = (false, RETRY_PAUSES.into_iter());
        loop {
            match try_accept(store, request, accept, unknown).await {
                Ok(Accepted::Yes(session)) => return Ok(Accepted::Yes(session)),
                Ok(refused) if !unknown => return Ok(refused),
                // Refused because of the first try itself, or of another change; then the first may still be applied later.
                Ok(_) => match Box::pin(store.turns().confirm_accepted(owner, accept)).await {
                    Ok(Some(session)) => {
                        request.ticket.record_lost().await;
                        return Ok(Accepted::Yes(Box::new(session)));
                    }
                    looked => {
                        // Whatever refused it, this turn is not tried again: it is being withdrawn.
                        self.withdraw_later(owner, accept);
                        looked?;
                        return Ok(Accepted::Changed);
                    }
                },
                Err(error) => {
                    unknown |= matches!(error, StoreError::Unavailable(_));
                    match pauses.next().filter(|_| matches!(error, StoreError::Unavailable(_))) {
                        Some(pause) => sleep(pause).await,
                        None => {
                            if unknown {
                                self.withdraw_later(owner, accept);
                            }
                            return Err(error.into());
                        }
                    }
                }
            }
        }
    }

    fn withdraw_later(&self, owner: &Owner, accept: &Accept) {
        retry::in_background(&self.shutdown, &self.store, owner, accept, |store, owner, accept| {
            Box::pin(async move { store.turns().withdraw(owner, accept).await })
        });
    }

    fn launch(
        &self,
        request: &TurnRequest,
        session: Box<StoredSession>,
        ready: Box<ReadyTurn>,
    ) -> StartedTurn {
        let ReadyTurn { plan, accept, generation, permit } = *ready;
        let id = accept.open.id.clone();
        let span = generation.span(&plan.prompt);
        let task = TurnTask::new(request, accept, session, Arc::new(plan.prompt), permit);
        let events = task.turn.log.subscribe(0);
        self.runner.registry.add(&task.turn);
        let runner = Arc::clone(&self.runner);
        self.shutdown.spawn_work(span.run(runner.run(task, generation)));
        StartedTurn { id, identity: request.identity.clone(), events }
    }
}

/// One try, which also counts the request if that was not done yet. After one whose outcome is unknown it first looks
/// whether that was accepted, since the request was then counted with it.
async fn try_accept(
    store: &ChatStore,
    TurnRequest { identity, ticket, .. }: &TurnRequest,
    accept: &Accept,
    unknown: bool,
) -> Result<Accepted, StoreError> {
    let turns = store.turns();
    if unknown
        && let Some(session) = Box::pin(turns.confirm_accepted(&identity.owner, accept)).await?
    {
        ticket.record_lost().await;
        return Ok(Accepted::Yes(Box::new(session)));
    }
    let bucket = ticket.pending_bucket();
    let (accepted, admission) = turns.accept(identity, accept, bucket.as_ref()).await?;
    // A refusal after an unknown outcome is not the last word: that outcome may have been a yes.
    if let Some(admission) = admission.filter(|admission| admission.allowed || !unknown) {
        ticket.record(admission);
    }
    Ok(accepted)
}

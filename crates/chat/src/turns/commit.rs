//! Accepting a planned turn and starting its task, as one thing that nobody's leaving can break in two.

use std::{sync::Arc, time::Duration};

use common::{identity::Owner, rate_limiter::RateLimitTicket, store::StoreError};
use tokio::time::sleep;

use crate::{
    domain::{error::ChatError, records::Session},
    llm::Answering,
    store::{
        Repository,
        accept::{Accept, Accepted},
    },
    turns::{
        plan::{Plan, start_event},
        service::{Begun, NewTurn, Turn, Turns},
        session_queue::Place,
    },
};

/// A planned turn with everything that it needs to run.
pub(crate) struct Ready {
    pub(crate) plan: Plan,
    pub(crate) accept: Accept,
    pub(crate) answering: Answering,
    pub(crate) place: Place,
}

/// How accepting and starting went.
pub(crate) enum Launched {
    Yes(Begun),
    /// What was read is old; the place in the lane comes back.
    Changed(Place),
}

impl Turns {
    /// Accepts the turn and starts its task, both on a task of their own: a caller who leaves in the middle must not
    /// leave a turn behind that is accepted and that nobody runs.
    pub(crate) async fn accept_and_launch(
        self: &Arc<Self>,
        repository: &Repository,
        owner: &Owner,
        new: &NewTurn,
        ready: Ready,
    ) -> Result<Launched, ChatError> {
        let (turns, repository) = (Arc::clone(self), repository.clone());
        let (owner, new) = (owner.clone(), new.clone());
        let task = self.shutdown.spawn(async move {
            let accepted = turns.accept(&repository, &owner, &ready.accept, &new.call);
            match accepted.await? {
                Accepted::Yes(session) => {
                    Ok(Launched::Yes(turns.launch(&owner, &new, *session, ready)))
                }
                Accepted::Changed => Ok(Launched::Changed(ready.place)),
                Accepted::NotAdmitted => {
                    new.call.result()?;
                    Ok(Launched::Changed(ready.place))
                }
                // What the dead have set aside is in nobody's way.
                Accepted::QuotaExceeded if repository.settle_dead(&owner).await? > 0 => {
                    Ok(Launched::Changed(ready.place))
                }
                Accepted::QuotaExceeded => {
                    let tokens_per_day = turns.limits.tokens_per_day.unwrap_or_default();
                    Err(ChatError::QuotaExceeded { tokens_per_day })
                }
            }
        });
        task.await
            .map_err(|error| StoreError::Corrupt(format!("accepting broke off: {error}")))?
    }

    /// Accepts; where the outcome stays unknown, sees to it in the background that the turn never runs.
    async fn accept(
        self: &Arc<Self>,
        repository: &Repository,
        owner: &Owner,
        accept: &Accept,
        call: &RateLimitTicket,
    ) -> Result<Accepted, ChatError> {
        let mut unknown = false;
        for pause in [
            Duration::from_millis(10),
            Duration::from_millis(50),
            Duration::ZERO,
        ] {
            match try_accept(repository, owner, accept, call, unknown).await {
                Ok(Accepted::Yes(session)) => return Ok(Accepted::Yes(session)),
                Ok(refused) if !unknown => return Ok(refused),
                // Refused for the first try's own doing, or for another's; then the first may still come late.
                Ok(refused) => match repository.was_accepted(owner, accept).await {
                    Ok(Some(session)) => {
                        call.record_lost().await;
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

    fn withdraw_later(self: &Arc<Self>, owner: &Owner, accept: &Accept) {
        let (turns, owner, accept) = (Arc::clone(self), owner.clone(), accept.clone());
        self.shutdown.spawn(async move {
            while turns.repository.withdraw(&owner, &accept).await.is_err() {
                tokio::select! {
                    () = turns.shutdown.stopping() => return,
                    () = sleep(Duration::from_millis(250)) => {}
                }
            }
        });
    }

    fn launch(
        self: &Arc<Self>,
        owner: &Owner,
        new: &NewTurn,
        session: Session,
        ready: Ready,
    ) -> Begun {
        let Ready {
            plan,
            accept,
            answering,
            place,
        } = ready;
        let id = accept.open.id.clone();
        let start = start_event(owner, new, &accept.open);
        let turn = Arc::new(Turn::new(owner.clone(), session, accept.open, new));
        turn.note_mirrored(turn.log.append([start]));
        let watch = turn.log.watch(0);
        self.enter(&turn);
        let turns = Arc::clone(self);
        let conversation = Arc::new(plan.conversation);
        let work = self.shutdown.work();
        self.shutdown.spawn(async move {
            turns.run(turn, answering, conversation, place).await;
            drop(work);
        });
        Begun {
            id,
            watch,
            joined: false,
        }
    }
}

/// One try, which counts the call where that was not done yet. After one whose answer was lost it first looks whether that one
/// was accepted, since it was then counted with it.
async fn try_accept(
    repository: &Repository,
    owner: &Owner,
    accept: &Accept,
    call: &RateLimitTicket,
    unknown: bool,
) -> Result<Accepted, StoreError> {
    if unknown && let Some(session) = repository.was_accepted(owner, accept).await? {
        call.record_lost().await;
        return Ok(Accepted::Yes(Box::new(session)));
    }
    let bucket = call.pending_bucket();
    let (accepted, admission) = repository.accept(owner, accept, bucket.as_ref()).await?;
    // A refusal after a lost answer is not the last word: that answer may have been a yes.
    if let Some(admission) = admission.filter(|admission| admission.allowed || !unknown) {
        call.record(admission);
    }
    Ok(accepted)
}

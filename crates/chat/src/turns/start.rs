//! How a turn begins: every check in the contract's order, then one atomic step in the store.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use common::identity::Owner;
use tokio::time::{sleep, timeout_at};

use crate::{
    domain::{SessionId, error::ChatError, records::OpenTurn},
    store::{
        Repository,
        sessions::View,
        turns::{Holder, TurnState},
    },
    turns::{
        commit::{Launched, Ready},
        idempotency::Known,
        plan::Plan,
        service::{Begun, NewTurn, Question, Turns},
        session_cache::Head,
        session_queue::Place,
    },
};

/// How long a message waits for the turns before it in its session.
const SESSION_WAIT: Duration = Duration::from_secs(30);

/// How often one who waits looks whether another instance has finished its turn, or whether a joined key has begun.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How the wait for a place in the session's lane went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Nobody was before us: what was read still holds.
    None,
    /// The place is reached; what was read is old.
    Reached,
    /// The place is not reached, but something happened that may make it needless.
    LookAgain,
}

impl Turns {
    /// Begins a turn, or joins the one that its idempotency key stands for. Store calls before accept end by `deadline`.
    ///
    /// # Errors
    /// Every refusal of the contract's section 4, up to accept; nothing is then stored.
    pub async fn begin(
        self: &Arc<Self>,
        owner: &Owner,
        new: NewTurn,
        deadline: Instant,
    ) -> Result<Begun, ChatError> {
        let place = self.arrive(owner, &new.session);
        self.begin_at(place, owner, new, deadline).await
    }

    /// Takes the next place in the session's lane: turns begin in the order in which their places were taken.
    pub fn arrive(&self, owner: &Owner, session: &SessionId) -> Place {
        self.lanes.enter(owner, session)
    }

    /// As [`Self::begin`], from a place that was taken before.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub async fn begin_at(
        self: &Arc<Self>,
        mut place: Place,
        owner: &Owner,
        new: NewTurn,
        deadline: Instant,
    ) -> Result<Begun, ChatError> {
        let give_up = tokio::time::Instant::now() + SESSION_WAIT;
        let mut repository = self.repository.by(deadline);
        let mut reached = false;
        // One that can be planned without asking the store is counted as it is accepted; any other, before it asks.
        let mut planned = match &new.key {
            None => self.planned_on_head(owner, &new),
            Some(_) => None,
        };
        if planned.is_none() {
            new.call.count(deadline).await?;
        }
        loop {
            if self.shutdown.is_draining() {
                return Err(ChatError::ShuttingDown);
            }
            if tokio::time::Instant::now() >= give_up {
                return Err(ChatError::SessionBusy);
            }
            let again = match self.known(&repository, owner, new.key.as_ref()).await? {
                Known::Turn(begun) => return Ok(begun),
                Known::Again(record, stored) => Some((record, stored)),
                Known::Unsettled => {
                    sleep(LOOK_AGAIN).await;
                    continue;
                }
                Known::New => None,
            };
            let planned = planned.take().or_else(|| self.planned_on_head(owner, &new));
            let plan = match planned {
                Some(plan) if again.is_none() => plan,
                _ => {
                    // An answer that is to be replaced stands after the message that it answered.
                    let tail = match (&new.question, &again) {
                        (Question::Message(_), None) => self.limits.history_messages,
                        _ => self.limits.history_messages.max(2),
                    };
                    let view = repository.view(owner, &new.session, tail).await?;
                    let again = again.as_ref().map(|(record, _)| record);
                    match self.plan(&new, view, again)? {
                        Some(plan) => plan,
                        None => return self.last_ending(&repository, owner, &new).await,
                    }
                }
            };
            if !reached {
                let wait = self.wait_for_place(owner, &new, &place, give_up).await?;
                reached = wait != Wait::LookAgain;
                if wait != Wait::None {
                    repository = self.repository.clone();
                    continue;
                }
            }
            if let Some(open) = &plan.session.open {
                self.wait_for_other(&repository, owner, &new, open, give_up)
                    .await?;
                repository = self.repository.clone();
                continue;
            }
            let answering = self.llm.enqueue(&plan.route, &owner.user)?;
            let stored_key = again.map(|(_, stored)| stored);
            let ready = Ready {
                accept: self.accept_of(owner, &new, &plan, stored_key),
                plan,
                answering,
                place,
            };
            match self
                .accept_and_launch(&repository, owner, &new, ready)
                .await?
            {
                Launched::Yes(begun) => return Ok(begun),
                Launched::Changed(back) => {
                    place = back;
                    repository = self.repository.clone();
                }
            }
        }
    }

    /// The turn as the session's head has it. What the head says may be old: it is not enough to refuse anything.
    fn planned_on_head(&self, owner: &Owner, new: &NewTurn) -> Option<Plan> {
        let Head { session, tail } = self.heads.take(owner, &new.session)?;
        let view = View {
            session: Some(session),
            tail,
        };
        self.plan(new, view, None).ok().flatten()
    }

    /// Waits for the turns before this one on this instance. One who brings a key that another has begun meanwhile need
    /// not wait: looking again finds that turn.
    async fn wait_for_place(
        &self,
        owner: &Owner,
        new: &NewTurn,
        place: &Place,
        give_up: tokio::time::Instant,
    ) -> Result<Wait, ChatError> {
        let reached = place.reached();
        tokio::pin!(reached);
        let mut wait = Wait::None;
        loop {
            if futures_util::poll!(&mut reached).is_ready() {
                return Ok(wait);
            }
            wait = Wait::Reached;
            let look_again = async {
                match &new.key {
                    Some(_) => sleep(LOOK_AGAIN * 4).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = &mut reached => return Ok(wait),
                () = self.shutdown.draining() => return Ok(Wait::LookAgain),
                () = tokio::time::sleep_until(give_up) => return Err(ChatError::SessionBusy),
                () = look_again => {
                    if let Some(key) = &new.key
                        && self.repository.key(owner, &key.digest).await?.is_some()
                    {
                        return Ok(Wait::LookAgain);
                    }
                }
            }
        }
    }

    /// Waits until the turn of another instance is closed, closing it where its instance is dead.
    async fn wait_for_other(
        self: &Arc<Self>,
        repository: &Repository,
        owner: &Owner,
        new: &NewTurn,
        open: &OpenTurn,
        give_up: tokio::time::Instant,
    ) -> Result<(), ChatError> {
        let mut repository = repository.clone();
        let closed = async {
            loop {
                let stored = repository
                    .turn(owner, &new.session, &open.id, false)
                    .await?;
                match stored.state {
                    TurnState::Running {
                        holder: Holder::Nobody,
                        ..
                    } => {
                        self.close_dead(&repository, owner, &new.session, &open.id)
                            .await?;
                        return Ok(());
                    }
                    TurnState::Running { .. } => {}
                    _ => return Ok(()),
                }
                if self.shutdown.is_draining() {
                    return Err(ChatError::ShuttingDown);
                }
                sleep(LOOK_AGAIN).await;
                repository = self.repository.clone();
            }
        };
        timeout_at(give_up, closed)
            .await
            .unwrap_or(Err(ChatError::SessionBusy))
    }
}

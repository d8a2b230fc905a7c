//! Starts turns, and finds them again.

use std::{sync::Arc, time::Instant};

use common::{identity::Owner, shutdown::Shutdown};
use tokio::time::{sleep, timeout_at};

use crate::{
    domain::{IdempotencyRecord, MessageId, OpenTurn, SessionId},
    error::ChatError,
    events::{
        log::Subscriber, recovery::Recovery, registry::Registry, remote_tail::RemoteTail,
        replicator::Replicator,
    },
    generation::tokens::TokenEstimates,
    llm::LlmService,
    store::{
        ChatStore,
        sessions::SessionTail,
        turns::{LeaseHolder, TurnState},
    },
    turns::{
        commit::{Committed, Committer, ReadyTurn},
        idempotency::{Idempotency, KeyState},
        plan::{Planner, TurnPlan},
        request::{StartedTurn, TurnLimits, TurnRequest},
        resume::TurnFinder,
        session_cache::SessionCache,
        session_queue::{SESSION_WAIT, SessionPermit, SessionQueue},
        task::TurnRunner,
    },
};

/// How often a request that waits looks whether another instance has finished its turn, or a joined key has settled.
const RETRY_INTERVAL: std::time::Duration = std::time::Duration::from_millis(50);

/// What turns are made of.
pub struct TurnParts {
    pub store: ChatStore,
    pub llm: LlmService,
    pub limits: TurnLimits,
    pub estimates: TokenEstimates,
    pub registry: Arc<Registry>,
    pub recovery: Recovery,
    pub shutdown: Shutdown,
}

/// Starts, resumes and cancels turns.
pub struct TurnService {
    store: ChatStore,
    llm: LlmService,
    shutdown: Shutdown,
    queue: SessionQueue,
    cache: Arc<SessionCache>,
    planner: Planner,
    committer: Committer,
    idempotency: Idempotency,
    finder: TurnFinder,
    recovery: Recovery,
}

impl TurnService {
    /// The turns of this instance, with the task that replicates their events.
    pub fn new(parts: TurnParts) -> Self {
        let TurnParts {
            store,
            llm,
            limits,
            estimates,
            registry,
            recovery,
            shutdown,
        } = parts;
        Replicator::spawn(store.clone(), Arc::clone(&registry), &shutdown);
        let tail = RemoteTail::new(store.clone(), recovery.clone(), shutdown.clone());
        let cache = Arc::new(SessionCache::default());
        let runner = TurnRunner::new(
            store.clone(),
            Arc::clone(&registry),
            Arc::clone(&cache),
            estimates.clone(),
            limits.history_messages,
            shutdown.clone(),
        );
        let finder = TurnFinder::new(store.clone(), Arc::clone(&registry), tail, recovery.clone());
        Self {
            queue: SessionQueue::default(),
            planner: Planner::new(llm.clone(), estimates, limits.clone()),
            committer: Committer::new(
                store.clone(),
                Arc::new(runner),
                limits.tokens_per_day,
                shutdown.clone(),
            ),
            idempotency: Idempotency::new(registry, recovery.clone()),
            finder,
            cache,
            store,
            llm,
            shutdown,
            recovery,
        }
    }

    /// Takes the next place in a session's queue: turns start in the order in which their places were taken.
    pub fn reserve_slot(&self, owner: &Owner, session: &SessionId) -> SessionPermit {
        self.queue.enter(owner, session)
    }

    /// Starts a turn, or joins the one that its idempotency key refers to. Store calls before its acceptance end by `deadline`.
    ///
    /// # Errors
    /// Every refusal of a turn; nothing is stored then.
    pub async fn start(
        &self,
        request: TurnRequest,
        deadline: Instant,
    ) -> Result<StartedTurn, ChatError> {
        let permit = self.reserve_slot(&request.owner, &request.session);
        self.start_in_slot(permit, request, deadline).await
    }

    /// As [`Self::start`], from a place that was taken before.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_in_slot(
        &self,
        mut permit: SessionPermit,
        request: TurnRequest,
        deadline: Instant,
    ) -> Result<StartedTurn, ChatError> {
        let give_up = tokio::time::Instant::now() + SESSION_WAIT;
        let mut store = self.store.by(deadline);
        // A turn that can be planned from the cache is counted by the rate limit as it is accepted; any other before the
        // store is read for it.
        let mut cached = request
            .key
            .is_none()
            .then(|| self.plan_from_cache(&request))
            .flatten();
        if cached.is_none() {
            request.ticket.check(deadline).await?;
        }
        loop {
            if self.shutdown.is_draining() {
                return Err(ChatError::ShuttingDown);
            }
            if tokio::time::Instant::now() >= give_up {
                return Err(ChatError::SessionBusy);
            }
            let again = match self.idempotency.look_up(&store, &request).await? {
                KeyState::Unused => None,
                KeyState::Failed(record) => Some(record),
                KeyState::Readable(record) => return self.join(&store, &request, &record).await,
                KeyState::Unsettled => {
                    sleep(RETRY_INTERVAL).await;
                    continue;
                }
            };
            let Some(plan) = self
                .plan(&store, &request, cached.take(), again.as_ref())
                .await?
            else {
                return self.join_latest(&store, &request).await;
            };
            if self
                .wait_for_slot(&mut permit, &store, &request, &plan, give_up)
                .await?
            {
                // What was read is old.
                store = self.store.clone();
                continue;
            }
            let generation = self.llm.enqueue(&plan.route, &request.owner.user)?;
            let accept = self.planner.accept(&request, &plan, again);
            let ready = ReadyTurn {
                plan,
                accept,
                generation,
                permit,
            };
            match self.committer.commit(&store, &request, ready).await? {
                Committed::Started(started) => return Ok(started),
                Committed::Changed(back) => {
                    permit = back;
                    store = self.store.clone();
                }
            }
        }
    }

    /// The turn as the cached session suggests it. The cache may be old: that is never enough to refuse anything.
    fn plan_from_cache(&self, request: &TurnRequest) -> Option<TurnPlan> {
        let tail = self.cache.take(&request.owner, &request.session)?;
        self.planner.plan(request, tail, None).ok().flatten()
    }

    /// What the turn will be; `None` where it should run again but is not the last of its session.
    async fn plan(
        &self,
        store: &ChatStore,
        request: &TurnRequest,
        cached: Option<TurnPlan>,
        again: Option<&IdempotencyRecord>,
    ) -> Result<Option<TurnPlan>, ChatError> {
        let cached = cached.or_else(|| self.plan_from_cache(request));
        if let (Some(plan), None) = (cached, again) {
            return Ok(Some(plan));
        }
        let limit = self.planner.tail_limit(request, again);
        let tail: SessionTail = store
            .sessions()
            .with_tail(&request.owner, &request.session, limit)
            .await?;
        self.planner.plan(request, tail, again)
    }

    /// Waits for the turns before this one, here and on other instances. Whether it had to: then what was read is old.
    async fn wait_for_slot(
        &self,
        permit: &mut SessionPermit,
        store: &ChatStore,
        request: &TurnRequest,
        plan: &TurnPlan,
        give_up: tokio::time::Instant,
    ) -> Result<bool, ChatError> {
        if !permit.is_first() {
            self.wait_in_queue(permit, request, give_up).await?;
            return Ok(true);
        }
        match &plan.session.session.open {
            Some(open) => {
                self.wait_for_remote_turn(store, request, open, give_up)
                    .await?;
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
        give_up: tokio::time::Instant,
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
                () = tokio::time::sleep_until(give_up) => return Err(ChatError::SessionBusy),
                () = look_again => {
                    if let Some(key) = &request.key
                        && self.store.turns().idempotency(&request.owner, &key.digest).await?.is_some()
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
        give_up: tokio::time::Instant,
    ) -> Result<(), ChatError> {
        let (owner, session) = (&request.owner, &request.session);
        let mut store = store.clone();
        let closed = async {
            loop {
                match store.turns().get(owner, session, &open.id).await?.state {
                    TurnState::Running {
                        holder: LeaseHolder::Nobody,
                        ..
                    } => {
                        self.recovery
                            .close_dead(&store, owner, session, &open.id)
                            .await?;
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
        timeout_at(give_up, closed)
            .await
            .unwrap_or(Err(ChatError::SessionBusy))
    }

    /// Joins the turn that the request's key refers to now: it failed and is no longer the last of its session, or was run
    /// again meanwhile.
    async fn join_latest(
        &self,
        store: &ChatStore,
        request: &TurnRequest,
    ) -> Result<StartedTurn, ChatError> {
        let digest = request
            .key
            .as_ref()
            .map(|key| key.digest.as_str())
            .unwrap_or_default();
        let record = store.turns().idempotency(&request.owner, digest).await?;
        self.join(store, request, &record.ok_or(ChatError::MessageNotFound)?)
            .await
    }

    /// Joins the turn of an idempotency key. A replay costs nothing of the rate limit.
    async fn join(
        &self,
        store: &ChatStore,
        request: &TurnRequest,
        record: &IdempotencyRecord,
    ) -> Result<StartedTurn, ChatError> {
        let events = self
            .finder
            .subscribe(store, &request.owner, &record.id, 0)
            .await?;
        request.ticket.refund().await;
        Ok(StartedTurn {
            id: record.id.clone(),
            events,
        })
    }

    /// Subscribes to the events of an answer after that id: replayed, then live.
    ///
    /// # Errors
    /// [`ChatError::MessageNotFound`] where the owner has no such answer.
    pub async fn resume(
        &self,
        owner: &Owner,
        id: &MessageId,
        after: u64,
        deadline: Instant,
    ) -> Result<Subscriber, ChatError> {
        self.finder
            .subscribe(&self.store.by(deadline), owner, id, after)
            .await
    }

    /// Stops a turn, wherever it runs; one that has ended stays as it is.
    ///
    /// # Errors
    /// [`ChatError::MessageNotFound`] where the owner has no such answer.
    pub async fn cancel(
        &self,
        owner: &Owner,
        id: &MessageId,
        deadline: Instant,
    ) -> Result<(), ChatError> {
        self.finder
            .cancel(&self.store.by(deadline), owner, id)
            .await
    }
}

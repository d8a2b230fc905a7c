//! Starts turns, and finds them again.

use std::{sync::Arc, time::Instant};

use common::{
    config,
    identity::{Authenticator, Owner},
    shutdown::Shutdown,
};
use tokio::time::sleep;

use crate::{
    domain::{IdempotencyRecord, MessageId, SessionId},
    error::ChatError,
    events::{
        inbox::Inbox, log::Subscriber, recovery::Recovery, registry::Registry,
        remote_tail::RemoteTail, replicator::Replicator,
    },
    generation::tokens::TokenEstimates,
    llm::LlmService,
    store::{ChatStore, sessions::SessionTail},
    turns::{
        commit::{Committed, Committer, ReadyTurn},
        finalize::Finalizer,
        idempotency::{Idempotency, KeyState},
        plan::{Planner, TurnPlan},
        request::{StartedTurn, TurnRequest},
        resume::TurnFinder,
        session_cache::SessionCache,
        session_queue::{SESSION_WAIT, SessionPermit, SessionQueue},
        slot_waiter::{RETRY_INTERVAL, SlotWaiter},
        task::TurnRunner,
    },
};

pub struct TurnParts {
    pub store: ChatStore,
    pub authenticator: Authenticator,
    pub llm: LlmService,
    pub settings: config::Chat,
    /// LLM tokens that a user may use per day.
    pub tokens_per_day: Option<u64>,
    pub estimates: TokenEstimates,
    pub registry: Arc<Registry>,
    pub recovery: Recovery,
    pub shutdown: Shutdown,
}

pub struct TurnService {
    store: ChatStore,
    llm: LlmService,
    shutdown: Shutdown,
    queue: SessionQueue,
    cache: Arc<SessionCache>,
    planner: Planner,
    committer: Arc<Committer>,
    idempotency: Idempotency,
    finder: TurnFinder,
    waiter: SlotWaiter,
}

impl TurnService {
    /// The turns of this instance, with the task that replicates their events.
    pub fn new(parts: TurnParts) -> Self {
        let TurnParts { store, registry, recovery, shutdown, .. } = parts;
        Replicator::spawn(store.clone(), Arc::clone(&registry), &shutdown);
        let tail = RemoteTail::new(store.clone(), recovery.clone(), shutdown.clone());
        Inbox::spawn(store.clone(), Arc::clone(&registry), Arc::clone(&tail), &shutdown);
        let cache = Arc::new(SessionCache::default());
        let finalizer = Finalizer {
            store: store.clone(),
            cache: Arc::clone(&cache),
            history_messages: parts.settings.history_messages,
            shutdown: shutdown.clone(),
        };
        let runner = Arc::new(TurnRunner {
            store: store.clone(),
            registry: Arc::clone(&registry),
            estimates: parts.estimates.clone(),
            finalizer,
            shutdown: shutdown.clone(),
        });
        Self {
            queue: SessionQueue::default(),
            committer: Arc::new(Committer {
                store: store.clone(),
                authenticator: parts.authenticator,
                runner,
                tokens_per_day: parts.tokens_per_day,
                shutdown: shutdown.clone(),
            }),
            planner: Planner {
                llm: parts.llm.clone(),
                estimates: parts.estimates,
                settings: parts.settings,
                tokens_per_day: parts.tokens_per_day,
            },
            finder: TurnFinder {
                store: store.clone(),
                registry: Arc::clone(&registry),
                tail,
                recovery: recovery.clone(),
            },
            idempotency: Idempotency { registry, recovery: recovery.clone() },
            waiter: SlotWaiter { store: store.clone(), recovery, shutdown: shutdown.clone() },
            cache,
            llm: parts.llm,
            store,
            shutdown,
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
        let permit = self.reserve_slot(&request.identity.owner, &request.session);
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
        let request = Arc::new(request);
        self.planner.check(&request)?;
        let give_up = tokio::time::Instant::now() + SESSION_WAIT;
        let mut store = self.store.by(deadline);
        // A turn that can be planned from the cache is counted by the rate limit as it is accepted; any other before the
        // store is read for it.
        let mut cached = request.key.is_none().then(|| self.plan_from_cache(&request)).flatten();
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
                KeyState::Readable(record) => {
                    return Box::pin(self.join(&store, &request, &record)).await;
                }
                KeyState::Unsettled => {
                    sleep(RETRY_INTERVAL).await;
                    continue;
                }
            };
            let Some(plan) = self.plan(&store, &request, cached.take(), again.as_ref()).await?
            else {
                return Box::pin(self.join_latest(&store, &request)).await;
            };
            if self.waiter.wait_for_slot(&mut permit, &store, &request, &plan, give_up).await? {
                // What was read is old.
                store = self.store.clone();
                continue;
            }
            let generation = self.llm.enqueue(&plan.route, &request.identity.owner.user)?;
            let accept = self.planner.accept(&request, &plan, again);
            let ready = Box::new(ReadyTurn { plan, accept, generation, permit });
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
    fn plan_from_cache(&self, request: &TurnRequest) -> Option<Box<TurnPlan>> {
        let tail = self.cache.take(&request.identity.owner, &request.session)?;
        self.planner.plan(request, tail, None).ok().flatten()
    }

    /// What the turn will be; `None` where it should run again but is not the last of its session.
    async fn plan(
        &self,
        store: &ChatStore,
        request: &TurnRequest,
        cached: Option<Box<TurnPlan>>,
        again: Option<&IdempotencyRecord>,
    ) -> Result<Option<Box<TurnPlan>>, ChatError> {
        let cached = cached.or_else(|| self.plan_from_cache(request));
        if let (Some(plan), None) = (cached, again) {
            return Ok(Some(plan));
        }
        let limit = self.planner.tail_limit(request, again);
        let sessions = store.sessions();
        let tail = sessions.with_tail(&request.identity.owner, &request.session, limit);
        let tail: SessionTail = Box::pin(tail).await?;
        self.planner.plan(request, tail, again)
    }

    /// Joins the turn that the request's key refers to now: it failed and is no longer the last of its session, or was run
    /// again meanwhile.
    async fn join_latest(
        &self,
        store: &ChatStore,
        request: &TurnRequest,
    ) -> Result<StartedTurn, ChatError> {
        let digest = request.key.as_ref().map(|key| key.digest.as_str()).unwrap_or_default();
        let record = store.turns().idempotency(&request.identity.owner, digest).await?;
        self.join(store, request, &record.ok_or(ChatError::MessageNotFound)?).await
    }

    /// Joins the turn of an idempotency key. A replay costs nothing of the rate limit, unless there are many.
    async fn join(
        &self,
        store: &ChatStore,
        request: &TurnRequest,
        record: &IdempotencyRecord,
    ) -> Result<StartedTurn, ChatError> {
        let events = self.finder.subscribe(store, &request.identity.owner, &record.id, 0).await?;
        request.ticket.refund_replay().await;
        Ok(StartedTurn { id: record.id.clone(), identity: request.identity.clone(), events })
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
        self.finder.subscribe(&self.store.by(deadline), owner, id, after).await
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
        self.finder.cancel(&self.store.by(deadline), owner, id).await
    }
}

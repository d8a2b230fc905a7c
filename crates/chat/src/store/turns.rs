//! A turn by its answer's id: its state, its stored events, its lease, and the idempotency key that refers to it.

use std::time::Duration;

use common::{
    identity::Owner,
    store::{Committed, Op, Read, StoreError, Txn},
};
use serde::{Deserialize, Serialize};

use crate::{
    domain::{Ending, IdempotencyRecord, MessageId, OpenTurn, Session, SessionId},
    store::{
        ATTEMPTS, StoreContext,
        codec::decode,
        contended,
        control::{self, InboxRequest, TurnProgress},
        events::{EventBatch, StoredEvents},
        keys::Keys,
        sessions::{SessionStore, StoredSession},
        signed,
    },
};

/// How long the events of an ended turn can be read.
pub const REPLAY: Duration = Duration::from_secs(5 * 60);

/// For how long after the store was away a lapsed lease proves nothing: by then every living instance has renewed its own.
const RETAKE: Duration = Duration::from_secs(3);

/// Batches of events read at a time.
const EVENTS_STEP: i64 = 16;

/// What is stored of a turn that has ended or was withdrawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TurnRecord {
    pub session: SessionId,
    pub reply_to: MessageId,
    pub model: String,
    pub provider: String,
    /// Absent if it was withdrawn: its acceptance was given up before it was known, and must never be applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
}

impl TurnRecord {
    pub(super) fn new(session: &SessionId, open: &OpenTurn, ending: Option<Ending>) -> Self {
        Self {
            session: session.clone(),
            reply_to: open.reply_to.clone(),
            model: open.model.clone(),
            provider: open.provider.clone(),
            ending,
        }
    }
}

/// A turn as the store knows it.
#[derive(Clone, Debug)]
pub struct StoredTurn {
    /// The session that the turn's id belongs to; `None` where it is gone.
    pub session: Option<StoredSession>,
    pub state: TurnState,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TurnState {
    /// It is being answered, or was when its instance died.
    Running {
        open: OpenTurn,
        holder: LeaseHolder,
    },
    Ended(TurnRecord),
    /// It was never accepted, and never will be.
    Withdrawn,
    /// Nothing is stored beside a possible answer in the history.
    Forgotten,
}

impl TurnState {
    /// Whether it is open and nobody runs it.
    pub fn is_dead(&self) -> bool {
        matches!(self, Self::Running { holder: LeaseHolder::Nobody, .. })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseHolder {
    Instance(String),
    /// The lease has lapsed, but the store was away so recently that its instance may not have been able to renew it.
    Unknown,
    Nobody,
}

/// New events of a running turn, a renewal of its lease, or news for those who watch it, for [`TurnStore::replicate`].
#[derive(Debug)]
pub enum Replication {
    Events(Owner, MessageId, EventBatch),
    Lease(Owner, MessageId),
    Progress(String, Vec<TurnProgress>),
}

pub struct TurnStore<'a> {
    pub(super) context: &'a StoreContext,
}

impl TurnStore<'_> {
    pub(super) fn sessions(&self) -> SessionStore<'_> {
        SessionStore { context: self.context }
    }

    /// The state of a turn of that session.
    pub async fn get(
        &self,
        owner: &Owner,
        session: &SessionId,
        id: &MessageId,
    ) -> Result<StoredTurn, StoreError> {
        let keys = Keys::of(owner);
        let reads = vec![
            Read::Value(keys.session(session)),
            Read::Length(keys.messages(session)),
            Read::Value(keys.turn(id)),
            Read::Value(keys.lease(id.as_str())),
        ];
        let mut found = self.context.store.read(reads).await?;
        let session = found
            .value(0)
            .and_then(|record| StoredSession::decode(record, None, found.count(1)))
            .filter(|stored| stored.session.incarnation == id.incarnation());
        let open = session.as_ref().and_then(|stored| stored.session.open.clone());
        let record: Option<TurnRecord> = found.value(2).and_then(|value| decode(&value));
        let instance = found.value(3).and_then(|value| String::from_utf8(value.to_vec()).ok());
        let state = match (open.filter(|open| open.id == *id), record) {
            (Some(open), _) => {
                TurnState::Running { open, holder: self.context.holder(&keys, instance) }
            }
            (None, Some(record)) if record.ending.is_some() => TurnState::Ended(record),
            (None, Some(_)) => TurnState::Withdrawn,
            (None, None) => TurnState::Forgotten,
        };
        Ok(StoredTurn { session, state })
    }

    /// The stored events of a turn from that batch on, as many as one read returns.
    pub async fn events(
        &self,
        owner: &Owner,
        id: &MessageId,
        from_batch: usize,
    ) -> Result<StoredEvents, StoreError> {
        let start = i64::try_from(from_batch).unwrap_or(i64::MAX);
        let read = Read::Items {
            key: Keys::of(owner).events(id),
            start,
            stop: start.saturating_add(EVENTS_STEP - 1),
        };
        let items = self.context.store.read(vec![read]).await?.items(0);
        let more = signed(items.len() as u64) == EVENTS_STEP;
        Ok(StoredEvents { more, ..StoredEvents::decode(&items) })
    }

    /// Appends events and renews leases of running turns, in one pipeline to each node. Returns for each change whether its key
    /// existed: otherwise the turn was closed, or its session deleted. `None`: it may have been applied, or its key holds
    /// something else.
    pub async fn replicate(&self, changes: &[Replication]) -> Vec<Option<bool>> {
        let (mut ops, mut counts) = (Vec::new(), Vec::with_capacity(changes.len()));
        for change in changes {
            let before = ops.len();
            match change {
                Replication::Events(owner, id, batch) => {
                    let key = Keys::of(owner).events(id);
                    ops.extend(batch.items().map(|item| Op::PushExisting(key.clone(), item)));
                }
                Replication::Lease(owner, id) => {
                    let key = Keys::of(owner).lease(id.as_str());
                    ops.push(Op::Expire(key, Some(self.context.lease)));
                }
                Replication::Progress(instance, turns) => {
                    let turns = turns.clone();
                    let progress = control::send(instance, &InboxRequest::Progress { turns });
                    ops.extend(progress.into_iter().flatten());
                }
            }
            counts.push(ops.len() - before);
        }
        let Ok(applied) = self.context.store.apply_each(ops).await else {
            return vec![None; changes.len()];
        };
        let mut applied = applied.into_iter();
        let all = |count: usize| {
            // All of a change's own results are taken, also after a failure: the next ones are of the next change.
            let own: Vec<Result<bool, StoreError>> = applied.by_ref().take(count).collect();
            own.into_iter().try_fold(true, |all, own| own.ok().map(|own| all && own))
        };
        counts.into_iter().map(all).collect()
    }

    /// Takes a lapsed lease again; `false` if the turn was closed meanwhile.
    pub async fn retake_lease(
        &self,
        owner: &Owner,
        id: &SessionId,
        open: &OpenTurn,
    ) -> Result<bool, StoreError> {
        let keys = Keys::of(owner);
        for _ in 0..ATTEMPTS {
            let stored = self.sessions().get(owner, id).await?;
            let Some(stored) = stored.filter(|stored| stored.session.open.as_ref() == Some(open))
            else {
                return Ok(false);
            };
            let txn = Txn::relaxed().check(stored.unchanged(&keys, id)).op(Op::Set {
                key: keys.lease(open.id.as_str()),
                value: self.context.instance.to_string().into(),
                ttl: Some(self.context.lease),
            });
            if self.context.store.commit(txn).await? == Committed::Applied {
                return Ok(true);
            }
        }
        Err(contended())
    }

    /// What an idempotency key refers to; `digest` is the key's SHA-256.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where the record cannot be read: the key does not count as unused then.
    pub async fn idempotency(
        &self,
        owner: &Owner,
        digest: &str,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        let read = Read::Value(Keys::of(owner).idempotency(digest));
        let Some(value) = self.context.store.read(vec![read]).await?.value(0) else {
            return Ok(None);
        };
        let unreadable =
            || StoreError::Corrupt("an idempotency key's record cannot be read".into());
        decode(&value).map(Some).ok_or_else(unreadable)
    }
}

impl StoreContext {
    /// Who holds a lease, by what it holds.
    pub(super) fn holder(&self, keys: &Keys, lease: Option<String>) -> LeaseHolder {
        match lease.filter(|instance| self.may_live(instance)) {
            Some(instance) => LeaseHolder::Instance(instance),
            None if self.store.is_shared() && self.store.was_away(&keys.sessions(), RETAKE) => {
                LeaseHolder::Unknown
            }
            None => LeaseHolder::Nobody,
        }
    }
}

/// The time from which on ended turns are looked for to delete their events: twice as long as those are kept, since clocks
/// may differ. Unix milliseconds.
pub(super) fn replayable_since(now: i64) -> i64 {
    now - i64::try_from(2 * REPLAY.as_millis()).unwrap_or(i64::MAX)
}

/// What deletes the record and the events of a turn.
pub(super) fn forget(keys: &Keys, id: &MessageId) -> [Op; 2] {
    [keys.turn(id), keys.events(id)].map(Op::Delete)
}

/// A session with its open turn removed.
pub(super) fn without_turn(session: &Session) -> Session {
    Session { open: None, ..session.clone() }
}

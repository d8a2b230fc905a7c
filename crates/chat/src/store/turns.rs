//! A turn by its answer's id: how it stands, its events, its lease, and the idempotency key that remembers it.

use std::time::Duration;

use common::{
    identity::Owner,
    store::{Bytes, Committed, Op, Read, StoreError, Txn},
};

use crate::{
    domain::{
        MessageId, SessionId,
        records::{Ending, KeyRecord, OpenTurn, Session, TurnRecord, VERSION},
    },
    store::{
        ATTEMPTS, Repository,
        keys::Keys,
        sessions::{contended, unchanged},
    },
};

/// How long the events of an ended turn can be read.
pub const REPLAY: Duration = Duration::from_secs(5 * 60);

/// A turn as the store knows it.
#[derive(Clone, Debug)]
pub struct StoredTurn {
    /// The session in that life of it which the turn's id names; `None` where it is gone.
    pub session: Option<Session>,
    /// How it stands with the turn.
    pub state: TurnState,
    /// The batches of its log.
    pub batches: Vec<Bytes>,
}

/// How it stands with a turn.
#[derive(Clone, Debug, PartialEq)]
pub enum TurnState {
    /// It is being answered, or was when its instance died.
    Running {
        /// What its session has of it.
        open: OpenTurn,
        /// Who answers it.
        holder: Holder,
    },
    /// It has ended, not long ago.
    Ended(TurnRecord),
    /// It was never accepted, and never will be.
    Withdrawn,
    /// Nothing is kept of it beside what may stand in the history.
    Forgotten,
}

/// Who answers a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The instance that holds its lease.
    Instance(String),
    /// Its lease has lapsed, and the store was away so lately that its instance may not have been able to renew it yet.
    Unknown,
    /// Its instance is dead.
    Nobody,
}

/// For how long after the store was away a lease that lapsed says nothing: by then whoever lives has taken it again.
const RETAKE: Duration = Duration::from_secs(3);

/// From when on turns that ended are still looked for, to take their events away: twice the time for which those are kept,
/// since clocks may differ. Unix milliseconds.
pub(crate) fn noted_since(now: i64) -> i64 {
    now - i64::try_from(2 * REPLAY.as_millis()).unwrap_or(i64::MAX)
}

/// What takes away the record and the events of a turn.
pub(crate) fn forget(keys: &Keys, id: &MessageId) -> [Op; 2] {
    [keys.turn(id), keys.events(id)].map(Op::Delete)
}

impl TurnRecord {
    /// How that turn ended; `None`: it was withdrawn.
    pub(crate) fn of(session: &SessionId, open: &OpenTurn, ending: Option<Ending>) -> Self {
        Self {
            v: VERSION,
            session: session.clone(),
            reply_to: open.reply_to.clone(),
            model: open.model.clone(),
            provider: open.provider.clone(),
            ending,
        }
    }
}

impl TurnState {
    /// Whether it is open and nobody runs it.
    pub fn is_dead(&self) -> bool {
        matches!(
            self,
            Self::Running {
                holder: Holder::Nobody,
                ..
            }
        )
    }
}

impl Repository {
    /// The session whose life a message's id names; `None` where it is gone.
    pub async fn session_of(
        &self,
        owner: &Owner,
        id: &MessageId,
    ) -> Result<Option<SessionId>, StoreError> {
        let read = Read::Value(Keys::of(owner).incarnation(id.incarnation()));
        let value = self.store.read(vec![read]).await?.value(0);
        Ok(value.and_then(|value| SessionId::parse(std::str::from_utf8(&value).ok()?)))
    }

    /// What the store knows of a turn of that session; the batches of its log only where asked.
    pub async fn turn(
        &self,
        owner: &Owner,
        session: &SessionId,
        id: &MessageId,
        with_log: bool,
    ) -> Result<StoredTurn, StoreError> {
        let keys = Keys::of(owner);
        let mut reads = vec![
            Read::Value(keys.session(session)),
            Read::Length(keys.messages(session)),
            Read::Value(keys.turn(id)),
            Read::Value(keys.lease(id)),
        ];
        if with_log {
            reads.push(Read::Items {
                key: keys.events(id),
                start: 0,
                stop: -1,
            });
        }
        let mut found = self.store.read(reads).await?;
        let session = found
            .value(0)
            .and_then(|stored| Session::read(stored, found.count(1)))
            .filter(|session| session.incarnation == id.incarnation());
        let open = session.as_ref().and_then(|session| session.open.clone());
        let record: Option<TurnRecord> = found
            .value(2)
            .and_then(|value| serde_json::from_slice(&value).ok());
        let instance = found
            .value(3)
            .and_then(|value| String::from_utf8(value.to_vec()).ok())
            .filter(|instance| self.may_live(instance));
        let holder = match instance {
            Some(instance) => Holder::Instance(instance),
            None if self.store.is_shared() && self.store.was_away(RETAKE) => Holder::Unknown,
            None => Holder::Nobody,
        };
        let state = match (open.filter(|open| open.id == *id), record) {
            (Some(open), _) => TurnState::Running { open, holder },
            (None, Some(record)) if record.ending.is_some() => TurnState::Ended(record),
            (None, Some(_)) => TurnState::Withdrawn,
            (None, None) => TurnState::Forgotten,
        };
        Ok(StoredTurn {
            session,
            state,
            batches: found.items(4),
        })
    }

    /// The batches of a turn's log from that batch on.
    pub async fn batches(
        &self,
        owner: &Owner,
        id: &MessageId,
        from: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        let start = i64::try_from(from).unwrap_or(i64::MAX);
        let read = Read::Items {
            key: Keys::of(owner).events(id),
            start,
            stop: -1,
        };
        Ok(self.store.read(vec![read]).await?.items(0))
    }

    /// Mirrors events and renews leases of running turns, all in one pipeline; says for each change whether it took.
    pub async fn mirror(&self, ops: Vec<Op>) -> Result<Vec<bool>, StoreError> {
        self.store.apply(ops).await
    }

    /// Takes the lease again after it lapsed, unless the turn was closed meanwhile.
    pub async fn retake_lease(
        &self,
        owner: &Owner,
        id: &SessionId,
        open: &OpenTurn,
        instance: &str,
    ) -> Result<bool, StoreError> {
        let keys = Keys::of(owner);
        for _ in 0..ATTEMPTS {
            let session = self.view(owner, id, 0).await?.session;
            let Some(session) = session.filter(|session| session.open.as_ref() == Some(open))
            else {
                return Ok(false);
            };
            let txn = Txn::relaxed()
                .check(unchanged(&keys, id, &session))
                .op(Op::Set {
                    key: keys.lease(&open.id),
                    value: instance.to_owned().into(),
                    ttl: Some(self.lease),
                });
            if self.store.commit(txn).await? == Committed::Applied {
                return Ok(true);
            }
        }
        Err(contended())
    }

    /// What an idempotency key remembers, and those bytes as stored. One that cannot be read is no key that is free.
    pub async fn key(
        &self,
        owner: &Owner,
        digest: &str,
    ) -> Result<Option<(KeyRecord, Bytes)>, StoreError> {
        let read = Read::Value(Keys::of(owner).idempotency(digest));
        let value = self.store.read(vec![read]).await?.value(0);
        let Some(value) = value else { return Ok(None) };
        match serde_json::from_slice::<KeyRecord>(&value) {
            Ok(record) if record.v == VERSION => Ok(Some((record, value))),
            _ => Err(StoreError::Corrupt(
                "an idempotency key's record cannot be read".into(),
            )),
        }
    }
}

//! Sessions and their messages: the index, the hash, the list.

use std::{sync::Arc, time::Duration};

use common::{
    clock,
    identity::Owner,
    store::{Bytes, Check, Committed, Op, Read, StoreError, Txn},
};

use crate::{
    domain::{
        MessageId, SessionId, new_incarnation,
        records::{MessageRecord, Session, VERSION},
    },
    store::{ATTEMPTS, RUNNING_TTL, Repository, encode, keys::Keys},
};

/// A session and the newest of its messages, all at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// The session; `None` where there is none.
    pub session: Option<Session>,
    /// The newest messages, oldest first; a record that cannot be read is missing.
    pub tail: Vec<Arc<MessageRecord>>,
}

/// What a new session begins with.
#[derive(Clone, Debug, Default)]
pub struct NewSession {
    /// Its title; empty until the first message gives one.
    pub title: String,
    /// Its model.
    pub model: Option<String>,
    /// Its system prompt.
    pub system: Option<String>,
}

/// What to change of a session: `Some(None)` takes a value away.
#[derive(Clone, Debug, Default)]
pub struct SessionChange {
    /// The title.
    pub title: Option<String>,
    /// The model.
    pub model: Option<Option<String>>,
    /// The system prompt.
    pub system: Option<Option<String>>,
}

/// One row of the list of sessions: its id, the time of its last use, and the session unless it has expired or cannot be
/// read.
pub type Listed = (SessionId, i64, Option<Session>);

impl Session {
    /// A session that begins now, not stored yet.
    pub fn begin(new: NewSession) -> Self {
        let now = clock::now_ms();
        Self {
            v: VERSION,
            incarnation: new_incarnation(),
            title: new.title,
            model: new.model,
            last_model: None,
            system: new.system,
            created_at: now,
            updated_at: now,
            fence: 0,
            open: None,
            expires: false,
            count: 0,
            stored: Bytes::new(),
        }
    }

    /// Whether it is still to begin.
    pub fn is_new(&self) -> bool {
        self.stored.is_empty()
    }

    pub(crate) fn read(stored: Bytes, count: u64) -> Option<Self> {
        let session: Self = serde_json::from_slice(&stored).ok()?;
        (session.v == VERSION).then_some(Self {
            count,
            stored,
            ..session
        })
    }
}

impl Repository {
    /// A session with up to `tail` of its newest messages.
    pub async fn view(
        &self,
        owner: &Owner,
        id: &SessionId,
        tail: usize,
    ) -> Result<View, StoreError> {
        let keys = Keys::of(owner);
        let mut reads = vec![
            Read::Value(keys.session(id)),
            Read::Length(keys.messages(id)),
        ];
        if tail > 0 {
            let start = i64::try_from(tail).map_or(i64::MIN + 1, |tail| -tail);
            reads.push(Read::Items {
                key: keys.messages(id),
                start,
                stop: -1,
            });
        }
        let mut found = self.store.read(reads).await?;
        let session = match found.value(0) {
            Some(stored) => Some(Session::read(stored, found.count(1)).ok_or_else(unreadable)?),
            None => None,
        };
        let tail = match &session {
            Some(_) if tail > 0 => records_from(found.items(2)).map(Arc::new).collect(),
            _ => Vec::new(),
        };
        Ok(View { session, tail })
    }

    /// Messages from position `start` to `stop`, both included.
    pub async fn messages(
        &self,
        owner: &Owner,
        id: &SessionId,
        start: u64,
        stop: u64,
    ) -> Result<Vec<MessageRecord>, StoreError> {
        let read = Read::Items {
            key: Keys::of(owner).messages(id),
            start: signed(start),
            stop: signed(stop),
        };
        Ok(records_from(self.store.read(vec![read]).await?.items(0)).collect())
    }

    /// The message of that id; `None` where it is gone or was replaced.
    pub async fn message(
        &self,
        owner: &Owner,
        session: &SessionId,
        id: &MessageId,
    ) -> Result<Option<MessageRecord>, StoreError> {
        let at = id.position();
        let found = self.messages(owner, session, at, at).await?;
        Ok(found.into_iter().find(|record| record.id == *id))
    }

    /// Begins a session. `None`: it exists already.
    pub async fn create(
        &self,
        owner: &Owner,
        id: &SessionId,
        new: NewSession,
    ) -> Result<Option<Session>, StoreError> {
        let keys = Keys::of(owner);
        let session = Session::begin(new);
        let mut txn = Txn::durable()
            .check(unchanged(&keys, id, &session))
            // First what grows: a full store refuses a transaction at its first operation, or not at all.
            .op(used(&keys, id, &session))
            // What is left of an expired life of this id must not be seen by the new one.
            .op(Op::Delete(keys.messages(id)));
        let session = self.keep(&keys, id, session, Duration::ZERO, &mut txn)?;
        Ok((self.store.commit(txn).await? == Committed::Applied).then_some(session))
    }

    /// Sessions by last use, newest first, after `before` (the time of last use and the id of the page's last).
    pub async fn list(
        &self,
        owner: &Owner,
        before: Option<(i64, String)>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        let keys = Keys::of(owner);
        let read = Read::Newest {
            key: keys.sessions(),
            before,
            limit,
        };
        let members = self.store.read(vec![read]).await?.members(0);
        let ids: Vec<(SessionId, i64)> = members
            .into_iter()
            .filter_map(|(id, score)| Some((SessionId::parse(&id)?, score)))
            .collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let reads = ids
            .iter()
            .flat_map(|(id, _)| {
                [
                    Read::Value(keys.session(id)),
                    Read::Length(keys.messages(id)),
                ]
            })
            .collect();
        let mut found = self.store.read(reads).await?;
        let session = |i: usize| Session::read(found.value(2 * i)?, found.count(2 * i + 1));
        let sessions: Vec<Option<Session>> = (0..ids.len()).map(session).collect();
        let listed: Vec<Listed> = ids
            .into_iter()
            .zip(sessions)
            .map(|((id, at), session)| (id, at, session))
            .collect();
        self.forget_expired(&keys, &listed).await;
        Ok(listed)
    }

    /// Takes sessions that have expired out of the index; where that fails, the next listing tries again.
    async fn forget_expired(&self, keys: &Keys, listed: &[Listed]) {
        for (id, _, _) in listed.iter().filter(|(_, _, session)| session.is_none()) {
            let txn = Txn::relaxed()
                .check(Check::Absent(keys.session(id)))
                .op(Op::MemberDelete(keys.sessions(), id.to_string()));
            if self.store.commit(txn).await.is_err() {
                return;
            }
        }
    }

    /// Changes a session's own values. `None`: there is no such session.
    pub async fn change(
        &self,
        owner: &Owner,
        id: &SessionId,
        change: &SessionChange,
    ) -> Result<Option<Session>, StoreError> {
        let keys = Keys::of(owner);
        for _ in 0..ATTEMPTS {
            let Some(mut session) = self.view(owner, id, 0).await?.session else {
                return Ok(None);
            };
            let mut txn = Txn::durable().check(unchanged(&keys, id, &session));
            let SessionChange {
                title,
                model,
                system,
            } = change.clone();
            session.title = title.unwrap_or(session.title);
            session.model = model.unwrap_or(session.model);
            session.system = system.unwrap_or(session.system);
            let more = session
                .open
                .as_ref()
                .map_or(Duration::ZERO, |_| RUNNING_TTL);
            let session = self.keep(&keys, id, session, more, &mut txn)?;
            if self.store.commit(txn).await? == Committed::Applied {
                return Ok(Some(session));
            }
        }
        Err(contended())
    }

    /// Stores a session as it is now, and gives it its life anew: for ever, or as long as unused sessions live and so much
    /// `more`. Returns it as it then stands in the store.
    pub(crate) fn keep(
        &self,
        keys: &Keys,
        id: &SessionId,
        mut session: Session,
        more: Duration,
        txn: &mut Txn,
    ) -> Result<Session, StoreError> {
        let ttl = self.session_ttl.map(|ttl| ttl.saturating_add(more));
        let (is_new, expired) = (session.is_new(), session.expires);
        session.expires = ttl.is_some();
        session.stored = encode(&session)?;
        let incarnation = keys.incarnation(&session.incarnation);
        if is_new {
            txn.ops.push(Op::Set {
                key: incarnation.clone(),
                value: id.to_string().into(),
                ttl,
            });
        }
        txn.ops.push(Op::Set {
            key: keys.session(id),
            value: session.stored.clone(),
            ttl,
        });
        // All at one moment: nobody may find one of them without the others.
        if session.expires || expired {
            txn.ops
                .extend([keys.messages(id), incarnation].map(|key| Op::Expire(key, ttl)));
        }
        Ok(session)
    }
}

/// That nobody has changed the session since it was read; that there is none still, where it is to begin.
pub(crate) fn unchanged(keys: &Keys, id: &SessionId, session: &Session) -> Check {
    if session.is_new() {
        Check::Absent(keys.session(id))
    } else {
        Check::Equals(keys.session(id), session.stored.clone())
    }
}

/// Puts a session where its last use says in the list of its user's.
pub(crate) fn used(keys: &Keys, id: &SessionId, session: &Session) -> Op {
    Op::MemberSet(keys.sessions(), id.to_string(), session.updated_at)
}

fn unreadable() -> StoreError {
    StoreError::Corrupt("a session cannot be read".into())
}

/// The messages that can be read; one that cannot is counted and passed over, so that it hides nothing but itself.
pub(crate) fn records_from(items: Vec<Bytes>) -> impl Iterator<Item = MessageRecord> {
    let parse = |item: Bytes| match serde_json::from_slice::<MessageRecord>(&item) {
        Ok(record) if record.v == VERSION => Some(record),
        read => {
            metrics::counter!("history_records_skipped_total").increment(1);
            let error = read.err().map(|error| error.classify());
            tracing::warn!(?error, "a stored message cannot be read and is passed over");
            None
        }
    };
    items.into_iter().filter_map(parse)
}

/// A count as the store's counters hold it.
pub(crate) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Others kept coming first, more often than chance explains.
pub(crate) fn contended() -> StoreError {
    StoreError::Unavailable("a session kept changing under a change to it".into())
}

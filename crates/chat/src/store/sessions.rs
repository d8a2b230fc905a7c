//! Sessions: a value each, and its system prompt beside it.

use std::{sync::Arc, time::Duration};

use common::{
    clock,
    identity::Owner,
    store::{Bytes, Check, Committed, Op, Read, Snapshot, StoreError, Txn},
};

use crate::{
    domain::{Message, MessageId, NewSession, Session, SessionChange, SessionId},
    store::{
        ATTEMPTS, RUNNING_TTL, StoreContext,
        codec::{decode, encode_revised, head},
        contended,
        keys::Keys,
        message_sizes,
    },
};

/// A session as it was read, with the version that a change of it compares.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredSession {
    pub session: Session,
    /// The record; empty if it is not stored yet.
    version: Bytes,
}

impl StoredSession {
    /// A session that is not stored yet.
    pub fn begin(new: NewSession) -> Self {
        Self { session: Session::begin(new, clock::now_ms()), version: Bytes::new() }
    }

    pub fn is_new(&self) -> bool {
        self.version.is_empty()
    }

    /// About how much memory it takes, in bytes.
    pub fn size(&self) -> usize {
        2 * self.version.len() + self.session.system.as_ref().map_or(0, String::len)
    }

    pub(super) fn decode(record: Bytes, system: Option<Bytes>, message_count: u64) -> Option<Self> {
        let session: Session = decode(&record)?;
        Some(Self {
            session: Session {
                message_count,
                system: system.and_then(|system| String::from_utf8(system.to_vec()).ok()),
                ..session
            },
            version: record,
        })
    }

    /// What the reads of a session's record, its number of messages and its system prompt have found, in this order.
    pub(super) fn found(found: &mut Snapshot) -> Result<Option<Self>, StoreError> {
        let Some(record) = found.value(0) else { return Ok(None) };
        let unreadable = || StoreError::Corrupt("a session cannot be read".into());
        Self::decode(record, found.value(2), found.count(1)).map(Some).ok_or_else(unreadable)
    }

    /// That nobody has changed the session since it was read; that there still is none, if it is new.
    pub(super) fn unchanged(&self, keys: &Keys, id: &SessionId) -> Check {
        if self.is_new() {
            Check::Absent(keys.session(id))
        } else {
            Check::StartsWith(keys.session(id), head(&self.version))
        }
    }
}

/// A session and the newest of its messages.
#[derive(Clone, Debug, Default)]
pub struct SessionTail {
    /// `None` where there is no such session.
    pub session: Option<StoredSession>,
    /// The newest messages, oldest first; records that cannot be read are missing.
    pub messages: Vec<Arc<Message>>,
}

pub struct SessionStore<'a> {
    pub(super) context: &'a StoreContext,
}

impl SessionStore<'_> {
    /// A session without its messages.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where the record cannot be read.
    pub async fn get(
        &self,
        owner: &Owner,
        id: &SessionId,
    ) -> Result<Option<StoredSession>, StoreError> {
        let keys = Keys::of(owner);
        let reads = vec![
            Read::Value(keys.session(id)),
            Read::Length(keys.messages(id)),
            Read::Value(keys.system_prompt(id)),
        ];
        StoredSession::found(&mut self.context.store.read(reads).await?)
    }

    /// The session that a message's id belongs to; `None` where it is gone.
    pub async fn of_message(
        &self,
        owner: &Owner,
        id: &MessageId,
    ) -> Result<Option<SessionId>, StoreError> {
        let read = Read::Value(Keys::of(owner).incarnation(id.incarnation()));
        let value = self.context.store.read(vec![read]).await?.value(0);
        Ok(value.and_then(|value| SessionId::parse(std::str::from_utf8(&value).ok()?)))
    }

    /// Creates a session. `None`: it exists already.
    pub async fn create(
        &self,
        owner: &Owner,
        id: &SessionId,
        new: NewSession,
    ) -> Result<Option<Session>, StoreError> {
        let keys = Keys::of(owner);
        let stored = StoredSession::begin(new);
        let mut txn = Txn::durable()
            .check(stored.unchanged(&keys, id))
            // First what grows: a full store refuses a transaction at its first operation, or not at all.
            .op(touch(&keys, id, &stored.session))
            // Remains of an expired session with this id must not be seen in the new one.
            .ops(message_sizes::delete(&keys, id));
        set_system_prompt(&keys, id, &stored.session, &mut txn);
        let kept = self.context.keep(
            &keys,
            id,
            &stored,
            stored.session.clone(),
            Duration::ZERO,
            &mut txn,
        )?;
        Ok((self.context.store.commit(txn).await? == Committed::Applied).then_some(kept.session))
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
            let Some(stored) = self.get(owner, id).await? else { return Ok(None) };
            let mut session = stored.session.clone();
            let mut txn = Txn::durable().check(stored.unchanged(&keys, id));
            let SessionChange { title, model, system } = change.clone();
            session.title = title.unwrap_or(session.title);
            session.model = model.unwrap_or(session.model);
            if let Some(system) = system {
                session.system = system;
                set_system_prompt(&keys, id, &session, &mut txn);
            }
            let more = session.open.as_ref().map_or(Duration::ZERO, |_| RUNNING_TTL);
            let kept = self.context.keep(&keys, id, &stored, session, more, &mut txn)?;
            if self.context.store.commit(txn).await? == Committed::Applied {
                return Ok(Some(kept.session));
            }
        }
        Err(contended())
    }
}

impl StoreContext {
    /// Writes a session, and renews its time to live: none, or as long as unused sessions live plus `more`. `before` is what it
    /// replaces. Returns it as it is then stored.
    pub(super) fn keep(
        &self,
        keys: &Keys,
        id: &SessionId,
        before: &StoredSession,
        mut session: Session,
        more: Duration,
        txn: &mut Txn,
    ) -> Result<StoredSession, StoreError> {
        let ttl = self.session_ttl.map(|ttl| ttl.saturating_add(more));
        let expired = session.expires;
        session.expires = ttl.is_some();
        let version = encode_revised(&session)?;
        let incarnation = keys.incarnation(&session.incarnation);
        if before.is_new() {
            txn.ops.push(Op::Set { key: incarnation.clone(), value: id.to_string().into(), ttl });
        }
        txn.ops.push(Op::Set { key: keys.session(id), value: version.clone(), ttl });
        // All at one moment: nobody may find one of them without the others.
        if session.expires || expired {
            let with_it =
                [keys.messages(id), keys.message_sizes(id), incarnation, keys.system_prompt(id)];
            txn.ops.extend(with_it.map(|key| Op::Expire(key, ttl)));
            // The index outlives every session in it.
            let ttl = ttl.map(|ttl| ttl.saturating_add(RUNNING_TTL));
            txn.ops.push(Op::Expire(keys.sessions(), ttl));
        }
        Ok(StoredSession { session, version })
    }
}

/// Moves a session to its place in the list of its user's sessions.
pub(super) fn touch(keys: &Keys, id: &SessionId, session: &Session) -> Op {
    Op::MemberSet(keys.sessions(), id.to_string(), session.updated_at)
}

fn set_system_prompt(keys: &Keys, id: &SessionId, session: &Session, txn: &mut Txn) {
    let key = keys.system_prompt(id);
    txn.ops.push(match &session.system {
        Some(system) => Op::Set { key, value: system.clone().into(), ttl: None },
        None => Op::Delete(key),
    });
}

//! Sessions and their messages: an index of sessions by last use, a value a session, a list of messages.

use std::{sync::Arc, time::Duration};

use common::{
    clock,
    identity::Owner,
    store::{Bytes, Check, Committed, Op, Read, StoreError, Txn},
};

use crate::{
    domain::{Message, MessageId, NewSession, Session, SessionChange, SessionId},
    store::{
        ATTEMPTS, Context, RUNNING_TTL,
        codec::{decode, encode},
        contended,
        keys::Keys,
        signed,
    },
};

/// Messages read with a session for its next prompt, before the size of its messages is known.
const FIRST_TAIL_READ: usize = 8;

/// Text, in bytes, that one read of messages is to return, judged by the size of the messages before.
const READ_SIZE: usize = 512 * 1024;

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
        Self {
            session: Session::begin(new, clock::now_ms()),
            version: Bytes::new(),
        }
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

    /// That nobody has changed the session since it was read; that there still is none, if it is new.
    pub(super) fn unchanged(&self, keys: &Keys, id: &SessionId) -> Check {
        if self.is_new() {
            Check::Absent(keys.session(id))
        } else {
            Check::Equals(keys.session(id), self.version.clone())
        }
    }
}

/// A session and the newest of its messages.
#[derive(Clone, Debug)]
pub struct SessionTail {
    /// `None` where there is no such session.
    pub session: Option<StoredSession>,
    /// The newest messages, oldest first; records that cannot be read are missing.
    pub messages: Vec<Arc<Message>>,
}

/// How much of a session's history is read for a prompt: until one of the two is reached.
#[derive(Clone, Copy, Debug)]
pub struct TailLimit {
    pub messages: usize,
    /// Bytes of text.
    pub bytes: usize,
}

/// A row of the list of sessions: its id, the time of its last use, and the session unless it has expired or cannot be read.
pub type ListedSession = (SessionId, i64, Option<Session>);

/// Reads and changes sessions.
pub struct SessionStore<'a> {
    pub(super) context: &'a Context,
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
        Ok(self.read(owner, id, 0).await?.session)
    }

    /// A session with its newest messages, at least one if it has any. Reads in steps whose size follows from the messages
    /// read before, so that long messages make no long reads.
    pub async fn with_tail(
        &self,
        owner: &Owner,
        id: &SessionId,
        limit: TailLimit,
    ) -> Result<SessionTail, StoreError> {
        let mut tail = self
            .read(owner, id, limit.messages.min(FIRST_TAIL_READ))
            .await?;
        let Some(count) = tail
            .session
            .as_ref()
            .map(|stored| stored.session.message_count)
        else {
            return Ok(tail);
        };
        let mut start = count.saturating_sub(limit.messages.min(FIRST_TAIL_READ) as u64);
        let oldest = count.saturating_sub(limit.messages as u64);
        let mut size: usize = tail.messages.iter().map(|message| message.size()).sum();
        while start > oldest && size < limit.bytes {
            let average = size / tail.messages.len().max(1) + 1;
            let step = ((limit.bytes - size).min(READ_SIZE) / average).max(1) as u64;
            let (from, stop) = (start.saturating_sub(step).max(oldest), start - 1);
            let older = self.messages(owner, id, from, stop).await?;
            size += older.iter().map(Message::size).sum::<usize>();
            tail.messages.splice(..0, older.into_iter().map(Arc::new));
            start = from;
        }
        Ok(tail)
    }

    async fn read(
        &self,
        owner: &Owner,
        id: &SessionId,
        tail: usize,
    ) -> Result<SessionTail, StoreError> {
        let keys = Keys::of(owner);
        let mut reads = vec![
            Read::Value(keys.session(id)),
            Read::Length(keys.messages(id)),
            Read::Value(keys.system_prompt(id)),
        ];
        if tail > 0 {
            let start = i64::try_from(tail).map_or(i64::MIN + 1, |tail| -tail);
            reads.push(Read::Items {
                key: keys.messages(id),
                start,
                stop: -1,
            });
        }
        let mut found = self.context.store.read(reads).await?;
        let Some(record) = found.value(0) else {
            return Ok(SessionTail {
                session: None,
                messages: Vec::new(),
            });
        };
        let session = StoredSession::decode(record, found.value(2), found.count(1))
            .ok_or_else(|| StoreError::Corrupt("a session cannot be read".into()))?;
        let messages = if tail > 0 {
            decode_messages(found.items(3)).map(Arc::new).collect()
        } else {
            Vec::new()
        };
        Ok(SessionTail {
            session: Some(session),
            messages,
        })
    }

    /// Messages from position `start` to `stop`, both included.
    pub async fn messages(
        &self,
        owner: &Owner,
        id: &SessionId,
        start: u64,
        stop: u64,
    ) -> Result<Vec<Message>, StoreError> {
        let read = Read::Items {
            key: Keys::of(owner).messages(id),
            start: signed(start),
            stop: signed(stop),
        };
        Ok(decode_messages(self.context.store.read(vec![read]).await?.items(0)).collect())
    }

    /// The message of that id; `None` where it is gone or was replaced.
    pub async fn message(
        &self,
        owner: &Owner,
        session: &SessionId,
        id: &MessageId,
    ) -> Result<Option<Message>, StoreError> {
        let at = id.position();
        let found = self.messages(owner, session, at, at).await?;
        Ok(found.into_iter().find(|message| message.id == *id))
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
            .op(Op::Delete(keys.messages(id)));
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

    /// Sessions by last use, newest first, after `before` (the time of last use and the id of the last row seen).
    pub async fn list(
        &self,
        owner: &Owner,
        before: Option<(i64, String)>,
        limit: usize,
    ) -> Result<Vec<ListedSession>, StoreError> {
        let keys = Keys::of(owner);
        let read = Read::Newest {
            key: keys.sessions(),
            before,
            limit,
        };
        let members = self.context.store.read(vec![read]).await?.members(0);
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
        let mut found = self.context.store.read(reads).await?;
        let mut session = |i: usize| {
            let stored = StoredSession::decode(found.value(2 * i)?, None, found.count(2 * i + 1))?;
            Some(stored.session)
        };
        let sessions: Vec<Option<Session>> = (0..ids.len()).map(&mut session).collect();
        let listed: Vec<ListedSession> = ids
            .into_iter()
            .zip(sessions)
            .map(|((id, at), session)| (id, at, session))
            .collect();
        self.forget_expired(&keys, &listed).await;
        Ok(listed)
    }

    /// Removes expired sessions from the index; if that fails, the next listing tries again.
    async fn forget_expired(&self, keys: &Keys, listed: &[ListedSession]) {
        for (id, _, _) in listed.iter().filter(|(_, _, session)| session.is_none()) {
            let txn = Txn::relaxed()
                .check(Check::Absent(keys.session(id)))
                .op(Op::MemberDelete(keys.sessions(), id.to_string()));
            if self.context.store.commit(txn).await.is_err() {
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
            let Some(stored) = self.get(owner, id).await? else {
                return Ok(None);
            };
            let mut session = stored.session.clone();
            let mut txn = Txn::durable().check(stored.unchanged(&keys, id));
            let SessionChange {
                title,
                model,
                system,
            } = change.clone();
            session.title = title.unwrap_or(session.title);
            session.model = model.unwrap_or(session.model);
            if let Some(system) = system {
                session.system = system;
                session.system_version += 1;
                set_system_prompt(&keys, id, &session, &mut txn);
            }
            let more = session
                .open
                .as_ref()
                .map_or(Duration::ZERO, |_| RUNNING_TTL);
            let kept = self
                .context
                .keep(&keys, id, &stored, session, more, &mut txn)?;
            if self.context.store.commit(txn).await? == Committed::Applied {
                return Ok(Some(kept.session));
            }
        }
        Err(contended())
    }
}

impl Context {
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
        let version = encode(&session)?;
        let incarnation = keys.incarnation(&session.incarnation);
        if before.is_new() {
            txn.ops.push(Op::Set {
                key: incarnation.clone(),
                value: id.to_string().into(),
                ttl,
            });
        }
        txn.ops.push(Op::Set {
            key: keys.session(id),
            value: version.clone(),
            ttl,
        });
        // All at one moment: nobody may find one of them without the others.
        if session.expires || expired {
            let keys = [keys.messages(id), incarnation, keys.system_prompt(id)];
            txn.ops.extend(keys.map(|key| Op::Expire(key, ttl)));
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
        Some(system) => Op::Set {
            key,
            value: system.clone().into(),
            ttl: None,
        },
        None => Op::Delete(key),
    });
}

/// The messages that can be read; one that cannot is counted and skipped, so that it hides nothing but itself.
pub(super) fn decode_messages(items: Vec<Bytes>) -> impl Iterator<Item = Message> {
    let parse = |item: Bytes| {
        let message = decode(&item);
        if message.is_none() {
            metrics::counter!("history_records_skipped_total").increment(1);
            tracing::warn!("skipped a stored message that cannot be read");
        }
        message
    };
    items.into_iter().filter_map(parse)
}

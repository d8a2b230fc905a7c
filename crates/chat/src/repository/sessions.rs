//! Sessions and their messages: the index, the hash, the list.

use std::{collections::HashMap, time::Duration};

use common::{
    clock,
    identity::Owner,
    store::{Bytes, Check, Committed, Op, Read, StoreError, Txn},
};

use super::{ATTEMPTS, Repository, keys::Keys, turns::RUNNING_TTL};
use crate::models::{
    MessageId, SessionId, new_incarnation,
    records::{MessageRecord, Session, VERSION},
};

/// Turns of one user whose events are looked through when a session is deleted: more than a rate limit lets begin in the
/// minutes that events are kept.
const RECENT_MAX: usize = 100_000;

/// A session and the newest of its messages, all at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// The store's clock: Unix milliseconds.
    pub now: i64,
    /// The session; `None` where there is none.
    pub session: Option<Session>,
    /// The newest messages, oldest first; a record that cannot be read is missing.
    pub tail: Vec<MessageRecord>,
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

/// One row of the list of sessions: its id, the time of its last use, and the session unless it has expired.
pub type Listed = (SessionId, i64, Option<Session>);

impl Session {
    /// A session that begins now.
    pub fn begin(new: NewSession) -> Self {
        let now = clock::now_ms();
        Self {
            incarnation: new_incarnation(),
            title: new.title,
            model: new.model,
            last_model: None,
            system: new.system,
            created_at: now,
            updated_at: now,
            count: 0,
            fence: 0,
            open: None,
        }
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
            Read::Fields(keys.session(id)),
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
        let session = session_from(found.fields(0), found.count(1));
        let tail = if session.is_some() {
            records_from(found.items(2))
        } else {
            Vec::new()
        };
        Ok(View {
            now: found.now,
            session,
            tail,
        })
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
        Ok(records_from(self.store.read(vec![read]).await?.items(0)))
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
        let mut txn = Txn::durable().check(Check::Absent(keys.session(id)));
        txn.ops = begin_session(&keys, id, &session);
        self.keep_alive(&keys, id, &session.incarnation, &mut txn);
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
                    Read::Fields(keys.session(id)),
                    Read::Length(keys.messages(id)),
                ]
            })
            .collect();
        let mut found = self.store.read(reads).await?;
        let session = |i: usize| session_from(found.fields(2 * i), found.count(2 * i + 1));
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
            let Some(session) = self.view(owner, id, 0).await?.session else {
                return Ok(None);
            };
            let key = keys.session(id);
            let set = |name: &str, text: &String| {
                Op::FieldSet(key.clone(), name.into(), text.clone().into())
            };
            let mut txn = Txn::durable().check(same_life(&keys, id, &session));
            txn.ops
                .extend(change.title.as_ref().map(|title| set("title", title)));
            for (name, value) in [("model", &change.model), ("system", &change.system)] {
                txn.ops.extend(value.as_ref().map(|value| match value {
                    Some(text) => set(name, text),
                    None => Op::FieldDelete(key.clone(), name.into()),
                }));
            }
            let more = session
                .open
                .as_ref()
                .map_or(Duration::ZERO, |_| RUNNING_TTL);
            self.keep_alive_for(&keys, id, &session.incarnation, more, &mut txn);
            if self.store.commit(txn).await? == Committed::Applied {
                return Ok(self.view(owner, id, 0).await?.session);
            }
        }
        Err(contended())
    }

    /// Deletes a session with its messages and the turn that it is answering, and returns it as it was; `None`: there
    /// was none.
    pub async fn delete(
        &self,
        owner: &Owner,
        id: &SessionId,
    ) -> Result<Option<Session>, StoreError> {
        let keys = Keys::of(owner);
        for _ in 0..ATTEMPTS {
            let Some(session) = self.view(owner, id, 0).await?.session else {
                return Ok(None);
            };
            let key = keys.session(id);
            let mut txn = Txn::durable()
                .check(same_life(&keys, id, &session))
                .check(match &session.open {
                    Some(open) => Check::FieldEquals(key.clone(), "open".into(), open.clone()),
                    None => Check::FieldAbsent(key.clone(), "open".into()),
                })
                .op(Op::Delete(key))
                .op(Op::Delete(keys.messages(id)))
                .op(Op::Delete(keys.incarnation(&session.incarnation)))
                .op(Op::MemberDelete(keys.sessions(), id.to_string()));
            txn.ops.extend(self.forget_events(&keys, &session).await?);
            if let Some(open) = session.open_turn() {
                txn.ops.extend(
                    [
                        keys.turn(&open.id),
                        keys.events(&open.id),
                        keys.lease(&open.id),
                    ]
                    .map(Op::Delete),
                );
                txn.ops.push(Op::FieldAdd(
                    keys.usage(&open.day),
                    "held".into(),
                    -signed(open.reserved),
                ));
            }
            if self.store.commit(txn).await? == Committed::Applied {
                return Ok(Some(session));
            }
        }
        Err(contended())
    }

    /// What takes away the events of a session's ended turns, which hold its text for some minutes.
    async fn forget_events(&self, keys: &Keys, session: &Session) -> Result<Vec<Op>, StoreError> {
        let read = Read::Since {
            key: keys.recent(),
            score: 0,
            limit: RECENT_MAX,
        };
        let recent = self.store.read(vec![read]).await?.members(0);
        let own = recent
            .into_iter()
            .filter_map(|(id, _)| MessageId::parse(&id));
        let own = own.filter(|id| id.incarnation() == session.incarnation);
        let forget = |id: MessageId| {
            [
                Op::Delete(keys.turn(&id)),
                Op::Delete(keys.events(&id)),
                Op::MemberDelete(keys.recent(), id.to_string()),
            ]
        };
        Ok(own.flat_map(forget).collect())
    }

    /// Gives a session its life anew: for ever, or as long as unused sessions live.
    pub(super) fn keep_alive(&self, keys: &Keys, id: &SessionId, incarnation: &str, txn: &mut Txn) {
        self.keep_alive_for(keys, id, incarnation, Duration::ZERO, txn);
    }

    /// The same, with so much more where sessions expire.
    pub(super) fn keep_alive_for(
        &self,
        keys: &Keys,
        id: &SessionId,
        incarnation: &str,
        more: Duration,
        txn: &mut Txn,
    ) {
        // All at one moment: nobody may find one of them without the others.
        let ttl = self.session_ttl.map(|ttl| ttl.saturating_add(more));
        let own = [
            keys.session(id),
            keys.messages(id),
            keys.incarnation(incarnation),
        ];
        txn.ops.extend(own.map(|key| Op::Expire(key, ttl)));
    }
}

/// The changes that begin a session.
pub(super) fn begin_session(keys: &Keys, id: &SessionId, session: &Session) -> Vec<Op> {
    let key = keys.session(id);
    let field =
        |name: &str, value: &str| Op::FieldSet(key.clone(), name.into(), value.to_owned().into());
    // First what grows: a full store refuses a transaction at its first operation, or not at all.
    let mut ops = vec![
        field("v", &VERSION.to_string()),
        field("inc", &session.incarnation),
        field("title", &session.title),
        field("created", &session.created_at.to_string()),
        field("updated", &session.updated_at.to_string()),
        field("fence", &session.fence.to_string()),
    ];
    ops.extend(session.model.as_deref().map(|model| field("model", model)));
    ops.extend(
        session
            .system
            .as_deref()
            .map(|system| field("system", system)),
    );
    // What is left of an expired life of this id must not be seen by the new one.
    ops.push(Op::Delete(keys.messages(id)));
    ops.push(Op::Set {
        key: keys.incarnation(&session.incarnation),
        value: id.to_string().into(),
        ttl: None,
    });
    ops.push(Op::MemberSet(
        keys.sessions(),
        id.to_string(),
        session.updated_at,
    ));
    ops
}

/// That the session was not deleted, nor deleted and begun anew.
pub(super) fn same_life(keys: &Keys, id: &SessionId, session: &Session) -> Check {
    Check::FieldEquals(
        keys.session(id),
        "inc".into(),
        session.incarnation.clone().into(),
    )
}

/// A session out of its hash; `None` where it is absent or not of our making.
fn session_from(mut fields: HashMap<String, Bytes>, count: u64) -> Option<Session> {
    let open = fields.remove("open");
    let mut text = |name: &str| {
        fields
            .remove(name)
            .and_then(|value| String::from_utf8(value.to_vec()).ok())
    };
    Some(Session {
        incarnation: text("inc")?,
        title: text("title").unwrap_or_default(),
        model: text("model"),
        last_model: text("last_model"),
        system: text("system"),
        created_at: text("created")?.parse().ok()?,
        updated_at: text("updated")?.parse().ok()?,
        count,
        fence: text("fence")?.parse().ok()?,
        open,
    })
}

/// The messages that can be read; one that cannot is counted and passed over, so that it hides nothing but itself.
pub(super) fn records_from(items: Vec<Bytes>) -> Vec<MessageRecord> {
    let parse = |item: Bytes| match serde_json::from_slice::<MessageRecord>(&item) {
        Ok(record) if record.v == VERSION => Some(record),
        read => {
            metrics::counter!("history_records_skipped_total").increment(1);
            let error = read.err().map(|error| error.classify());
            tracing::warn!(?error, "a stored message cannot be read and is passed over");
            None
        }
    };
    items.into_iter().filter_map(parse).collect()
}

/// A count as the store's counters hold it.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Others kept coming first, more often than chance explains.
pub(super) fn contended() -> StoreError {
    StoreError::Unavailable("a session kept changing under a change to it".into())
}

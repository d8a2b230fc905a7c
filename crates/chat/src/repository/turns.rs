//! A turn's life in the store: accept and finish, each one step; its lease, its events, its record.

use std::time::Duration;

use common::{
    clock,
    identity::Owner,
    store::{Bytes, Check, Committed, Op, Read, StoreError, Txn},
};

use super::{
    Repository, encode,
    keys::Keys,
    sessions::{begin_session, same_life, signed},
};
use crate::models::{
    MessageId, SessionId, Usage,
    records::{Ending, KeyRecord, MessageRecord, OpenTurn, Session, TurnRecord, VERSION},
};

/// How long the events of an ended turn can be read.
pub const REPLAY: Duration = Duration::from_secs(5 * 60);

/// How long an idempotency key is remembered.
pub const KEY_TTL: Duration = Duration::from_secs(24 * 3600);

/// How long what belongs to a running turn outlives an instance that never came back to it.
pub(super) const RUNNING_TTL: Duration = Duration::from_secs(25 * 3600);

/// How long a day's usage is kept.
const USAGE_TTL: Duration = Duration::from_secs(48 * 3600);

/// How long a withdrawn accept is barred: longer than any store holds a command back.
const TOMBSTONE_TTL: Duration = Duration::from_secs(3600);

/// Everything that accepting a turn changes.
#[derive(Clone, Debug)]
pub struct Accept {
    /// The session.
    pub session_id: SessionId,
    /// The session as it was read; `begins` says whether this turn begins it.
    pub session: Session,
    /// Whether the session does not exist yet.
    pub begins: bool,
    /// The turn.
    pub open: OpenTurn,
    /// The user's message; `None` where the turn answers one that is stored already.
    pub message: Option<MessageRecord>,
    /// The idempotency key's digest, what it is to remember, and what it remembers now.
    pub key: Option<(String, KeyRecord, Option<Bytes>)>,
    /// The day's quota in tokens.
    pub quota: Option<u64>,
    /// The instance that runs the turn.
    pub instance: String,
    /// The turn's first event, as a line of its log.
    pub first_line: String,
}

/// How accepting went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// The turn is ours.
    Yes,
    /// The session or the key changed since they were read: read again.
    Changed,
    /// The day's quota does not hold the reservation.
    QuotaExceeded,
}

/// Everything that finishing a turn changes.
#[derive(Clone, Debug)]
pub struct Finish {
    /// The session.
    pub session_id: SessionId,
    /// The turn, as read or made.
    pub open: OpenTurn,
    /// The answer, where it has text or thoughts.
    pub answer: Option<MessageRecord>,
    /// How it ended.
    pub ending: Ending,
    /// What it cost, for the day's account.
    pub usage: Usage,
    /// The lines of its log that are not stored yet, the ending's last.
    pub lines: String,
    /// Whether it may be finished only because its instance is dead: the lease must be gone.
    pub dead: bool,
}

/// How finishing went.
#[derive(Clone, Debug, PartialEq)]
pub enum Finished {
    /// It is stored.
    Yes,
    /// Somebody else closed it: this is how.
    Stale(Option<Ending>),
    /// The session is gone.
    SessionGone,
}

/// A turn as the store knows it.
#[derive(Clone, Debug)]
pub struct StoredTurn {
    /// Its record; `None` where it is forgotten or never was.
    pub record: Option<TurnRecord>,
    /// The session that its id names, while that lives.
    pub session: Option<SessionId>,
    /// The batches of its log.
    pub batches: Vec<Bytes>,
    /// The instance that holds its lease.
    pub instance: Option<String>,
}

impl Repository {
    /// Takes the session's lease, remembers the key and appends the message: all or nothing. Safe to repeat: see
    /// [`Self::was_accepted`].
    pub async fn accept(&self, owner: &Owner, accept: &Accept) -> Result<Accepted, StoreError> {
        let keys = Keys::of(owner);
        let (txn, quota_check) = self.accept_txn(&keys, accept)?;
        Ok(match self.store.commit(txn).await? {
            Committed::Applied => Accepted::Yes,
            Committed::Refused(check) if Some(check) == quota_check => Accepted::QuotaExceeded,
            Committed::Refused(_) => Accepted::Changed,
        })
    }

    fn accept_txn(&self, keys: &Keys, accept: &Accept) -> Result<(Txn, Option<usize>), StoreError> {
        let Accept {
            session_id: id,
            session,
            open,
            ..
        } = accept;
        let key = keys.session(id);
        let mut txn = Txn::durable().check(Check::Absent(keys.turn(&open.id)));
        if accept.begins {
            txn = txn.check(Check::Absent(key.clone()));
            txn.ops = begin_session(keys, id, session);
        } else {
            txn = txn
                .check(same_life(keys, id, session))
                .check(Check::FieldEquals(
                    key.clone(),
                    "fence".into(),
                    session.fence.to_string().into(),
                ))
                // What stands there and is no turn of ours cannot be closed by anybody: it is written over.
                .check(match &session.open {
                    Some(garbage) => {
                        Check::FieldEquals(key.clone(), "open".into(), garbage.clone())
                    }
                    None => Check::FieldAbsent(key.clone(), "open".into()),
                })
                .check(Check::LengthIs(keys.messages(id), session.count));
        }
        let set = |name: &str, value: Bytes| Op::FieldSet(key.clone(), name.into(), value);
        txn.ops.push(set("fence", open.fence.to_string().into()));
        txn.ops.push(set("open", encode(open)?));
        txn.ops.push(set("last_model", open.model.clone().into()));
        if let Some(message) = &accept.message {
            txn.ops.push(set("updated", message.at.to_string().into()));
            txn.ops.push(Op::Push(keys.messages(id), encode(message)?));
            txn.ops
                .push(Op::MemberSet(keys.sessions(), id.to_string(), message.at));
            if session.title.is_empty() {
                txn.ops
                    .push(set("title", title_of(&message.content).into()));
            }
        }
        // A session that is being answered is in use, however long that takes.
        self.keep_alive_for(keys, id, &session.incarnation, RUNNING_TTL, &mut txn);
        let record = running_record(id, open);
        txn.ops.extend([
            Op::Set {
                key: keys.turn(&open.id),
                value: encode(&record)?,
                ttl: Some(RUNNING_TTL),
            },
            Op::Push(keys.events(&open.id), accept.first_line.clone().into()),
            Op::Expire(keys.events(&open.id), Some(RUNNING_TTL)),
            Op::Set {
                key: keys.lease(&open.id),
                value: accept.instance.clone().into(),
                ttl: Some(self.lease),
            },
        ]);
        txn.ops.extend(note_recent(keys, &open.id, clock::now_ms()));
        self.remember_key(keys, accept, &mut txn)?;
        let quota_check = reserve(keys, &open.day, open.reserved, accept.quota, &mut txn);
        Ok((txn, quota_check))
    }

    fn remember_key(&self, keys: &Keys, accept: &Accept, txn: &mut Txn) -> Result<(), StoreError> {
        if let Some((digest, record, before)) = &accept.key {
            let key = keys.idempotency(digest);
            txn.checks.push(match before {
                Some(before) => Check::Equals(key.clone(), before.clone()),
                None => Check::Absent(key.clone()),
            });
            txn.ops.push(Op::Set {
                key,
                value: encode(record)?,
                ttl: Some(KEY_TTL),
            });
        }
        Ok(())
    }

    /// Whether an accept whose outcome is unknown was applied, as far as can be seen now.
    pub async fn was_accepted(&self, owner: &Owner, accept: &Accept) -> Result<bool, StoreError> {
        let open = encode(&accept.open)?;
        Ok(self
            .view(owner, &accept.session_id, 0)
            .await?
            .session
            .is_some_and(|session| session.open == Some(open)))
    }

    /// Makes sure that an accept whose outcome is unknown never runs: takes it back, or bars it from coming late.
    pub async fn withdraw(&self, owner: &Owner, accept: &Accept) -> Result<(), StoreError> {
        let keys = Keys::of(owner);
        let (id, open) = (&accept.session_id, &accept.open);
        let key = keys.session(id);
        let mut undo = Txn::durable().check(Check::FieldEquals(
            key.clone(),
            "open".into(),
            encode(open)?,
        ));
        if accept.begins {
            undo.ops.extend(
                [
                    key,
                    keys.messages(id),
                    keys.incarnation(&accept.session.incarnation),
                ]
                .map(Op::Delete),
            );
            undo.ops
                .push(Op::MemberDelete(keys.sessions(), id.to_string()));
        } else {
            undo.ops.push(Op::FieldDelete(key.clone(), "open".into()));
            // The turn before is the last of its session again.
            let fence = accept.session.fence.to_string();
            undo.ops
                .push(Op::FieldSet(key, "fence".into(), fence.into()));
            undo.ops
                .extend(accept.message.as_ref().map(|_| Op::Pop(keys.messages(id))));
            self.keep_alive(&keys, id, &accept.session.incarnation, &mut undo);
        }
        undo.ops
            .extend([keys.events(&open.id), keys.lease(&open.id)].map(Op::Delete));
        if let Some((digest, _, before)) = &accept.key {
            let key = keys.idempotency(digest);
            undo.ops.push(match before {
                Some(before) => Op::Set {
                    key,
                    value: before.clone(),
                    ttl: Some(KEY_TTL),
                },
                None => Op::Delete(key),
            });
        }
        undo.ops.push(Op::FieldAdd(
            keys.usage(&open.day),
            "held".into(),
            -signed(open.reserved),
        ));
        undo.ops
            .push(Op::FieldAdd(keys.usage(&open.day), "requests".into(), -1));
        let bar = TurnRecord {
            withdrawn: true,
            ..running_record(id, open)
        };
        let bar = Op::Set {
            key: keys.turn(&open.id),
            value: encode(&bar)?,
            ttl: Some(TOMBSTONE_TTL),
        };
        undo.ops.push(bar.clone());
        if self.store.commit(undo).await? == Committed::Applied {
            return Ok(());
        }
        let txn = Txn::durable()
            .check(Check::Absent(keys.turn(&open.id)))
            .op(bar);
        match self.store.commit(txn).await? {
            Committed::Applied => Ok(()),
            // It came between the two: the next try takes it back.
            Committed::Refused(_) if self.was_accepted(owner, accept).await? => {
                Err(StoreError::Unavailable("an accept came late".into()))
            }
            Committed::Refused(_) => Ok(()),
        }
    }

    /// Stores the answer and ends the lease: all or nothing, and nothing for a stale fencing number. Safe to repeat.
    pub async fn finish(&self, owner: &Owner, finish: &Finish) -> Result<Finished, StoreError> {
        let keys = Keys::of(owner);
        if self.store.commit(self.finish_txn(&keys, finish)?).await? == Committed::Applied {
            return Ok(Finished::Yes);
        }
        let stored = self.turn(owner, &finish.open.id, false).await?;
        match stored.record.and_then(|record| record.ending) {
            Some(ending) if ending == finish.ending && !finish.dead => Ok(Finished::Yes),
            Some(ending) => Ok(Finished::Stale(Some(ending))),
            None if stored.session.is_none() => Ok(Finished::SessionGone),
            None => Ok(Finished::Stale(None)),
        }
    }

    fn finish_txn(&self, keys: &Keys, finish: &Finish) -> Result<Txn, StoreError> {
        let Finish {
            session_id: id,
            open,
            ..
        } = finish;
        let key = keys.session(id);
        let mut txn = Txn::durable().check(Check::FieldEquals(
            key.clone(),
            "open".into(),
            encode(open)?,
        ));
        // On a store of our own a dead holder's lease may still stand; no other process can renew it.
        if finish.dead && self.store.is_shared() {
            txn = txn.check(Check::Absent(keys.lease(&open.id)));
        }
        let now = clock::now_ms();
        txn.ops.push(Op::FieldDelete(key.clone(), "open".into()));
        txn.ops
            .push(Op::FieldSet(key, "updated".into(), now.to_string().into()));
        txn.ops
            .push(Op::MemberSet(keys.sessions(), id.to_string(), now));
        if let Some(answer) = &finish.answer {
            let record = encode(answer)?;
            match &open.replaces {
                Some(old) => {
                    txn.ops.push(Op::ItemSet(
                        keys.messages(id),
                        signed(old.position()),
                        record,
                    ));
                    txn.ops
                        .extend([keys.turn(old), keys.events(old)].map(Op::Delete));
                }
                None => txn.ops.push(Op::Push(keys.messages(id), record)),
            }
        }
        let incarnation = open.id.incarnation();
        self.keep_alive(keys, id, incarnation, &mut txn);
        let record = TurnRecord {
            ending: Some(finish.ending.clone()),
            ..running_record(id, open)
        };
        let ttl = Some(if open.keyed { KEY_TTL + REPLAY } else { REPLAY });
        txn.ops.extend([
            Op::Set {
                key: keys.turn(&open.id),
                value: encode(&record)?,
                ttl,
            },
            Op::Push(keys.events(&open.id), finish.lines.clone().into()),
            Op::Expire(keys.events(&open.id), Some(REPLAY)),
            Op::Delete(keys.lease(&open.id)),
        ]);
        txn.ops.extend(note_recent(keys, &open.id, now));
        settle(keys, &open.day, open.reserved, finish.usage, &mut txn);
        Ok(txn)
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
        let value = instance.to_owned().into();
        let txn = Txn::relaxed()
            .check(Check::FieldEquals(
                keys.session(id),
                "open".into(),
                encode(open)?,
            ))
            .op(Op::Set {
                key: keys.lease(&open.id),
                value,
                ttl: Some(self.lease),
            });
        Ok(self.store.commit(txn).await? == Committed::Applied)
    }

    /// Mirrors events and renews leases of running turns, all in one pipeline; says for each change whether it took.
    pub async fn mirror(&self, ops: Vec<Op>) -> Result<Vec<bool>, StoreError> {
        self.store.apply(ops).await
    }

    /// What the store knows of a turn; the batches of its log only where asked.
    pub async fn turn(
        &self,
        owner: &Owner,
        id: &MessageId,
        with_log: bool,
    ) -> Result<StoredTurn, StoreError> {
        let keys = Keys::of(owner);
        let mut reads = vec![
            Read::Value(keys.turn(id)),
            Read::Value(keys.incarnation(id.incarnation())),
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
        let text = |value: Bytes| String::from_utf8(value.to_vec()).ok();
        Ok(StoredTurn {
            record: found
                .value(0)
                .and_then(|value| serde_json::from_slice(&value).ok()),
            session: found
                .value(1)
                .and_then(text)
                .and_then(|text| SessionId::parse(&text)),
            instance: found
                .value(2)
                .and_then(text)
                .filter(|instance| self.may_live(instance)),
            batches: found.items(3),
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

    /// What an idempotency key remembers, and those bytes as stored.
    pub async fn key(
        &self,
        owner: &Owner,
        digest: &str,
    ) -> Result<Option<(KeyRecord, Bytes)>, StoreError> {
        let read = Read::Value(Keys::of(owner).idempotency(digest));
        let value = self.store.read(vec![read]).await?.value(0);
        Ok(value.and_then(|value| Some((serde_json::from_slice(&value).ok()?, value))))
    }
}

/// Notes a turn among those whose events are kept: deleting its session or its account deletes them too. One that runs
/// longer than they are kept is found through its session.
fn note_recent(keys: &Keys, id: &MessageId, now: i64) -> [Op; 3] {
    let key = keys.recent();
    let kept = i64::try_from(REPLAY.as_millis()).unwrap_or(i64::MAX);
    [
        Op::MemberSet(key.clone(), id.to_string(), now),
        Op::MembersBelow(key.clone(), now - 2 * kept),
        Op::Expire(key, Some(2 * REPLAY)),
    ]
}

fn running_record(id: &SessionId, open: &OpenTurn) -> TurnRecord {
    TurnRecord {
        v: VERSION,
        session: id.clone(),
        reply_to: open.reply_to.clone(),
        model: open.model.clone(),
        provider: open.provider.clone(),
        ending: None,
        withdrawn: false,
    }
}

/// Counts the request and reserves its tokens; returns which check guards the day's quota.
pub(super) fn reserve(
    keys: &Keys,
    day: &str,
    tokens: u64,
    quota: Option<u64>,
    txn: &mut Txn,
) -> Option<usize> {
    let (key, tokens) = (keys.usage(day), signed(tokens));
    let check = quota.map(|quota| {
        txn.checks.push(Check::FieldAtMost(
            key.clone(),
            "held".into(),
            signed(quota).saturating_sub(tokens),
        ));
        txn.checks.len() - 1
    });
    txn.ops
        .push(Op::FieldAdd(key.clone(), "requests".into(), 1));
    txn.ops
        .push(Op::FieldAdd(key.clone(), "held".into(), tokens));
    txn.ops.push(Op::Expire(key, Some(USAGE_TTL)));
    check
}

/// Puts what a turn cost in the place of what was reserved for it.
pub(super) fn settle(keys: &Keys, day: &str, reserved: u64, usage: Usage, txn: &mut Txn) {
    let key = keys.usage(day);
    let spent = usage.prompt_tokens.saturating_add(usage.completion_tokens);
    txn.ops.extend([
        Op::FieldAdd(key.clone(), "prompt".into(), signed(usage.prompt_tokens)),
        Op::FieldAdd(
            key.clone(),
            "completion".into(),
            signed(usage.completion_tokens),
        ),
        Op::FieldAdd(
            key.clone(),
            "held".into(),
            signed(spent).saturating_sub(signed(reserved)),
        ),
        Op::Expire(key, Some(USAGE_TTL)),
    ]);
}

/// A title out of a first message: its first words on one line, at most 60 characters.
fn title_of(message: &str) -> String {
    const LENGTH: usize = 60;
    let mut title = String::new();
    for word in message.split_whitespace() {
        if !title.is_empty() {
            title.push(' ');
        }
        title.push_str(word);
        if title.chars().count() > LENGTH {
            let cut: String = title.chars().take(LENGTH - 1).collect();
            return format!("{}…", cut.trim_end());
        }
    }
    title
}

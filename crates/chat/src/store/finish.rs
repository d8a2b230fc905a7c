//! Finishing a turn: the answer, the ending and what it cost, in one step that only the turn's own session takes.

use std::time::Duration;

use common::{
    clock,
    identity::Owner,
    store::{Check, Committed, Op, StoreError, Txn},
};

use crate::{
    domain::{
        SessionId, Usage,
        records::{Ending, MessageRecord, OpenTurn, Session, TurnRecord},
    },
    store::{
        ATTEMPTS, Repository,
        accept::KEY_TTL,
        encode,
        keys::Keys,
        sessions::{contended, signed, unchanged},
        turns::{Holder, REPLAY, TurnState, forget, noted_since},
        usage::settle,
    },
};

/// Everything that finishing a turn changes.
#[derive(Clone, Debug)]
pub struct Finish {
    /// The session.
    pub session_id: SessionId,
    /// The session as it stood when it was last seen, with the turn open.
    pub session: Session,
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
    /// It is stored: by this call, with the session as it then stands, or by one before whose answer was lost.
    Yes(Option<Box<Session>>),
    /// Somebody else closed it: this is how.
    Stale(Option<Ending>),
    /// The session is gone.
    SessionGone,
}

impl Repository {
    /// Stores the answer and ends the lease: all or nothing, and nothing for a turn that is no longer its session's. Safe
    /// to repeat.
    pub async fn finish(&self, owner: &Owner, finish: &Finish) -> Result<Finished, StoreError> {
        let keys = Keys::of(owner);
        let mut session = finish.session.clone();
        for _ in 0..ATTEMPTS {
            let (txn, after) = self.finish_txn(&keys, finish, session)?;
            if self.store.commit(txn).await? == Committed::Applied {
                return Ok(Finished::Yes(Some(Box::new(after))));
            }
            // Its title may have been changed meanwhile, which does not touch the turn.
            let stored = self
                .turn(owner, &finish.session_id, &finish.open.id, false)
                .await?;
            session = match (stored.state, stored.session) {
                (TurnState::Ended(record), _) => {
                    let is_ours = record.ending.as_ref() == Some(&finish.ending) && !finish.dead;
                    return Ok(if is_ours {
                        Finished::Yes(None)
                    } else {
                        Finished::Stale(record.ending)
                    });
                }
                (_, None) => return Ok(Finished::SessionGone),
                // Whoever holds the lease lives.
                (TurnState::Running { holder, .. }, Some(session))
                    if !finish.dead || holder == Holder::Nobody =>
                {
                    session
                }
                _ => return Ok(Finished::Stale(None)),
            };
        }
        Err(contended())
    }

    fn finish_txn(
        &self,
        keys: &Keys,
        finish: &Finish,
        before: Session,
    ) -> Result<(Txn, Session), StoreError> {
        let Finish {
            session_id: id,
            open,
            ..
        } = finish;
        let mut txn = Txn::durable().check(unchanged(keys, id, &before));
        // On a store of our own a dead holder's lease may still stand; no other process can renew it.
        if finish.dead && self.store.is_shared() {
            txn = txn.check(Check::Absent(keys.lease(&open.id)));
        }
        // First what frees: a full store takes the answer to what it took the question of.
        txn.ops.push(Op::Delete(keys.lease(&open.id)));
        let mut after = Session {
            open: None,
            ..before
        };
        if let Some(answer) = &finish.answer {
            let record = encode(answer)?;
            match &open.replaces {
                Some(old) => {
                    let position = signed(old.position());
                    txn.ops
                        .push(Op::ItemSet(keys.messages(id), position, record));
                    txn.ops.extend(forget(keys, old));
                }
                None => {
                    after.count += 1;
                    txn.ops.push(Op::Push(keys.messages(id), record));
                }
            }
        }
        let after = self.keep(keys, id, after, Duration::ZERO, &mut txn)?;
        let record = TurnRecord::of(id, open, Some(finish.ending.clone()));
        txn.ops.extend([
            Op::Set {
                key: keys.turn(&open.id),
                value: encode(&record)?,
                ttl: Some(if open.keyed { KEY_TTL + REPLAY } else { REPLAY }),
            },
            Op::Push(keys.events(&open.id), finish.lines.clone().into()),
            Op::Expire(keys.events(&open.id), Some(REPLAY)),
        ]);
        if finish.answer.is_none() {
            txn.ops.extend(note_recent(keys, open));
        }
        txn.ops
            .extend(settle(keys, &open.day, open.reserved, finish.usage));
        Ok((txn, after))
    }
}

/// Notes a turn that left no answer among those whose events are kept: deleting its session or its account deletes them too.
/// One that runs is found through its session, one that was answered through the answer.
fn note_recent(keys: &Keys, open: &OpenTurn) -> [Op; 3] {
    let (key, now) = (keys.recent(), clock::now_ms());
    [
        Op::MemberSet(key.clone(), open.id.to_string(), now),
        Op::MembersBelow(key.clone(), noted_since(now)),
        Op::Expire(key, Some(2 * REPLAY)),
    ]
}

//! Finishing a turn: the answer, the ending and its usage, in one step that only the turn's own session takes.

use std::{sync::Arc, time::Duration};

use common::{
    clock,
    errors::Code,
    identity::Owner,
    store::{Check, Committed, Op, StoreError, Txn},
};

use crate::{
    domain::{
        Ending, FinishReason, Message, OpenTurn, SessionId, Usage,
        event::{End, EventRef, RECOVERY_GAP},
    },
    store::{
        ATTEMPTS,
        accept::KEY_TTL,
        codec::encode,
        contended,
        events::EventBatch,
        keys::Keys,
        message_sizes::Record,
        reservation::Reservation,
        sessions::StoredSession,
        turns::{
            LeaseHolder, REPLAY, TurnRecord, TurnState, TurnStore, forget, replayable_since,
            without_turn,
        },
    },
};

/// Which of a finish's checks says that it is in time, where it must be.
const UNTIL_CHECK: usize = 1;

#[derive(Clone, Debug)]
pub struct Finish {
    pub session_id: SessionId,
    /// The session as it was last seen, with the turn open.
    pub session: StoredSession,
    pub open: OpenTurn,
    pub answer: Option<Message>,
    pub ending: Ending,
    pub usage: Usage,
    /// The events that are not stored yet, the last one included.
    pub events: EventBatch,
    pub last_event_id: u64,
    /// When its readers are told that it could not be stored, by the store's clock (Unix milliseconds): it must not be applied after
    /// that.
    pub until: Option<i64>,
    /// Whether it is finished for a dead instance: then its lease must be gone.
    pub for_dead_instance: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Finished {
    /// It is stored; with the session as it is stored now, unless that was changed by others meanwhile.
    Yes(Option<Box<StoredSession>>),
    Stale(Option<Ending>),
    SessionGone,
}

impl TurnStore<'_> {
    /// Stores the answer and ends the lease: all or nothing, and nothing for a turn that is no longer its session's. Safe to repeat.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: it may be finished, now or later.
    pub async fn finish(&self, owner: &Owner, finish: &Finish) -> Result<Finished, StoreError> {
        let keys = Keys::of(owner);
        let (mut session, mut settles, mut is_first) = (finish.session.clone(), true, true);
        for _ in 0..ATTEMPTS {
            let (txn, after, settled) = self.finish_txn(&keys, finish, &session, settles)?;
            match self.context.store.commit(txn).await? {
                Committed::Applied => return Ok(Finished::Yes(is_first.then(|| Box::new(after)))),
                // Somebody took us for dead and settled the reservation.
                Committed::Refused(check) if Some(check) == settled => settles = false,
                Committed::Refused(UNTIL_CHECK) if finish.until.is_some() => {
                    return Err(StoreError::Unavailable("it came too late".into()));
                }
                Committed::Refused(_) => {
                    is_first = false;
                    session = match self.after_refusal(owner, finish).await? {
                        Ok(session) => session,
                        Err(finished) => return Ok(finished),
                    };
                }
            }
        }
        Err(contended())
    }

    /// Ends a turn as interrupted whose finish timed out for good: instead of it, or after it, where the store applied it after
    /// all. Does nothing for a turn that was closed otherwise. Safe to repeat.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: to be repeated.
    pub async fn retract(&self, owner: &Owner, finish: &Finish) -> Result<(), StoreError> {
        let ending = Ending::interrupted();
        let answer = finish.answer.clone().map(interrupted);
        let end = End { ending: ending.clone(), request_id: Arc::from(""), by_recovery: true };
        let id = (finish.last_event_id - 1) + RECOVERY_GAP;
        let events = finish.events.with_last(id, EventRef::End(&end));
        let stored = self.get(owner, &finish.session_id, &finish.open.id).await?;
        match (stored.state, stored.session) {
            (TurnState::Running { .. }, Some(session)) => {
                let instead =
                    Finish { session, answer, ending, events, until: None, ..finish.clone() };
                self.finish(owner, &instead).await.map(drop)
            }
            (TurnState::Ended(record), Some(session))
                if record.ending.as_ref() == Some(&finish.ending) =>
            {
                let (keys, id, open) = (Keys::of(owner), &finish.session_id, &finish.open);
                let record = |ending| encode(&TurnRecord::new(id, open, Some(ending)));
                let (key, list) = (keys.turn(&open.id), keys.events(&open.id));
                let mut txn = Txn::durable()
                    .check(session.unchanged(&keys, id))
                    // Done twice, it would take away more than the finish has added.
                    .check(Check::Equals(key.clone(), record(finish.ending.clone())?))
                    .op(Op::Set {
                        key,
                        value: record(ending)?,
                        ttl: Some(if open.keyed { KEY_TTL + REPLAY } else { REPLAY }),
                    });
                txn.ops.extend(finish.events.items().map(|_| Op::Pop(list.clone())));
                txn.ops.extend(events.items().map(|item| Op::Push(list.clone(), item)));
                txn.ops.push(Op::Expire(list, Some(REPLAY)));
                if let Some(answer) = answer {
                    let record = Record::new(&answer)?;
                    txn.ops.extend(record.replace(&keys, id, open.id.position()));
                }
                match self.context.store.commit(txn).await? {
                    Committed::Applied => Ok(()),
                    Committed::Refused(_) => Err(contended()),
                }
            }
            _ => Ok(()),
        }
    }

    /// The session to try again with, which others may have changed without touching the turn; or how the turn was closed.
    async fn after_refusal(
        &self,
        owner: &Owner,
        finish: &Finish,
    ) -> Result<Result<StoredSession, Finished>, StoreError> {
        let stored = self.get(owner, &finish.session_id, &finish.open.id).await?;
        Ok(match (stored.state, stored.session) {
            (TurnState::Ended(record), _) => {
                let is_ours =
                    record.ending.as_ref() == Some(&finish.ending) && !finish.for_dead_instance;
                Err(if is_ours { Finished::Yes(None) } else { Finished::Stale(record.ending) })
            }
            (_, None) => Err(Finished::SessionGone),
            // A later turn replaced the answer that our own step stored, and forgot this turn.
            (TurnState::Forgotten, Some(session))
                if !finish.for_dead_instance && session.session.fence > finish.open.fence =>
            {
                Err(Finished::Yes(None))
            }
            // Whoever holds the lease lives.
            (TurnState::Running { holder, .. }, Some(session))
                if !finish.for_dead_instance || holder == LeaseHolder::Nobody =>
            {
                Ok(session)
            }
            _ => Err(Finished::Stale(None)),
        })
    }

    fn finish_txn(
        &self,
        keys: &Keys,
        finish: &Finish,
        before: &StoredSession,
        settles: bool,
    ) -> Result<(Txn, StoredSession, Option<usize>), StoreError> {
        let Finish { session_id: id, open, .. } = finish;
        let reservation = Reservation::of_turn(open);
        let mut txn = Txn::durable().check(before.unchanged(keys, id));
        if let Some(until) = finish.until {
            txn.checks.push(Check::Before(keys.session(id), until));
        }
        // First what frees: so a full store takes the answer to a question that it took.
        let settled = if settles {
            Some(reservation.settle(keys, Some(finish.usage), &mut txn)?)
        } else {
            txn.ops.extend(reservation.leave(keys));
            None
        };
        // On a store of our own a dead holder's lease may still exist; no other process can renew it.
        if finish.for_dead_instance && self.context.store.is_shared() {
            txn.checks.push(Check::Absent(keys.lease(open.id.as_str())));
        }
        let mut after = without_turn(&before.session);
        if let Some(answer) = &finish.answer {
            let record = Record::new(answer)?;
            match &open.replaces {
                Some(old) => {
                    txn.ops.extend(record.replace(keys, id, old.position()));
                    txn.ops.extend(forget(keys, old));
                }
                None => {
                    let count = before.session.message_count;
                    after.message_count = count + 1;
                    txn.ops.extend(record.append(keys, id, count));
                }
            }
        }
        let after = self.context.keep(keys, id, before, after, Duration::ZERO, &mut txn)?;
        let record = TurnRecord::new(id, open, Some(finish.ending.clone()));
        txn.ops.push(Op::Set {
            key: keys.turn(&open.id),
            value: encode(&record)?,
            ttl: Some(if open.keyed { KEY_TTL + REPLAY } else { REPLAY }),
        });
        let events = keys.events(&open.id);
        let items = finish.events.items();
        txn.ops.extend(items.map(|item| Op::Push(events.clone(), item)));
        txn.ops.push(Op::Expire(events, Some(REPLAY)));
        if finish.answer.is_none() {
            txn.ops.extend(note_unanswered(keys, open));
        }
        Ok((txn, after, settled))
    }
}

fn interrupted(mut message: Message) -> Message {
    if let Some(answer) = &mut message.answer {
        answer.finish_reason = FinishReason::Interrupted;
        answer.code = Some(Code::Interrupted);
    }
    message
}

/// Notes a turn that leaves no answer in the history: deleting its session deletes its events too. Others are found through their
/// session and its history.
fn note_unanswered(keys: &Keys, open: &OpenTurn) -> [Op; 3] {
    let (key, now) = (keys.unanswered(open.id.incarnation()), clock::now_ms());
    [
        Op::MemberSet(key.clone(), open.id.to_string(), now),
        Op::MembersBelow(key.clone(), replayable_since(now)),
        Op::Expire(key, Some(2 * REPLAY)),
    ]
}

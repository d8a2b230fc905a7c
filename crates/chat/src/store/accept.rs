//! Accepting a turn: lease, idempotency key, message and reservation in one step; and taking back a step whose outcome is unknown.

use std::{sync::Arc, time::Duration};

use common::{
    identity::Owner,
    store::{Admission, Bucket, Check, Committed, Op, StoreError, Txn},
};

use crate::{
    domain::{IdempotencyRecord, Message, OpenTurn, Session, SessionId, event::Start},
    store::{
        RUNNING_TTL,
        codec::encode,
        counters::release,
        events::EventBatch,
        keys::Keys,
        reservations::Reservation,
        sessions::{StoredSession, touch},
        turns::{TurnRecord, TurnStore, without_turn},
    },
};

/// How long an idempotency key is remembered.
pub const KEY_TTL: Duration = Duration::from_secs(24 * 3600);

/// How long a withdrawn accept is barred: longer than any store delays a command.
const WITHDRAWN_TTL: Duration = Duration::from_secs(3600);

/// Everything that accepting a turn changes.
#[derive(Clone, Debug)]
pub struct Accept {
    pub session_id: SessionId,
    /// The session as it was read, or as it is to begin.
    pub before: StoredSession,
    /// The same with the turn open.
    pub after: Session,
    pub open: OpenTurn,
    /// The user's message; `None` where the turn answers one that is stored already.
    pub message: Option<Arc<Message>>,
    /// The idempotency key, if there is one.
    pub key: Option<KeyChange>,
    /// The day's quota in tokens.
    pub quota: Option<u64>,
    /// The turn's first event.
    pub start: Start,
}

/// What an idempotency key refers to from now on.
#[derive(Clone, Debug)]
pub struct KeyChange {
    /// SHA-256 of the key, hexadecimal.
    pub digest: String,
    pub before: Option<IdempotencyRecord>,
    pub after: IdempotencyRecord,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Accepted {
    /// The turn is ours; the session as it is stored now.
    Yes(Box<StoredSession>),
    /// The session or the key changed since they were read: read again.
    Changed,
    /// The day's quota does not allow the reservation.
    QuotaExceeded,
    /// The rate limit's bucket was empty.
    RateLimited,
}

impl TurnStore<'_> {
    /// Opens the turn in its session: all or nothing. Safe to repeat: see [`Self::was_accepted`]. Given a `bucket`, the rate limit counts
    /// the request in the same step, and nothing else is done for one that may not pass.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: it may be accepted, now or later; see [`Self::withdraw`].
    pub async fn accept(
        &self,
        owner: &Owner,
        accept: &Accept,
        bucket: Option<&Bucket>,
    ) -> Result<(Accepted, Option<Admission>), StoreError> {
        let keys = Keys::of(owner);
        let (txn, after, quota_check) = self.accept_txn(&keys, accept)?;
        let (admission, committed) = match bucket {
            Some(bucket) => {
                let (admission, committed) =
                    self.context.store.admit_and_commit(bucket, txn).await?;
                (Some(admission), committed)
            }
            None => (None, Some(self.context.store.commit(txn).await?)),
        };
        let accepted = match committed {
            None => Accepted::RateLimited,
            Some(Committed::Applied) => Accepted::Yes(Box::new(after)),
            Some(Committed::Refused(check)) if Some(check) == quota_check => {
                Accepted::QuotaExceeded
            }
            Some(Committed::Refused(_)) => Accepted::Changed,
        };
        Ok((accepted, admission))
    }

    fn accept_txn(
        &self,
        keys: &Keys,
        accept: &Accept,
    ) -> Result<(Txn, StoredSession, Option<usize>), StoreError> {
        let Accept {
            session_id: id,
            before,
            open,
            ..
        } = accept;
        let mut txn = Txn::durable()
            .check(before.unchanged(keys, id))
            // A withdrawn turn stays withdrawn.
            .check(Check::Absent(keys.turn(&open.id)))
            // First what grows: a full store refuses a transaction at its first operation, or not at all.
            .op(touch(keys, id, &accept.after));
        if before.is_new() {
            // Remains of an expired session with this id must not be seen in the new one.
            txn.ops
                .extend([keys.messages(id), keys.system_prompt(id)].map(Op::Delete));
        } else {
            txn.checks.push(Check::LengthIs(
                keys.messages(id),
                before.session.message_count,
            ));
        }
        if let Some(message) = &accept.message {
            txn.ops
                .push(Op::Push(keys.messages(id), encode(&**message)?));
        }
        // A session that is being answered is in use, however long that takes.
        let after = self.context.keep(
            keys,
            id,
            before,
            accept.after.clone(),
            RUNNING_TTL,
            &mut txn,
        )?;
        let mut first = EventBatch::default();
        first.push(1, crate::domain::event::EventRef::Start(&accept.start));
        txn.ops.extend([
            Op::Push(keys.events(&open.id), first.bytes()),
            Op::Expire(keys.events(&open.id), Some(RUNNING_TTL)),
        ]);
        remember_key(keys, accept, &mut txn)?;
        let entered =
            Reservation::of_turn(open).enter(self.context, keys, accept.quota, &mut txn)?;
        Ok((txn, after, entered.quota_check))
    }

    /// The session with that turn open, if an accept whose outcome is unknown was applied as far as can be seen now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn was_accepted(
        &self,
        owner: &Owner,
        accept: &Accept,
    ) -> Result<Option<StoredSession>, StoreError> {
        let stored = self.sessions().get(owner, &accept.session_id).await?;
        Ok(stored.filter(|stored| stored.session.open.as_ref() == Some(&accept.open)))
    }

    /// Makes sure that an accept whose outcome is unknown never runs: undoes it, or bars it from being applied later.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: to be repeated.
    pub async fn withdraw(&self, owner: &Owner, accept: &Accept) -> Result<(), StoreError> {
        let keys = Keys::of(owner);
        let bar = Op::Set {
            key: keys.turn(&accept.open.id),
            value: encode(&TurnRecord::new(&accept.session_id, &accept.open, None))?,
            ttl: Some(WITHDRAWN_TTL),
        };
        let late = || StoreError::Unavailable("an accept came late".into());
        if let Some(accepted) = self.was_accepted(owner, accept).await? {
            let mut undo = self.undo_txn(&keys, accept, &accepted)?;
            undo.ops.push(bar);
            return match self.context.store.commit(undo).await? {
                Committed::Applied => Ok(()),
                // The session was changed meanwhile: the next try sees how it is now.
                Committed::Refused(_) => Err(late()),
            };
        }
        let txn = Txn::durable()
            .check(Check::Absent(keys.turn(&accept.open.id)))
            .op(bar);
        self.context.store.commit(txn).await?;
        // It may have come between the two: then the next try takes it back.
        match self.was_accepted(owner, accept).await? {
            Some(_) => Err(late()),
            None => Ok(()),
        }
    }

    fn undo_txn(
        &self,
        keys: &Keys,
        accept: &Accept,
        accepted: &StoredSession,
    ) -> Result<Txn, StoreError> {
        let (id, open) = (&accept.session_id, &accept.open);
        let reservation = Reservation::of_turn(open);
        let mut undo = Txn::durable().check(accepted.unchanged(keys, id));
        if accept.before.is_new() {
            let incarnation = keys.incarnation(&accepted.session.incarnation);
            let all = [
                keys.session(id),
                keys.messages(id),
                keys.system_prompt(id),
                incarnation,
            ];
            undo.ops.extend(all.map(Op::Delete));
            undo.ops
                .push(Op::MemberDelete(keys.sessions(), id.to_string()));
        } else {
            undo.ops
                .extend(accept.message.as_ref().map(|_| Op::Pop(keys.messages(id))));
            // The turn before is the last of its session again.
            let session = Session {
                fence: accept.before.session.fence,
                ..without_turn(&accepted.session)
            };
            self.context
                .keep(keys, id, accepted, session, Duration::ZERO, &mut undo)?;
        }
        undo.ops.push(Op::Delete(keys.events(&open.id)));
        undo.ops.extend(reservation.leave(keys));
        undo.ops.extend(release(keys, &open.day, open.reserved));
        if let Some(KeyChange { digest, before, .. }) = &accept.key {
            let key = keys.idempotency(digest);
            undo.ops.push(match before {
                Some(before) => Op::Set {
                    key,
                    value: encode(before)?,
                    ttl: Some(KEY_TTL),
                },
                None => Op::Delete(key),
            });
        }
        Ok(undo)
    }
}

fn remember_key(keys: &Keys, accept: &Accept, txn: &mut Txn) -> Result<(), StoreError> {
    if let Some(KeyChange {
        digest,
        before,
        after,
    }) = &accept.key
    {
        let key = keys.idempotency(digest);
        txn.checks.push(match before {
            Some(before) => Check::Equals(key.clone(), encode(before)?),
            None => Check::Absent(key.clone()),
        });
        txn.ops.push(Op::Set {
            key,
            value: encode(after)?,
            ttl: Some(KEY_TTL),
        });
    }
    Ok(())
}

//! Accepting a turn: lease, idempotency key, message and reservation in one step; and taking back a step whose outcome is unknown.

use std::{sync::Arc, time::Duration};

use common::{
    identity::{Identity, Owner},
    store::{Admission, Bucket, Check, Committed, Op, StoreError, Txn},
};

use crate::{
    domain::{IdempotencyRecord, Message, OpenTurn, Session, SessionId, event::Start},
    store::{
        IDENTITY_CHECK, RUNNING_TTL,
        codec::encode,
        contended,
        events::EventBatch,
        keys::Keys,
        message_sizes::{self, Record},
        reservation::Reservation,
        sessions::{StoredSession, touch},
        turns::{TurnRecord, TurnStore, without_turn},
    },
};

/// How long an idempotency key is remembered.
pub const KEY_TTL: Duration = Duration::from_secs(24 * 3600);

/// How long a withdrawn accept is barred: longer than any store delays a command.
const WITHDRAWN_TTL: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug)]
pub struct Accept {
    pub session_id: SessionId,
    /// The session as it was read, or as it is to begin.
    pub before: StoredSession,
    pub after: Session,
    pub open: OpenTurn,
    /// The user's message; `None` where the turn answers one that is stored already.
    pub message: Option<Arc<Message>>,
    /// The idempotency key, if there is one.
    pub key: Option<KeyChange>,
    /// The day's quota in tokens.
    pub quota: Option<u64>,
    pub start: Start,
}

impl Accept {
    pub fn reservation(&self) -> Reservation {
        Reservation::of_turn(&self.open)
    }

    /// Changes how many tokens the turn holds.
    pub fn set_reserved(&mut self, tokens: u64) {
        let opened = self.after.open.as_mut();
        for open in opened.into_iter().chain([&mut self.open]) {
            open.reserved = tokens;
        }
    }
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
    /// The account changed since the credential was checked: check it again.
    AccountChanged,
    /// The day's quota does not allow the reservation.
    QuotaExceeded,
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
        identity: &Identity,
        accept: &Accept,
        bucket: Option<&Bucket>,
    ) -> Result<(Accepted, Option<Admission>), StoreError> {
        let (txn, after, quota_check) = self.accept_txn(identity, accept)?;
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
            Some(Committed::Refused(IDENTITY_CHECK)) => Accepted::AccountChanged,
            Some(Committed::Refused(check)) if Some(check) == quota_check => {
                Accepted::QuotaExceeded
            }
            Some(Committed::Refused(_)) => Accepted::Changed,
        };
        Ok((accepted, admission))
    }

    fn accept_txn(
        &self,
        identity: &Identity,
        accept: &Accept,
    ) -> Result<(Txn, StoredSession, Option<usize>), StoreError> {
        let keys = &Keys::of(&identity.owner);
        let Accept { session_id: id, before, open, .. } = accept;
        let mut txn = Txn::durable()
            .check(identity.is_current())
            .check(before.unchanged(keys, id))
            // A withdrawn turn stays withdrawn.
            .check(Check::Absent(keys.turn(&open.id)))
            // First what grows: a full store refuses a transaction at its first operation, or not at all.
            .op(touch(keys, id, &accept.after));
        if before.is_new() {
            // Remains of an expired session with this id must not be seen in the new one.
            txn.ops.extend(message_sizes::delete(keys, id));
            txn.ops.push(Op::Delete(keys.system_prompt(id)));
        } else {
            txn.checks.push(Check::LengthIs(keys.messages(id), before.session.message_count));
        }
        if let Some(message) = &accept.message {
            let count = before.session.message_count;
            txn.ops.extend(Record::new(message)?.append(keys, id, count));
        }
        // A session that is being answered is in use, however long that takes.
        let after =
            self.context.keep(keys, id, before, accept.after.clone(), RUNNING_TTL, &mut txn)?;
        let mut first = EventBatch::default();
        first.push(1, crate::domain::event::EventRef::Start(&accept.start));
        let events = keys.events(&open.id);
        let items = first.items().map(|item| Op::Push(events.clone(), item));
        txn.ops.extend(items);
        txn.ops.push(Op::Expire(events, Some(RUNNING_TTL)));
        remember_key(keys, accept, &mut txn)?;
        let entered =
            Reservation::of_turn(open).enter(self.context, keys, accept.quota, &mut txn)?;
        Ok((txn, after, entered.quota_check))
    }

    /// The session with that turn open, if an accept whose outcome is unknown was applied as far as can be seen now.
    pub async fn was_accepted(
        &self,
        owner: &Owner,
        accept: &Accept,
    ) -> Result<Option<StoredSession>, StoreError> {
        let stored = self.sessions().get(owner, &accept.session_id).await?;
        Ok(stored.filter(|stored| stored.session.open.as_ref() == Some(&accept.open)))
    }

    /// As [`Self::was_accepted`], of what may be acknowledged: a step that changes nothing waits until whoever must have the accept
    /// has it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: it is still unknown.
    pub async fn confirm_accepted(
        &self,
        owner: &Owner,
        accept: &Accept,
    ) -> Result<Option<StoredSession>, StoreError> {
        let Some(session) = self.was_accepted(owner, accept).await? else { return Ok(None) };
        let unchanged = session.unchanged(&Keys::of(owner), &accept.session_id);
        match self.context.store.commit(Txn::durable().check(unchanged)).await? {
            Committed::Applied => Ok(Some(session)),
            Committed::Refused(_) => Err(contended()),
        }
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
            let undone = self.undo(&keys, accept, &accepted, bar).await?;
            // Otherwise the session was changed meanwhile: the next try sees how it is now.
            return if undone { Ok(()) } else { Err(late()) };
        }
        let txn = Txn::durable().check(Check::Absent(keys.turn(&accept.open.id))).op(bar);
        self.context.store.commit(txn).await?;
        // It may have come between the two: then the next try takes it back.
        match self.was_accepted(owner, accept).await? {
            Some(_) => Err(late()),
            None => Ok(()),
        }
    }

    /// Undoes an accept; `false` where the session was changed.
    async fn undo(
        &self,
        keys: &Keys,
        accept: &Accept,
        accepted: &StoredSession,
        bar: Op,
    ) -> Result<bool, StoreError> {
        for settles in [true, false] {
            let (mut undo, settled) = self.undo_txn(keys, accept, accepted, settles)?;
            undo.ops.push(bar.clone());
            match self.context.store.commit(undo).await? {
                Committed::Applied => return Ok(true),
                // Somebody took us for dead and settled the reservation.
                Committed::Refused(check) if Some(check) == settled => {}
                Committed::Refused(_) => return Ok(false),
            }
        }
        Ok(false)
    }

    fn undo_txn(
        &self,
        keys: &Keys,
        accept: &Accept,
        accepted: &StoredSession,
        settles: bool,
    ) -> Result<(Txn, Option<usize>), StoreError> {
        let (id, open) = (&accept.session_id, &accept.open);
        let reservation = accept.reservation();
        let mut undo = Txn::durable().check(accepted.unchanged(keys, id));
        let settled = if settles {
            Some(reservation.settle(keys, None, &mut undo)?)
        } else {
            undo.ops.extend(reservation.leave(keys));
            None
        };
        if accept.before.is_new() {
            let incarnation = keys.incarnation(&accepted.session.incarnation);
            let all = [keys.session(id), keys.system_prompt(id), incarnation];
            undo.ops.extend(all.map(Op::Delete));
            undo.ops.extend(message_sizes::delete(keys, id));
            undo.ops.push(Op::MemberDelete(keys.sessions(), id.to_string()));
        } else {
            if accept.message.is_some() {
                let left = accept.before.session.message_count;
                undo.ops.extend(message_sizes::remove_last(keys, id, left));
            }
            let session = without_accept(accept, &accepted.session);
            undo.ops.push(touch(keys, id, &session));
            self.context.keep(keys, id, accepted, session, Duration::ZERO, &mut undo)?;
        }
        undo.ops.push(Op::Delete(keys.events(&open.id)));
        if let Some(KeyChange { digest, before, .. }) = &accept.key {
            let key = keys.idempotency(digest);
            undo.ops.push(match before {
                Some(before) => Op::Set { key, value: encode(before)?, ttl: Some(KEY_TTL) },
                None => Op::Delete(key),
            });
        }
        Ok((undo, settled))
    }
}

/// The session as it was before the turn was accepted, but for what its owner has changed since.
fn without_accept(accept: &Accept, accepted: &Session) -> Session {
    let (before, after) = (&accept.before.session, &accept.after);
    let is_renamed = accepted.title != after.title;
    Session {
        title: if is_renamed { &accepted.title } else { &before.title }.clone(),
        last_model: before.last_model.clone(),
        updated_at: before.updated_at,
        fence: before.fence,
        ..without_turn(accepted)
    }
}

fn remember_key(keys: &Keys, accept: &Accept, txn: &mut Txn) -> Result<(), StoreError> {
    if let Some(KeyChange { digest, before, after }) = &accept.key {
        let key = keys.idempotency(digest);
        txn.checks.push(match before {
            Some(before) => Check::Equals(key.clone(), encode(before)?),
            None => Check::Absent(key.clone()),
        });
        txn.ops.push(Op::Set { key, value: encode(after)?, ttl: Some(KEY_TTL) });
    }
    Ok(())
}

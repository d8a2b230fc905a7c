//! Accepting a turn: lease, key, message and reservation in one step; and taking back what may or may not have been accepted.

use std::{sync::Arc, time::Duration};

use common::{
    identity::Owner,
    store::{Admission, Bucket, Bytes, Check, Committed, Op, StoreError, Txn},
};

use crate::{
    domain::{
        SessionId,
        records::{KeyRecord, MessageRecord, OpenTurn, Session, TurnRecord},
    },
    store::{
        RUNNING_TTL, Repository, encode,
        keys::Keys,
        sessions::{unchanged, used},
        usage::{release, reserve},
    },
};

/// How long an idempotency key is remembered.
pub const KEY_TTL: Duration = Duration::from_secs(24 * 3600);

/// How long a withdrawn accept is barred: longer than any store holds a command back.
const TOMBSTONE_TTL: Duration = Duration::from_secs(3600);

/// Everything that accepting a turn changes.
#[derive(Clone, Debug)]
pub struct Accept {
    /// The session.
    pub session_id: SessionId,
    /// The session as it was read, or as it is to begin.
    pub before: Session,
    /// The same with the turn open.
    pub after: Session,
    /// The turn.
    pub open: OpenTurn,
    /// The user's message; `None` where the turn answers one that is stored already.
    pub message: Option<Arc<MessageRecord>>,
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
#[derive(Clone, Debug, PartialEq)]
pub enum Accepted {
    /// The turn is ours; the session as it now stands in the store.
    Yes(Box<Session>),
    /// The session or the key changed since they were read: read again.
    Changed,
    /// The day's quota does not hold the reservation.
    QuotaExceeded,
    /// The bucket was empty.
    NotAdmitted,
}

impl Repository {
    /// Takes the session's lease, remembers the key and appends the message: all or nothing. Safe to repeat: see
    /// [`Self::was_accepted`]. Where the request was not counted yet, its bucket counts it in the same step; nothing else is
    /// done for one that may not pass.
    pub async fn accept(
        &self,
        owner: &Owner,
        accept: &Accept,
        bucket: Option<&Bucket>,
    ) -> Result<(Accepted, Option<Admission>), StoreError> {
        let keys = Keys::of(owner);
        let Accept {
            session_id: id,
            before,
            open,
            ..
        } = accept;
        let mut txn = Txn::durable()
            .check(unchanged(&keys, id, before))
            // Where it was withdrawn, it stays so.
            .check(Check::Absent(keys.turn(&open.id)));
        // First what grows: a full store refuses a transaction at its first operation, or not at all.
        txn.ops.push(used(&keys, id, &accept.after));
        if before.is_new() {
            // What is left of an expired life of this id must not be seen by the new one.
            txn.ops.push(Op::Delete(keys.messages(id)));
        } else {
            txn.checks
                .push(Check::LengthIs(keys.messages(id), before.count));
        }
        if let Some(message) = &accept.message {
            txn.ops
                .push(Op::Push(keys.messages(id), encode(&**message)?));
        }
        // A session that is being answered is in use, however long that takes.
        let after = self.keep(&keys, id, accept.after.clone(), RUNNING_TTL, &mut txn)?;
        txn.ops.extend([
            Op::Push(keys.events(&open.id), accept.first_line.clone().into()),
            Op::Expire(keys.events(&open.id), Some(RUNNING_TTL)),
            Op::Set {
                key: keys.lease(&open.id),
                value: accept.instance.clone().into(),
                ttl: Some(self.lease),
            },
        ]);
        self.remember_key(&keys, accept, &mut txn)?;
        let quota_check = accept
            .quota
            .and_then(|quota| reserve(&keys, &open.day, open.reserved, Some(quota), &mut txn));
        let (admission, committed) = match bucket {
            Some(bucket) => {
                let (admission, committed) = self.store.admit_and_commit(bucket, txn).await?;
                (Some(admission), committed)
            }
            None => (None, Some(self.store.commit(txn).await?)),
        };
        let accepted = match committed {
            None => Accepted::NotAdmitted,
            Some(Committed::Applied) => Accepted::Yes(Box::new(after)),
            Some(Committed::Refused(check)) if Some(check) == quota_check => {
                Accepted::QuotaExceeded
            }
            Some(Committed::Refused(_)) => Accepted::Changed,
        };
        Ok((accepted, admission))
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

    /// The session with that turn open, if an accept whose outcome is unknown was applied, as far as can be seen now.
    pub async fn was_accepted(
        &self,
        owner: &Owner,
        accept: &Accept,
    ) -> Result<Option<Session>, StoreError> {
        let session = self.view(owner, &accept.session_id, 0).await?.session;
        Ok(session.filter(|session| session.open.as_ref() == Some(&accept.open)))
    }

    /// Makes sure that an accept whose outcome is unknown never runs: takes it back, or bars it from coming late.
    pub async fn withdraw(&self, owner: &Owner, accept: &Accept) -> Result<(), StoreError> {
        let keys = Keys::of(owner);
        let bar = Op::Set {
            key: keys.turn(&accept.open.id),
            value: encode(&TurnRecord::of(&accept.session_id, &accept.open, None))?,
            ttl: Some(TOMBSTONE_TTL),
        };
        let late = || StoreError::Unavailable("an accept came late".into());
        match self.was_accepted(owner, accept).await? {
            Some(accepted) => {
                let mut undo = self.undo_txn(&keys, accept, accepted)?;
                undo.ops.push(bar);
                match self.store.commit(undo).await? {
                    Committed::Applied => Ok(()),
                    // Somebody changed the session meanwhile: the next try sees how it is now.
                    Committed::Refused(_) => Err(late()),
                }
            }
            None => {
                let txn = Txn::durable()
                    .check(Check::Absent(keys.turn(&accept.open.id)))
                    .op(bar);
                self.store.commit(txn).await?;
                // It may have come between the two: the next try takes it back.
                match self.was_accepted(owner, accept).await? {
                    Some(_) => Err(late()),
                    None => Ok(()),
                }
            }
        }
    }

    fn undo_txn(&self, keys: &Keys, accept: &Accept, accepted: Session) -> Result<Txn, StoreError> {
        let (id, open) = (&accept.session_id, &accept.open);
        let mut undo = Txn::durable().check(unchanged(keys, id, &accepted));
        if accept.before.is_new() {
            undo.ops.extend(
                [
                    keys.session(id),
                    keys.messages(id),
                    keys.incarnation(&accepted.incarnation),
                ]
                .map(Op::Delete),
            );
            undo.ops
                .push(Op::MemberDelete(keys.sessions(), id.to_string()));
        } else {
            undo.ops
                .extend(accept.message.as_ref().map(|_| Op::Pop(keys.messages(id))));
            // The turn before is the last of its session again.
            let session = Session {
                open: None,
                fence: accept.before.fence,
                ..accepted
            };
            self.keep(keys, id, session, Duration::ZERO, &mut undo)?;
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
        undo.ops.extend(release(keys, &open.day, open.reserved));
        Ok(undo)
    }
}

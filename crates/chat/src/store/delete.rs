//! Deleting a session, with all that is kept of its turns.

use common::{
    clock,
    identity::Owner,
    store::{Check, Committed, Op, Read, StoreError, Txn},
};

use crate::{
    domain::{
        MessageId, Role, SessionId,
        records::{MessageRecord, OpenTurn, Session},
    },
    store::{
        ATTEMPTS, Repository,
        keys::Keys,
        sessions::{contended, records_from},
        turns::{forget, noted_since},
        usage::release,
    },
};

/// Turns of one user whose events are looked through when a session is deleted: more than a rate limit lets begin in the
/// minutes that events are kept.
const RECENT_MAX: usize = 100_000;

/// Messages looked through at a time when a session is deleted.
const PAGE: usize = 100;

/// How deleting a session went.
#[derive(Clone, Debug, PartialEq)]
pub enum Deleted {
    /// It is gone, and with it the turn that it was answering.
    Yes(Option<Box<OpenTurn>>),
    /// There was none.
    NotFound,
}

impl Repository {
    /// Deletes a session with its messages and the turn that it is answering.
    pub async fn delete(&self, owner: &Owner, id: &SessionId) -> Result<Deleted, StoreError> {
        let keys = Keys::of(owner);
        for _ in 0..ATTEMPTS {
            let read = Read::Value(keys.session(id));
            let Some(stored) = self.store.read(vec![read]).await?.value(0) else {
                return Ok(Deleted::NotFound);
            };
            let mut txn = Txn::durable()
                .check(Check::Equals(keys.session(id), stored.clone()))
                .op(Op::Delete(keys.session(id)))
                .op(Op::Delete(keys.messages(id)))
                .op(Op::MemberDelete(keys.sessions(), id.to_string()));
            // One that cannot be read can still be deleted.
            let session = Session::read(stored, 0);
            if let Some(session) = &session {
                txn.ops
                    .push(Op::Delete(keys.incarnation(&session.incarnation)));
                txn.ops
                    .extend(self.forget_events(&keys, id, session).await?);
            }
            let open = session.and_then(|session| session.open);
            if let Some(open) = &open {
                txn.ops.extend(forget(&keys, &open.id));
                txn.ops.push(Op::Delete(keys.lease(&open.id)));
                txn.ops.extend(release(&keys, &open.day, open.reserved));
            }
            if self.store.commit(txn).await? == Committed::Applied {
                return Ok(Deleted::Yes(open.map(Box::new)));
            }
        }
        Err(contended())
    }

    /// What takes away the events of a session's ended turns, which hold its text for some minutes: of those that left an
    /// answer, and of those that are noted because they left none.
    async fn forget_events(
        &self,
        keys: &Keys,
        id: &SessionId,
        session: &Session,
    ) -> Result<Vec<Op>, StoreError> {
        let read = Read::Since {
            key: keys.recent(),
            score: 0,
            limit: RECENT_MAX,
        };
        let noted = self.store.read(vec![read]).await?.members(0);
        let noted = noted
            .into_iter()
            .filter_map(|(id, _)| MessageId::parse(&id));
        let noted = noted.filter(|id| id.incarnation() == session.incarnation);
        let mut ops = Vec::new();
        for id in noted {
            ops.extend(forget(keys, &id));
            ops.push(Op::MemberDelete(keys.recent(), id.to_string()));
        }
        for id in self.answered_lately(keys, id).await? {
            ops.extend(forget(keys, &id));
        }
        Ok(ops)
    }

    /// The answers that were stored so lately that their events may still be kept.
    async fn answered_lately(
        &self,
        keys: &Keys,
        id: &SessionId,
    ) -> Result<Vec<MessageId>, StoreError> {
        let since = noted_since(clock::now_ms());
        let page = i64::try_from(PAGE).unwrap_or(i64::MAX);
        let (mut answers, mut stop) = (Vec::new(), -1);
        loop {
            let start = stop + 1 - page;
            let read = Read::Items {
                key: keys.messages(id),
                start,
                stop,
            };
            let items = self.store.read(vec![read]).await?.items(0);
            let is_last = items.len() < PAGE;
            let messages: Vec<MessageRecord> = records_from(items).collect();
            let is_past = messages.first().is_some_and(|oldest| oldest.at < since);
            answers.extend(
                messages
                    .into_iter()
                    .filter(|message| message.role == Role::Assistant && message.at >= since)
                    .map(|answer| answer.id),
            );
            if is_last || is_past {
                return Ok(answers);
            }
            stop = start - 1;
        }
    }
}

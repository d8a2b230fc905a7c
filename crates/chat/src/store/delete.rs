//! Deleting a session with everything that is stored of its turns.

use common::{
    clock,
    identity::Owner,
    store::{Check, Committed, Op, Read, StoreError, Txn},
};

use crate::{
    domain::{Message, MessageId, OpenTurn, Role, SessionId},
    store::{
        ATTEMPTS, contended,
        keys::Keys,
        sessions::{SessionStore, StoredSession, decode_messages},
        turns::{forget, replayable_since},
    },
};

/// Most turns of a user whose events are considered when a session is deleted: more than a rate limit allows in the minutes that
/// events are kept.
const RECENT_MAX: usize = 100_000;

/// Messages read at a time.
const PAGE: usize = 100;

#[derive(Clone, Debug, PartialEq)]
pub enum Deleted {
    /// It is gone, and with it the turn that it was answering.
    Yes(Option<Box<OpenTurn>>),
    NotFound,
}

impl SessionStore<'_> {
    /// Deletes a session with its messages and the turn that it is answering.
    pub async fn delete(&self, owner: &Owner, id: &SessionId) -> Result<Deleted, StoreError> {
        let keys = Keys::of(owner);
        for _ in 0..ATTEMPTS {
            let read = Read::Value(keys.session(id));
            let Some(stored) = self.context.store.read(vec![read]).await?.value(0) else {
                return Ok(Deleted::NotFound);
            };
            let mut txn = Txn::durable()
                .check(Check::Equals(keys.session(id), stored.clone()))
                .op(Op::Delete(keys.session(id)))
                .op(Op::Delete(keys.messages(id)))
                .op(Op::Delete(keys.system_prompt(id)))
                .op(Op::MemberDelete(keys.sessions(), id.to_string()));
            // One that cannot be read can still be deleted.
            let session = StoredSession::decode(stored, None, 0).map(|stored| stored.session);
            if let Some(session) = &session {
                let incarnation = &session.incarnation;
                txn.ops.push(Op::Delete(keys.incarnation(incarnation)));
                txn.ops
                    .extend(self.forget_events(&keys, id, incarnation).await?);
            }
            // Its lease and reservation stay: its task, or whoever finds the lease lapsed, settles what it used.
            let open = session.and_then(|session| session.open);
            if let Some(open) = &open {
                txn.ops.extend(forget(&keys, &open.id));
            }
            if self.context.store.commit(txn).await? == Committed::Applied {
                return Ok(Deleted::Yes(open.map(Box::new)));
            }
        }
        Err(contended())
    }

    /// What deletes the events of a session's ended turns, which contain its text for some minutes: of turns with an answer, and of
    /// those that were noted because they have none.
    async fn forget_events(
        &self,
        keys: &Keys,
        id: &SessionId,
        incarnation: &str,
    ) -> Result<Vec<Op>, StoreError> {
        let read = Read::Since {
            key: keys.recent(),
            score: 0,
            limit: RECENT_MAX,
        };
        let noted = self.context.store.read(vec![read]).await?.members(0);
        let noted = noted
            .into_iter()
            .filter_map(|(id, _)| MessageId::parse(&id));
        let noted = noted.filter(|id| id.incarnation() == incarnation);
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

    /// The answers that were stored so recently that their events may still exist.
    async fn answered_lately(
        &self,
        keys: &Keys,
        id: &SessionId,
    ) -> Result<Vec<MessageId>, StoreError> {
        let since = replayable_since(clock::now_ms());
        let page = i64::try_from(PAGE).unwrap_or(i64::MAX);
        let (mut answers, mut stop) = (Vec::new(), -1);
        loop {
            let start = stop + 1 - page;
            let read = Read::Items {
                key: keys.messages(id),
                start,
                stop,
            };
            let items = self.context.store.read(vec![read]).await?.items(0);
            let is_last = items.len() < PAGE;
            let messages: Vec<Message> = decode_messages(items).collect();
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

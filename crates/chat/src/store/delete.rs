//! Deleting a session with everything that is stored of its turns.

use common::{
    identity::Owner,
    store::{Check, Committed, Op, Read, StoreError, Txn},
};

use crate::{
    domain::{MessageId, OpenTurn, SessionId},
    store::{
        ATTEMPTS, contended,
        keys::Keys,
        message_sizes,
        sessions::{SessionStore, StoredSession},
        turns::forget,
    },
};

/// Most ended turns of a session whose events are deleted with it: more than a rate limit allows in the minutes that events are
/// kept.
const RECENT_MAX: usize = 100_000;

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
                .ops(message_sizes::delete(&keys, id))
                .op(Op::Delete(keys.system_prompt(id)))
                .op(Op::MemberDelete(keys.sessions(), id.to_string()));
            // One that cannot be read can still be deleted.
            let session = StoredSession::decode(stored, None, 0).map(|stored| stored.session);
            if let Some(session) = &session {
                let incarnation = &session.incarnation;
                txn.ops.push(Op::Delete(keys.incarnation(incarnation)));
                txn.ops.extend(self.forget_events(&keys, incarnation).await?);
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

    /// What deletes the events of a session's ended turns, which contain its text for some minutes.
    async fn forget_events(&self, keys: &Keys, incarnation: &str) -> Result<Vec<Op>, StoreError> {
        let recent = keys.recent(incarnation);
        let read = Read::Since { key: recent.clone(), score: 0, limit: RECENT_MAX };
        let noted = self.context.store.read(vec![read]).await?.members(0);
        let ids = noted.into_iter().filter_map(|(id, _)| MessageId::parse(&id));
        let mut ops: Vec<Op> = ids.flat_map(|id| forget(keys, &id)).collect();
        ops.push(Op::Delete(recent));
        Ok(ops)
    }
}

//! Deleting a session with everything that is stored of its turns.

use common::{
    clock,
    identity::Owner,
    store::{Check, Committed, Op, Read, StoreError, Txn},
};

use crate::{
    domain::{Message, MessageId, OpenTurn, Role, SessionId},
    store::{
        ATTEMPTS,
        codec::{decode, head},
        contended,
        keys::Keys,
        message_sizes::{self, decode_sizes},
        messages::BULK_SIZE,
        sessions::{SessionStore, StoredSession},
        turns::{forget, replayable_since},
    },
};

/// Most turns without an answer whose events are deleted with their session: more than a rate limit allows in the minutes that
/// events are kept.
const UNANSWERED_MAX: usize = 100_000;

/// Messages that are read at a time to find those of the last minutes.
const STEP: u64 = 32;

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
            let last = Read::Items { key: keys.message_sizes(id), start: -1, stop: -1 };
            let reads = vec![Read::Value(keys.session(id)), last];
            let mut found = self.context.store.read(reads).await?;
            let Some(stored) = found.value(0) else { return Ok(Deleted::NotFound) };
            let sizes = decode_sizes(&found.items(1));
            let is_large = sizes.is_none_or(|all| all.iter().any(|last| last.record > BULK_SIZE));
            let mut txn = Txn::durable()
                .check(Check::StartsWith(keys.session(id), head(&stored)))
                .op(Op::Delete(keys.session(id)))
                .ops(message_sizes::delete(&keys, id))
                .op(Op::Delete(keys.system_prompt(id)))
                .op(Op::MemberDelete(keys.sessions(), id.to_string()));
            // One that cannot be read can still be deleted.
            let session = StoredSession::decode(stored, None, 0).map(|stored| stored.session);
            if let Some(session) = &session {
                let incarnation = &session.incarnation;
                txn.ops.push(Op::Delete(keys.incarnation(incarnation)));
                txn.ops.extend(self.forget_events(owner, id, incarnation, is_large).await?);
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

    /// The operations that delete the events of a session's ended turns, which contain its text for some minutes. `is_large`: its last message.
    async fn forget_events(
        &self,
        owner: &Owner,
        id: &SessionId,
        incarnation: &str,
        is_large: bool,
    ) -> Result<Vec<Op>, StoreError> {
        let keys = Keys::of(owner);
        let unanswered = keys.unanswered(incarnation);
        let reads = vec![
            Read::Since { key: unanswered.clone(), score: 0, limit: UNANSWERED_MAX },
            Read::Length(keys.messages(id)),
            Read::Items { key: keys.messages(id), start: -1, stop: -1 },
        ];
        let store = &self.context.store;
        let mut found =
            if is_large { store.read_bulk(reads).await? } else { store.read(reads).await? };
        let noted = found.members(0);
        let ids = noted.into_iter().filter_map(|(id, _)| MessageId::parse(&id));
        let mut ops: Vec<Op> = ids.flat_map(|id| forget(&keys, &id)).collect();
        ops.push(Op::Delete(unanswered));
        let since = replayable_since(clock::now_ms());
        let last: Option<Message> = found.items(2).first().and_then(|item| decode(item));
        let (mut end, mut is_over) = (found.count(1), last.is_some_and(|last| last.at < since));
        while end > 0 && !is_over {
            let (messages, start) = self.messages(owner, id).before(end, STEP).await?;
            let recent = |message: &&Message| message.at >= since;
            is_over = !messages.iter().all(|message| recent(&message));
            let answers = messages.iter().filter(recent).filter(|it| it.role == Role::Assistant);
            ops.extend(answers.flat_map(|answer| forget(&keys, &answer.id)));
            end = start;
        }
        Ok(ops)
    }
}

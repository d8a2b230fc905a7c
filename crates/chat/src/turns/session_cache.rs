//! Sessions as their last turn here left them, so that the next one need not read what this instance wrote itself.
//!
//! Whatever is decided on a head is checked when it is stored: one that another instance has left behind costs a second look,
//! and no more.

use std::sync::Arc;

use common::identity::Owner;
use quick_cache::{Weighter, sync::Cache};

use crate::domain::{
    SessionId,
    records::{MessageRecord, Session},
};

/// Bytes of heads that are kept in all.
const ROOM: u64 = 16 * 1024 * 1024;

/// What a head takes beside its texts, in bytes: about the size of the records.
const RECORD: usize = 256;

/// How many heads are expected: only where the table begins.
const EXPECTED: usize = 1024;

/// A session and the newest of its messages, as this instance stored them.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) session: Session,
    pub(crate) tail: Vec<Arc<MessageRecord>>,
}

#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<(Owner, SessionId), Head> for Bytes {
    fn weight(&self, _: &(Owner, SessionId), head: &Head) -> u64 {
        let message = |message: &Arc<MessageRecord>| RECORD + message.size();
        let bytes =
            RECORD + 2 * head.session.stored.len() + head.tail.iter().map(message).sum::<usize>();
        bytes as u64
    }
}

/// The heads of this instance, the least used going first.
#[derive(Debug)]
pub(crate) struct Heads {
    cache: Cache<(Owner, SessionId), Head, Bytes>,
}

impl Default for Heads {
    fn default() -> Self {
        Self {
            cache: Cache::with_weighter(EXPECTED, ROOM, Bytes),
        }
    }
}

impl Heads {
    /// Takes a session's head out: until its next turn is over, nobody knows what it is.
    pub(crate) fn take(&self, owner: &Owner, id: &SessionId) -> Option<Head> {
        let (_, head) = self.cache.remove(&(owner.clone(), id.clone()))?;
        Some(head)
    }

    pub(crate) fn put(&self, owner: &Owner, id: &SessionId, head: Head) {
        self.cache.insert((owner.clone(), id.clone()), head);
    }
}

#[cfg(test)]
mod tests {
    use common::identity::UserId;

    use super::*;
    use crate::store::sessions::NewSession;

    #[test]
    fn heads_take_no_more_room_than_there_is() {
        let heads = Heads::default();
        let owner = Owner {
            user: UserId::parse("alice").unwrap(),
            generation: 0,
        };
        for i in 0..2_000 {
            let mut session = Session::begin(NewSession::default());
            session.stored = vec![0; 64 * 1024].into();
            let id = SessionId::parse(&format!("s{i}")).unwrap();
            heads.put(
                &owner,
                &id,
                Head {
                    session,
                    tail: Vec::new(),
                },
            );
        }
        assert!(heads.cache.weight() <= ROOM);
        let newest = SessionId::parse("s1999").unwrap();
        assert!(heads.take(&owner, &newest).is_some());
        assert!(heads.take(&owner, &newest).is_none(), "it was taken");
    }
}

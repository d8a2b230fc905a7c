//! Sessions as their last turn here left them, so that the next turn need not read what this instance wrote itself.
//!
//! Whatever is decided on a cached session is checked when it is stored: one that another instance has changed meanwhile costs a
//! read, and no more.

use common::identity::Owner;
use quick_cache::{Weighter, sync::Cache};

use crate::{domain::SessionId, store::sessions::SessionTail};

/// Most memory for cached sessions, in bytes.
const CAPACITY: u64 = 16 * 1024 * 1024;

/// What a record takes beside its text, in bytes: about the size of the structs.
const RECORD_SIZE: usize = 256;

/// The expected number of sessions: only the initial size of the table.
const EXPECTED: usize = 1024;

type Key = (Owner, SessionId);

#[derive(Clone, Debug)]
struct BySize;

impl Weighter<Key, SessionTail> for BySize {
    fn weight(&self, _: &Key, tail: &SessionTail) -> u64 {
        let session = tail.session.as_ref().map_or(0, |session| session.size());
        let messages = tail.messages.iter().map(|message| RECORD_SIZE + message.size());
        (RECORD_SIZE + session + messages.sum::<usize>()) as u64
    }
}

/// The cached sessions of this instance; the least used are dropped first.
#[derive(Debug)]
pub(super) struct SessionCache {
    cache: Cache<Key, SessionTail, BySize>,
}

impl Default for SessionCache {
    fn default() -> Self {
        Self { cache: Cache::with_weighter(EXPECTED, CAPACITY, BySize) }
    }
}

impl SessionCache {
    /// Takes a session out: until its next turn has ended, nobody knows what it is.
    pub(super) fn take(&self, owner: &Owner, id: &SessionId) -> Option<SessionTail> {
        let (_, tail) = self.cache.remove(&(owner.clone(), id.clone()))?;
        Some(tail)
    }

    pub(super) fn put(&self, owner: &Owner, id: &SessionId, tail: SessionTail) {
        self.cache.insert((owner.clone(), id.clone()), tail);
    }
}

#[cfg(test)]
mod tests {
    use common::identity::UserId;

    use super::*;
    use crate::{domain::NewSession, store::sessions::StoredSession};

    #[test]
    fn the_cache_stays_within_its_capacity() {
        let cache = SessionCache::default();
        let owner = Owner { user: UserId::parse("alice").unwrap(), generation: 0 };
        for i in 0..2_000 {
            let new = NewSession { system: Some("x".repeat(64 * 1024)), ..NewSession::default() };
            let tail =
                SessionTail { session: Some(StoredSession::begin(new)), messages: Vec::new() };
            cache.put(&owner, &SessionId::parse(&format!("s{i}")).unwrap(), tail);
        }
        assert!(cache.cache.weight() <= CAPACITY);
        let newest = SessionId::parse("s1999").unwrap();
        assert!(cache.take(&owner, &newest).is_some());
        assert!(cache.take(&owner, &newest).is_none(), "it was taken");
    }
}

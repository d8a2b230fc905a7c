//! The turns of a session, one after another in order of arrival on this instance.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use common::identity::Owner;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::domain::SessionId;

/// How long a turn waits for the turns before it in its session.
pub(super) const SESSION_WAIT: Duration = Duration::from_secs(30);

type Key = (Owner, SessionId);

/// The queues of this instance; a session has one while somebody is in it.
#[derive(Clone, Debug, Default)]
pub struct SessionQueue {
    queues: Arc<Mutex<HashMap<Key, VecDeque<Arc<Notify>>>>>,
}

/// A place in a session's queue, from arrival to the end of the turn. Dropping it lets the next one go.
#[derive(Debug)]
pub struct SessionPermit {
    queue: SessionQueue,
    key: Key,
    /// Notified when every place before this one is gone.
    turn: Arc<Notify>,
}

impl SessionQueue {
    pub fn enter(&self, owner: &Owner, session: &SessionId) -> SessionPermit {
        let key = (owner.clone(), session.clone());
        let turn = Arc::new(Notify::new());
        let mut queues = self.queues.lock();
        queues.entry(key.clone()).or_default().push_back(Arc::clone(&turn));
        drop(queues);
        SessionPermit { queue: self.clone(), key, turn }
    }
}

impl SessionPermit {
    /// Whether every place before this one is gone.
    pub fn is_first(&self) -> bool {
        let queues = self.queue.queues.lock();
        let first = queues.get(&self.key).and_then(VecDeque::front);
        first.is_some_and(|first| Arc::ptr_eq(first, &self.turn))
    }

    /// Resolves when every place before this one is gone.
    pub async fn first(&self) {
        while !self.is_first() {
            self.turn.notified().await;
        }
    }
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        let mut queues = self.queue.queues.lock();
        let Some(queue) = queues.get_mut(&self.key) else { return };
        queue.retain(|place| !Arc::ptr_eq(place, &self.turn));
        match queue.front() {
            Some(next) => next.notify_one(),
            None => {
                queues.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use common::identity::UserId;

    use super::*;

    #[tokio::test]
    async fn places_come_in_order_of_arrival_even_when_one_leaves() {
        let queue = SessionQueue::default();
        let owner = Owner { user: UserId::parse("alice").expect("a user id"), generation: 0 };
        let session = SessionId::default_session();
        let permits: Vec<SessionPermit> = (0..3).map(|_| queue.enter(&owner, &session)).collect();
        let [first, second, third] = permits.try_into().expect("three permits");
        first.first().await;
        assert!(!second.is_first() && !third.is_first());
        drop(second);
        drop(first);
        third.first().await;
        drop(third);
        assert!(queue.queues.lock().is_empty(), "an empty queue is gone");
    }
}

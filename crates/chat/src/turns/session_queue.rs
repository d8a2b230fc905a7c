//! One lane a session: its turns run one after another, in order of arrival on this instance.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use common::identity::Owner;
use tokio::sync::Notify;

use crate::domain::SessionId;

type Key = (Owner, SessionId);

/// The lanes of this instance; a lane exists while somebody is in it.
#[derive(Clone, Debug, Default)]
pub struct Lanes {
    lanes: Arc<Mutex<HashMap<Key, VecDeque<Arc<Notify>>>>>,
}

/// A place in a lane, from arrival to the end of the turn. Dropping it lets the next one go.
#[derive(Debug)]
pub struct Place {
    lanes: Lanes,
    key: Key,
    turn: Arc<Notify>,
}

impl Lanes {
    fn lanes(&self) -> MutexGuard<'_, HashMap<Key, VecDeque<Arc<Notify>>>> {
        // Every change below is a single push or removal: nothing is left half done by a panic.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next place of that session's lane.
    pub fn enter(&self, owner: &Owner, session: &SessionId) -> Place {
        let key = (owner.clone(), session.clone());
        let turn = Arc::new(Notify::new());
        let mut lanes = self.lanes();
        let lane = lanes.entry(key.clone()).or_default();
        if lane.is_empty() {
            turn.notify_one();
        }
        lane.push_back(Arc::clone(&turn));
        drop(lanes);
        Place {
            lanes: self.clone(),
            key,
            turn,
        }
    }
}

impl Place {
    /// Resolves when every place before this one is gone. To be awaited once.
    pub async fn reached(&self) {
        self.turn.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lanes = self.lanes.lanes();
        let Some(lane) = lanes.get_mut(&self.key) else {
            return;
        };
        let was_first = lane
            .front()
            .is_some_and(|first| Arc::ptr_eq(first, &self.turn));
        lane.retain(|place| !Arc::ptr_eq(place, &self.turn));
        if lane.is_empty() {
            lanes.remove(&self.key);
        } else if was_first && let Some(next) = lane.front() {
            next.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use common::identity::UserId;

    use super::*;

    fn owner() -> Owner {
        Owner {
            user: UserId::parse("alice").expect("a user id"),
            generation: 0,
        }
    }

    #[tokio::test]
    async fn places_are_reached_in_order_of_arrival_even_when_one_leaves() {
        let lanes = Lanes::default();
        let session = SessionId::default_session();
        let places: Vec<Place> = (0..3).map(|_| lanes.enter(&owner(), &session)).collect();
        let [first, second, third] = places.try_into().expect("three places");
        first.reached().await;
        drop(second);
        drop(first);
        third.reached().await;
        drop(third);
        assert!(lanes.lanes().is_empty(), "a lane that nobody is in is gone");
    }
}

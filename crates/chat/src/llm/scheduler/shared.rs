//! A scheduler whose slots are given from outside, since instances share them.

use common::identity::UserId;

use crate::{
    domain::InstanceLoad,
    llm::scheduler::{LANES, Lane, Position, Scheduler, move_to},
};

/// What becomes of a request of that user: how many are served before it; `None` where it starts now.
pub type Placement = (Lane, UserId, Option<usize>);

impl Scheduler {
    /// Has slots given by [`Self::place`] alone, or by this instance's own limit again.
    pub fn share(&self, is_shared: bool) {
        let mut state = self.state.lock();
        state.is_shared = is_shared;
        self.admit(&mut state);
    }

    /// Resolves when, while slots are shared, requests have come, ended or left.
    pub async fn changed(&self) {
        self.changes.notified().await;
    }

    /// How many requests may run: on this instance, or on all that share.
    pub fn running_limit(&self) -> usize {
        self.running_limit
    }

    /// What each user runs and has waiting; without turns.
    pub fn load_by_user(&self) -> InstanceLoad {
        let mut load = InstanceLoad::new();
        let mut state = self.state.lock();
        for lane in LANES {
            for (user, waiting) in state.waiting(lane).counts() {
                load.entry((lane, user.clone())).or_default().waiting = waiting;
            }
        }
        for (key, running) in &state.running {
            load.entry(key.clone()).or_default().running = *running;
        }
        load
    }

    /// Starts or numbers requests that wait: of each user the first one first. Those that have left meanwhile are passed over.
    pub fn place(&self, placements: &[Placement]) {
        let mut state = self.state.lock();
        for (lane, user, _) in placements.iter().filter(|(.., position)| position.is_none()) {
            if let Some(waiter) = state.waiting(*lane).pop_of(user) {
                state.start(*lane, user);
                move_to(&waiter, Position::Admitted);
            }
        }
        for lane in LANES {
            let of_lane = placements.iter().filter(|(of, ..)| *of == lane);
            let positions = of_lane.filter_map(|(_, user, position)| Some((user, (*position)?)));
            state.waiting(lane).renumber_by(positions);
        }
        self.report(&state);
    }
}

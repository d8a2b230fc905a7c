//! Scheduler of one provider: a bounded number of requests runs, a bounded number waits, and users are served in turn.
//!
//! There are two lanes. An answer that waits always goes before embeddings, which take slots that are free, and leave one to answers
//! where there are several. In each lane a user may have at most as many waiting requests as there are free places left, so that one
//! user alone can take half of it, two a third each, and there is always a place for somebody who has none.

use std::{collections::HashMap, sync::Arc};

use common::identity::UserId;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

pub(super) use crate::domain::Lane;
use crate::llm::scheduler::waiting::Waiting;

mod shared;
mod waiting;

pub use shared::Placement;

/// In the order in which they are served.
const LANES: [Lane; 2] = [Lane::Answers, Lane::Embeddings];

#[derive(Debug)]
pub struct Scheduler {
    running_limit: usize,
    /// Of each lane.
    waiting_limit: usize,
    state: Mutex<SchedulerState>,
    /// Wakes whoever gives slots, where that is not this scheduler.
    changes: Notify,
    gauges: [metrics::Gauge; 3],
}

#[derive(Debug, Default)]
struct SchedulerState {
    running: HashMap<(Lane, UserId), usize>,
    answers: Waiting,
    embeddings: Waiting,
    /// Whether slots are given by [`Scheduler::place`] alone.
    is_shared: bool,
}

/// Tells a request where it stands; written under the scheduler's lock alone.
type Waiter = watch::Sender<Position>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Unknown,
    Waiting(usize),
    Admitted,
}

/// A place in the queue, then a slot. Dropping it gives back whichever it is.
#[derive(Debug)]
pub(super) struct SchedulerPermit {
    scheduler: Arc<Scheduler>,
    user: UserId,
    lane: Lane,
    waiter: Arc<Waiter>,
}

impl Scheduler {
    /// A scheduler that runs `running` requests at a time and lets `waiting` wait in each lane.
    pub(super) fn new(provider: &'static str, running: usize, waiting: usize) -> Arc<Self> {
        let scheduler = Self {
            running_limit: running.max(1),
            waiting_limit: waiting,
            state: Mutex::default(),
            changes: Notify::new(),
            gauges: ["llm_running", "llm_queued", "llm_embeddings_queued"]
                .map(|name| metrics::gauge!(name, "provider" => provider)),
        };
        scheduler.report(&scheduler.state.lock());
        Arc::new(scheduler)
    }

    /// Takes a slot or a place in the queue; `None` where the queue is full, or this user's part of it.
    pub(super) fn enqueue(self: &Arc<Self>, user: &UserId, lane: Lane) -> Option<SchedulerPermit> {
        let mut state = self.state.lock();
        // Where slots are shared, those wait, too, who may be given one in a moment.
        let in_a_moment = if state.is_shared { self.running_limit } else { state.running() };
        let waiting_limit = self.waiting_limit + in_a_moment.saturating_sub(state.running());
        let starts =
            !state.is_shared && state.waiting(lane).is_empty() && self.has_slot(&state, lane);
        let position = if starts { Position::Admitted } else { Position::Unknown };
        let waiter = Arc::new(Waiter::new(position));
        if starts {
            state.start(lane, user);
        } else if state.waiting(lane).has_place(user, waiting_limit) {
            state.waiting(lane).join(user, waiter.clone());
        } else {
            return None;
        }
        self.admit(&mut state);
        drop(state);
        Some(SchedulerPermit { scheduler: self.clone(), user: user.clone(), lane, waiter })
    }

    /// How many requests run and how many wait.
    pub fn load(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.running(), state.answers.len() + state.embeddings.len())
    }

    /// Whether a request of that lane may start now, as far as others run or wait.
    fn has_slot(&self, state: &SchedulerState, lane: Lane) -> bool {
        let is_free = state.running() < self.running_limit;
        match lane {
            Lane::Answers => is_free,
            Lane::Embeddings => {
                let limit = self.running_limit.saturating_sub(1).max(1);
                is_free && state.answers.is_empty() && state.running_of(Lane::Embeddings) < limit
            }
        }
    }

    /// Gives every free slot to whoever is next, or has it given.
    fn admit(&self, state: &mut SchedulerState) {
        if state.is_shared {
            self.changes.notify_one();
        } else {
            for lane in LANES {
                while self.has_slot(state, lane)
                    && let Some((user, waiter)) = state.waiting(lane).pop()
                {
                    state.start(lane, &user);
                    move_to(&waiter, Position::Admitted);
                }
            }
            state.renumber();
        }
        self.report(state);
    }

    fn report(&self, state: &SchedulerState) {
        let counts = [state.running(), state.answers.len(), state.embeddings.len()];
        for (gauge, count) in self.gauges.iter().zip(counts) {
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; counts are small")]
            gauge.set(count as f64);
        }
    }
}

impl SchedulerState {
    fn waiting(&mut self, lane: Lane) -> &mut Waiting {
        match lane {
            Lane::Answers => &mut self.answers,
            Lane::Embeddings => &mut self.embeddings,
        }
    }

    fn running(&self) -> usize {
        self.running.values().sum()
    }

    fn running_of(&self, lane: Lane) -> usize {
        self.running.iter().filter(|((of, _), _)| *of == lane).map(|(_, running)| running).sum()
    }

    fn start(&mut self, lane: Lane, user: &UserId) {
        *self.running.entry((lane, user.clone())).or_default() += 1;
    }

    fn stop(&mut self, lane: Lane, user: &UserId) {
        self.running.entry((lane, user.clone())).and_modify(|running| *running -= 1);
        self.running.retain(|_, running| *running > 0);
    }

    /// Tells every waiter how many are served before it.
    fn renumber(&self) {
        let answers = self.answers.renumber(0);
        self.embeddings.renumber(answers);
    }
}

fn move_to(waiter: &Waiter, position: Position) {
    waiter.send_if_modified(|current| std::mem::replace(current, position) != position);
}

impl SchedulerPermit {
    /// Resolves when the position is another than the one `shown`: how many wait ahead, or `None` when the turn has come.
    /// The last position shown is 0.
    pub(super) async fn changed(&self, shown: Option<usize>) -> Option<usize> {
        let mut position = self.waiter.subscribe();
        loop {
            match *position.borrow_and_update() {
                // Several slots can become free at once, and positions among several instances are estimates.
                Position::Admitted if shown.is_some_and(|shown| shown > 0) => return Some(0),
                Position::Admitted => return None,
                Position::Waiting(ahead) if shown != Some(ahead) => return Some(ahead),
                Position::Waiting(_) | Position::Unknown => {}
            }
            // The sender is held here, so this ends with a change alone.
            let _ = position.changed().await;
        }
    }

    fn is_admitted(&self) -> bool {
        *self.waiter.borrow() == Position::Admitted
    }

    /// Gives the slot to whoever is next, and waits for another one behind this user's other requests. It is never
    /// refused: the request was let in already.
    pub(super) async fn take_turns(&mut self) {
        if self.is_admitted() {
            let mut state = self.scheduler.state.lock();
            state.stop(self.lane, &self.user);
            self.waiter.send_replace(Position::Unknown);
            let waiter = self.waiter.clone();
            state.waiting(self.lane).join(&self.user, waiter);
            self.scheduler.admit(&mut state);
        }
        self.admitted().await;
    }

    pub(super) async fn admitted(&self) {
        let mut shown = None;
        while let Some(position) = self.changed(shown).await {
            shown = Some(position);
        }
    }
}

impl Drop for SchedulerPermit {
    fn drop(&mut self) {
        let mut state = self.scheduler.state.lock();
        if self.is_admitted() {
            state.stop(self.lane, &self.user);
        } else {
            state.waiting(self.lane).leave(&self.user, &self.waiter);
        }
        self.scheduler.admit(&mut state);
    }
}

#[cfg(test)]
mod tests;

//! Scheduler of one provider: a bounded number of requests runs, a bounded number waits, and users are served in turn.
//!
//! A user may have at most as many waiting requests as there are free places left, so that one user alone can take half of
//! the queue, two a third each, and there is always a place for somebody who has none.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use common::identity::UserId;
use tokio::sync::Notify;

/// A waiter's position once its turn has come.
const ADMITTED: usize = usize::MAX;

#[derive(Debug)]
pub(super) struct Scheduler {
    provider: &'static str,
    running_limit: usize,
    waiting_limit: usize,
    state: Mutex<SchedulerState>,
}

#[derive(Debug, Default)]
struct SchedulerState {
    running: usize,
    waiting: usize,
    /// Users who wait, in the order in which they are served next.
    rotation: VecDeque<UserId>,
    /// Each user's waiting requests, first come first.
    waiters: HashMap<UserId, VecDeque<Arc<Waiter>>>,
}

#[derive(Debug)]
struct Waiter {
    /// How many wait ahead, or [`ADMITTED`]; written under the scheduler's lock alone.
    position: AtomicUsize,
    changed: Notify,
}

/// A place in the queue, then a slot. Dropping it gives back whichever it is.
#[derive(Debug)]
pub(super) struct SchedulerPermit {
    scheduler: Arc<Scheduler>,
    user: UserId,
    waiter: Arc<Waiter>,
}

impl Scheduler {
    /// A scheduler that runs `running` requests at a time and lets `waiting` wait.
    pub(super) fn new(provider: &'static str, running: usize, waiting: usize) -> Arc<Self> {
        let scheduler = Self {
            provider,
            running_limit: running.max(1),
            waiting_limit: waiting,
            state: Mutex::default(),
        };
        scheduler.report(&scheduler.state());
        Arc::new(scheduler)
    }

    /// Takes a slot or a place in the queue; `None` where the queue is full, or this user's part of it.
    pub(super) fn enqueue(self: &Arc<Self>, user: &UserId) -> Option<SchedulerPermit> {
        let mut state = self.state();
        let waiter = Arc::new(Waiter {
            position: AtomicUsize::new(ADMITTED),
            changed: Notify::new(),
        });
        if state.running < self.running_limit && state.waiting == 0 {
            state.running += 1;
        } else if state.waiting_of(user) < self.waiting_limit.saturating_sub(state.waiting) {
            state.join(user, waiter.clone());
            state.renumber();
        } else {
            return None;
        }
        self.report(&state);
        drop(state);
        Some(SchedulerPermit {
            scheduler: self.clone(),
            user: user.clone(),
            waiter,
        })
    }

    /// How many requests run and how many wait.
    pub(super) fn load(&self) -> (usize, usize) {
        let state = self.state();
        (state.running, state.waiting)
    }

    fn state(&self) -> MutexGuard<'_, SchedulerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, state: &SchedulerState) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a gauge is a float; counts are small"
        )]
        {
            metrics::gauge!("llm_running", "provider" => self.provider).set(state.running as f64);
            metrics::gauge!("llm_queued", "provider" => self.provider).set(state.waiting as f64);
        }
    }
}

impl SchedulerState {
    fn waiting_of(&self, user: &UserId) -> usize {
        self.waiters.get(user).map_or(0, VecDeque::len)
    }

    fn join(&mut self, user: &UserId, waiter: Arc<Waiter>) {
        let queue = self.waiters.entry(user.clone()).or_default();
        if queue.is_empty() {
            self.rotation.push_back(user.clone());
        }
        queue.push_back(waiter);
        self.waiting += 1;
    }

    /// Gives a free slot to the user whose turn it is; that user then comes last.
    fn admit_next(&mut self) {
        let Some(user) = self.rotation.pop_front() else {
            return;
        };
        let Some(queue) = self.waiters.get_mut(&user) else {
            return;
        };
        if let Some(waiter) = queue.pop_front() {
            self.waiting -= 1;
            self.running += 1;
            waiter.move_to(ADMITTED);
        }
        if queue.is_empty() {
            self.waiters.remove(&user);
        } else {
            self.rotation.push_back(user);
        }
    }

    fn leave(&mut self, user: &UserId, waiter: &Arc<Waiter>) {
        let Some(queue) = self.waiters.get_mut(user) else {
            return;
        };
        let before = queue.len();
        queue.retain(|other| !Arc::ptr_eq(other, waiter));
        self.waiting -= before - queue.len();
        if queue.is_empty() {
            self.waiters.remove(user);
            self.rotation.retain(|other| other != user);
        }
    }

    /// Tells every waiter how many are served before it, in the order in which slots will be given.
    fn renumber(&self) {
        let mut round: Vec<_> = self
            .rotation
            .iter()
            .filter_map(|user| self.waiters.get(user))
            .map(|l| l.iter())
            .collect();
        let mut position = 0;
        while !round.is_empty() {
            round.retain_mut(|queue| {
                let Some(waiter) = queue.next() else {
                    return false;
                };
                waiter.move_to(position);
                position += 1;
                true
            });
        }
    }
}

impl Waiter {
    fn move_to(&self, position: usize) {
        if self.position.swap(position, Ordering::AcqRel) != position {
            self.changed.notify_one();
        }
    }

    fn position(&self) -> Option<usize> {
        Some(self.position.load(Ordering::Acquire)).filter(|position| *position != ADMITTED)
    }
}

impl SchedulerPermit {
    /// Resolves when the position is another than the one `shown`: how many wait ahead, or `None` when the turn has come.
    pub(super) async fn changed(&self, shown: Option<usize>) -> Option<usize> {
        loop {
            let position = self.waiter.position();
            if position.is_none() || position != shown {
                return position;
            }
            self.waiter.changed.notified().await;
        }
    }
}

impl Drop for SchedulerPermit {
    fn drop(&mut self) {
        let mut state = self.scheduler.state();
        if self.waiter.position().is_some() {
            state.leave(&self.user, &self.waiter);
        } else {
            state.running -= 1;
            state.admit_next();
        }
        state.renumber();
        self.scheduler.report(&state);
    }
}

#[cfg(test)]
mod tests;

//! The requests of one lane that wait: by user, and users in turn.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use common::identity::UserId;

use crate::llm::scheduler::{Position, Waiter, move_to};

#[derive(Debug, Default)]
pub(super) struct Waiting {
    count: usize,
    /// Users who wait, in the order in which they are served next.
    rotation: VecDeque<UserId>,
    /// Each user's waiting requests, first come first.
    by_user: HashMap<UserId, VecDeque<Arc<Waiter>>>,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether the user may have one more here, where `limit` may wait in all.
    pub(super) fn has_place(&self, user: &UserId, limit: usize) -> bool {
        let own = self.by_user.get(user).map_or(0, VecDeque::len);
        own < limit.saturating_sub(self.count)
    }

    pub(super) fn join(&mut self, user: &UserId, waiter: Arc<Waiter>) {
        let queue = self.by_user.entry(user.clone()).or_default();
        if queue.is_empty() {
            self.rotation.push_back(user.clone());
        }
        queue.push_back(waiter);
        self.count += 1;
    }

    /// Takes the request of the user whose turn it is; that user then comes last.
    pub(super) fn pop(&mut self) -> Option<(UserId, Arc<Waiter>)> {
        let user = self.rotation.front()?.clone();
        let waiter = self.pop_of(&user)?;
        Some((user, waiter))
    }

    /// Takes that user's first request; the user then comes last.
    pub(super) fn pop_of(&mut self, user: &UserId) -> Option<Arc<Waiter>> {
        let waiter = self.by_user.get(user)?.front()?.clone();
        self.leave(user, &waiter);
        if self.by_user.contains_key(user) {
            self.rotation.retain(|other| other != user);
            self.rotation.push_back(user.clone());
        }
        Some(waiter)
    }

    pub(super) fn counts(&self) -> impl Iterator<Item = (&UserId, usize)> {
        self.by_user.iter().map(|(user, queue)| (user, queue.len()))
    }

    pub(super) fn leave(&mut self, user: &UserId, waiter: &Arc<Waiter>) {
        let Some(queue) = self.by_user.get_mut(user) else { return };
        let before = queue.len();
        queue.retain(|other| !Arc::ptr_eq(other, waiter));
        self.count -= before - queue.len();
        if queue.is_empty() {
            self.by_user.remove(user);
            self.rotation.retain(|other| other != user);
        }
    }

    /// Tells every waiter how many are served before it, in the order in which slots will be given, where so many come
    /// `before` all of these; returns how many come before whoever is behind them.
    pub(super) fn renumber(&self, before: usize) -> usize {
        let queues = self.rotation.iter().filter_map(|user| self.by_user.get(user));
        let mut round: Vec<_> = queues.map(VecDeque::iter).collect();
        let mut position = before;
        while !round.is_empty() {
            round.retain_mut(|queue| {
                let Some(waiter) = queue.next() else { return false };
                move_to(waiter, Position::Waiting(position));
                position += 1;
                true
            });
        }
        position
    }

    /// Tells waiters these positions: those of a user in the order in which they came.
    pub(super) fn renumber_by<'a>(&self, positions: impl Iterator<Item = (&'a UserId, usize)>) {
        let queues = self.by_user.iter();
        let mut queues: HashMap<_, _> = queues.map(|(user, queue)| (user, queue.iter())).collect();
        for (user, position) in positions {
            if let Some(waiter) = queues.get_mut(user).and_then(Iterator::next) {
                move_to(waiter, Position::Waiting(position));
            }
        }
    }
}

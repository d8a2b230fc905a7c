//! Who gets a free slot. Every instance decides the same from what all have published.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use common::identity::UserId;

use crate::{
    domain::{InstanceLoad, Lane},
    llm::Placement,
};

/// Gives the free ones of `limit` slots to whoever is next, and numbers who still waits: what becomes of every request that waits on
/// this instance. Embeddings leave a slot to answers where there are several.
pub(super) fn decide(own: &InstanceLoad, others: &[InstanceLoad], limit: usize) -> Vec<Placement> {
    let loads: Vec<_> = std::iter::once(own).chain(others).collect();
    let running = |lane: Lane| -> usize {
        let of_lane = loads.iter().copied().flatten().filter(|((of, _), _)| *of == lane);
        of_lane.map(|(_, load)| load.running).sum()
    };
    let order = serving_order(&loads);
    let answers = order.iter().filter(|(lane, ..)| *lane == Lane::Answers).count();
    let for_embeddings = (limit - 1).max(1).saturating_sub(running(Lane::Embeddings));
    let free = limit.saturating_sub(running(Lane::Answers) + running(Lane::Embeddings));
    let free = free.min(answers + for_embeddings);
    let own = order.into_iter().enumerate().filter(|(_, (.., instance))| *instance == 0);
    own.map(|(rank, (lane, user, _))| (lane, user.clone(), rank.checked_sub(free))).collect()
}

/// Every waiting request in the order in which slots are given: lane, user and, as the place among the loads, instance. Answers
/// come first; then users who have least running, and of these the one whose turn was longest ago.
fn serving_order<'a>(loads: &[&'a InstanceLoad]) -> Vec<(Lane, &'a UserId, usize)> {
    // Over all instances and both lanes.
    let mut totals: HashMap<&UserId, (usize, i64)> = HashMap::new();
    for ((_, user), load) in loads.iter().copied().flatten() {
        let (running, turn) = totals.entry(user).or_insert((0, i64::MIN));
        (*running, *turn) = (*running + load.running, load.turn.max(*turn));
    }
    let mut next = BinaryHeap::new();
    for (instance, load) in loads.iter().enumerate() {
        for ((lane, user), load) in load.iter().filter(|(_, load)| load.waiting > 0) {
            let (running, turn) = totals.get(user).copied().unwrap_or_default();
            next.push(Reverse((*lane, running, turn, user, instance, load.waiting)));
        }
    }
    let mut order = Vec::new();
    while let Some(Reverse((lane, running, turn, user, instance, waiting))) = next.pop() {
        let Some((total, _)) = totals.get_mut(user) else { continue };
        // Where the user has got a slot since, this comes later.
        let is_next = *total == running;
        if is_next {
            *total += 1;
            order.push((lane, user, instance));
        }
        let left = waiting - usize::from(is_next);
        if left > 0 {
            next.push(Reverse((lane, *total, turn, user, instance, left)));
        }
    }
    order
}

#[cfg(test)]
mod tests;

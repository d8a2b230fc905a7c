//! Commands about keys of several slots, in one round trip to each server.

use std::{iter::zip, slice::from_ref, sync::Arc, time::Instant};

use futures_util::future::join_all;
use redis::{Cmd, Value};

use super::{
    node::Node,
    reply::{self, Failure},
    request::Request,
    topology::{Topology, no_owner},
};

/// What goes to one server.
struct Group {
    node: Arc<Node>,
    commands: Vec<Cmd>,
    /// The place of each command among all, and its slot.
    places: Vec<(usize, u16)>,
}

/// Sends each command to the server that serves its slot, those of one server together. `repeats`: what a connection lost may be done
/// twice.
pub(super) async fn scatter(
    topology: &Arc<Topology>,
    commands: impl Iterator<Item = (u16, Cmd)>,
    repeats: bool,
    end: Instant,
) -> Vec<Result<Value, Failure>> {
    let layout = topology.layout(end).await;
    let mut groups: Vec<Group> = Vec::new();
    let place = |(place, (slot, command))| {
        let node = match &layout {
            Ok(layout) => &layout.owner(slot).ok_or_else(no_owner)?.node,
            Err(failure) => return Err(failure.clone()),
        };
        let known = groups.iter_mut().find(|group| Arc::ptr_eq(&group.node, node));
        if let Some(group) = known {
            group.commands.push(command);
            group.places.push((place, slot));
        } else {
            let (commands, places) = (vec![command], vec![(place, slot)]);
            groups.push(Group { node: node.clone(), commands, places });
        }
        Err(reply::unexpected().into())
    };
    let mut answers: Vec<_> = commands.enumerate().map(place).collect();
    let exchanges = groups.iter().map(|group| group.exchange(topology, repeats, end));
    for (group, own) in zip(&groups, join_all(exchanges).await) {
        for ((place, _), answer) in zip(&group.places, own) {
            if let Some(unanswered) = answers.get_mut(*place) {
                *unanswered = answer;
            }
        }
    }
    answers
}

impl Group {
    /// An answer to each command. What was not done is sent alone, wherever its key is by now.
    async fn exchange(
        &self,
        topology: &Arc<Topology>,
        repeats: bool,
        end: Instant,
    ) -> Vec<Result<Value, Failure>> {
        let request = Request::Each(&self.commands);
        let values = match self.node.exchange(request, false, end).await {
            Err(Failure::Lost(_)) if repeats => self.node.exchange(request, false, end).await,
            values => values,
        };
        let values = match values {
            Ok(values) => values,
            Err(failure) => return self.commands.iter().map(|_| Err(failure.clone())).collect(),
        };
        let mut answers: Vec<_> = values.into_iter().map(Ok).collect();
        for (answer, (command, (_, slot))) in zip(&mut answers, zip(&self.commands, &self.places)) {
            let failure = answer.as_ref().ok().and_then(reply::failed);
            if failure.is_some_and(|failure| failure.was_not_done()) {
                let values = topology.route(*slot, Request::Each(from_ref(command)), end).await;
                *answer = values.and_then(|mut it| it.pop().ok_or(reply::unexpected().into()));
            }
        }
        answers
    }
}

//! Commands about keys of several slots, in one round trip to each server.

use std::{iter::zip, slice::from_ref, sync::Arc, time::Instant};

use futures_util::future::join_all;
use redis::{Cmd, Value};
use smallvec::SmallVec;

use super::{
    node::Node,
    reply::{self, Failure},
    request::Request,
    topology::Topology,
};

/// The commands for one server.
struct Group {
    node: Arc<Node>,
    commands: Vec<Cmd>,
    /// The place of each command among all, and its slot.
    places: Vec<(usize, u16)>,
}

type Answer = Result<Value, Failure>;

/// Sends commands to the servers that serve their keys, those of one server together. `repeats`: what a connection lost may be done
/// twice.
pub(super) async fn scatter<'a>(
    topology: &Arc<Topology>,
    parts: impl Iterator<Item = (&'a str, SmallVec<[Cmd; 2]>)>,
    repeats: bool,
    end: Instant,
) -> Vec<Answer> {
    let layout = topology.layout(end).await;
    let commands =
        parts.flat_map(|(key, commands)| zip(std::iter::repeat(topology.slot(key)), commands));
    let (mut groups, mut answers) = (Vec::<Group>::new(), Vec::new());
    for (place, (slot, command)) in commands.enumerate() {
        let node = layout.as_ref().map_err(Failure::clone).and_then(|layout| layout.node(slot));
        let node = match node {
            Ok(node) => node,
            Err(failure) => {
                answers.push((place, Err(failure)));
                continue;
            }
        };
        let known = groups.iter_mut().find(|group| Arc::ptr_eq(&group.node, node));
        if let Some(group) = known {
            group.commands.push(command);
            group.places.push((place, slot));
        } else {
            let (commands, places) = (vec![command], vec![(place, slot)]);
            groups.push(Group { node: node.clone(), commands, places });
        }
    }
    let exchanges = groups.iter().map(|group| group.exchange(topology, repeats, end));
    for (group, own) in zip(&groups, join_all(exchanges).await) {
        answers.extend(zip(group.places.iter().map(|(place, _)| *place), own));
    }
    answers.sort_unstable_by_key(|(place, _)| *place);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

impl Group {
    /// An answer to each command. What was not done, or may be repeated, is sent alone, wherever its key is by now.
    async fn exchange(&self, topology: &Arc<Topology>, repeats: bool, end: Instant) -> Vec<Answer> {
        let count = self.commands.len();
        let mut answers: Vec<Answer> =
            match self.node.exchange(Request::Each(&self.commands), false, end).await {
                Ok(values) if values.len() == count => values.into_iter().map(Ok).collect(),
                Ok(_) => vec![Err(reply::unexpected().into()); count],
                Err(failure) => vec![Err(failure); count],
            };
        for (answer, (command, (_, slot))) in zip(&mut answers, zip(&self.commands, &self.places)) {
            let again = match &*answer {
                Ok(value) => reply::failed(value).is_some_and(|failure| failure.was_not_done()),
                Err(failure) => repeats && matches!(failure, Failure::Lost(_)),
            };
            if again {
                let values = topology.route(*slot, Request::Each(from_ref(command)), end).await;
                *answer =
                    values.and_then(|mut it| it.pop().ok_or_else(|| reply::unexpected().into()));
            }
        }
        answers
    }
}

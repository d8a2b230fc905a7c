//! Commands about keys of several slots, in one round trip to each server.

use std::{collections::HashMap, sync::Arc, time::Instant};

use futures_util::future::join_all;
use redis::{Cmd, Pipeline, Value};

use super::{
    command::RedisCommand,
    layout::slot,
    node::Node,
    reply::{self, Failure, failed},
    request::Request,
    topology::Topology,
};
use crate::store::Op;

/// Commands about one key, which are sent together with those about other keys.
pub(super) struct Part {
    pub(super) slot: u16,
    pub(super) commands: Vec<Cmd>,
}

/// Sends each part to the server that serves its key, those of one server together.
pub(super) async fn scatter(
    topology: &Arc<Topology>,
    parts: &[Part],
    end: Instant,
) -> Vec<Result<Vec<Value>, Failure>> {
    let mut answers: Vec<Option<Result<Vec<Value>, Failure>>> = Vec::new();
    let mut groups: HashMap<String, (Arc<Node>, Vec<usize>)> = HashMap::new();
    for (position, part) in parts.iter().enumerate() {
        match topology.owner(part.slot, end).await {
            Ok(node) => {
                let group = groups.entry(node.address().to_owned());
                group.or_insert((node, Vec::new())).1.push(position);
                answers.push(None);
            }
            Err(failure) => answers.push(Some(Err(failure))),
        }
    }
    let groups = groups.into_values().map(|(node, positions)| async move {
        let mut pipeline = redis::pipe();
        for command in
            positions.iter().flat_map(|at| parts.get(*at)).flat_map(|part| &part.commands)
        {
            pipeline.add_command(command.clone());
        }
        let answers = node.exchange(Request::Each(&pipeline), false, end).await;
        (positions, answers)
    });
    for (positions, group) in join_all(groups).await {
        let mut values = group.map(Vec::into_iter);
        for position in positions {
            let (Some(part), Some(answer)) = (parts.get(position), answers.get_mut(position))
            else {
                continue;
            };
            *answer = Some(match &mut values {
                Ok(values) => {
                    let own: Vec<_> = values.take(part.commands.len()).collect();
                    match own.iter().filter_map(failed).find(Failure::was_not_done) {
                        Some(_) => send_part(topology, part, end).await,
                        None => Ok(own),
                    }
                }
                Err(failure) => Err(failure.clone()),
            });
        }
    }
    let unanswered = || Err(reply::unexpected().into());
    answers.into_iter().map(|answer| answer.unwrap_or_else(unanswered)).collect()
}

/// One part alone, wherever its key is by now.
pub(super) async fn send_part(
    topology: &Arc<Topology>,
    part: &Part,
    end: Instant,
) -> Result<Vec<Value>, Failure> {
    let mut pipeline = Pipeline::with_capacity(part.commands.len());
    for command in &part.commands {
        pipeline.add_command(command.clone());
    }
    topology.route(part.slot, Request::Each(&pipeline), end).await
}

pub(super) fn part_of_op(op: &Op) -> Part {
    let mut commands = Vec::with_capacity(1);
    if let Op::Expire(key, None) = op {
        let mut exists = redis::cmd("EXISTS");
        exists.arg(key);
        commands.push(exists);
    }
    commands.push(RedisCommand::of(op).packed());
    Part { slot: slot(op.key()), commands }
}

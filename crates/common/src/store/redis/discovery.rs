//! Asks a cluster's nodes or Sentinels who serves what.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use redis::{Cmd, Value};

use super::{
    layout::{self, Layout, Range},
    node::Node,
    reply::{self, Failure},
    request::Request,
};
use crate::{
    clients::redis::address::{join, split},
    store::StoreError,
};

const ASK_LIMIT: Duration = Duration::from_millis(500);

pub(super) struct Seed {
    pub(super) node: Arc<Node>,
    /// The same Sentinel with the login of Redis, where it wants one.
    pub(super) with_login: Option<Arc<Node>>,
}

/// What most of the nodes say of the slots: one that was cut off from the others is outvoted.
pub(super) async fn find_ranges(
    seeds: &[Seed],
    before: Option<&Layout>,
) -> Result<Vec<Range>, Failure> {
    let mut nodes: Vec<Arc<Node>> = seeds.iter().map(|seed| seed.node.clone()).collect();
    for owner in before.map(Layout::owners).unwrap_or_default() {
        if nodes.iter().all(|node| node.address() != owner.node.address()) {
            nodes.push(owner.node.clone());
        }
    }
    let mut slots = redis::cmd("CLUSTER");
    slots.arg("SLOTS");
    let answers = join_all(nodes.iter().map(|node| ask(node, &slots))).await;
    let mut found: Vec<(usize, Vec<Range>)> = Vec::new();
    let mut wrong = None;
    for (node, answer) in nodes.iter().zip(answers) {
        let host = split(node.address()).map_or("", |(host, _)| host);
        match answer.map(|answer| layout::ranges(answer, host)) {
            Ok(Some(ranges)) => match found.iter_mut().find(|(_, known)| *known == ranges) {
                Some((count, _)) => *count += 1,
                None => found.push((1, ranges)),
            },
            Ok(None) => wrong = Some(reply::unexpected().into()),
            Err(failure) => wrong = Some(failure),
        }
    }
    let most = found.into_iter().max_by_key(|(count, _)| *count);
    most.map(|(_, ranges)| ranges).ok_or_else(|| none_answers(wrong))
}

/// The address of the master by the Sentinel that saw the latest failover.
pub(super) async fn find_master(seeds: &[Seed], service: &str) -> Result<String, Failure> {
    let mut master = redis::cmd("SENTINEL");
    master.arg("MASTER").arg(service);
    let master = &master;
    let answers = join_all(seeds.iter().map(|seed| async move {
        match (ask(&seed.node, master).await, &seed.with_login) {
            (Err(Failure::Refuses(_)), Some(with_login)) => ask(with_login, master).await,
            (answer, _) => answer,
        }
    }));
    let (mut latest, mut wrong) = (None, None);
    for answer in answers.await {
        match answer.map(master_of) {
            Ok(Some(found)) => latest = latest.max(Some(found)),
            Ok(None) => wrong = Some(reply::unexpected().into()),
            Err(failure) => wrong = Some(failure),
        }
    }
    latest.map(|(_, address)| address).ok_or_else(|| none_answers(wrong))
}

async fn ask(node: &Node, command: &Cmd) -> Result<Value, Failure> {
    let end = Instant::now() + ASK_LIMIT;
    let mut values = node.exchange(Request::One(command), false, end).await?;
    values.pop().ok_or_else(|| reply::unexpected().into())
}

fn none_answers(failure: Option<Failure>) -> Failure {
    failure.unwrap_or_else(|| StoreError::Unavailable("no server is known".into()).into())
}

/// The number of the failover that made it master, and its address.
fn master_of(answer: Value) -> Option<(u64, String)> {
    let fields: HashMap<String, String> = redis::from_redis_value(answer).ok()?;
    let port = fields.get("port")?.parse().ok()?;
    let epoch = fields.get("config-epoch")?.parse().ok()?;
    Some((epoch, join(fields.get("ip")?, port)))
}

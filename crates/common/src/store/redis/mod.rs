//! The store on Redis, alone, behind Sentinels or as a Cluster: one connection a thread and server, one pipeline or one script for
//! each call.

mod command;
mod reading;
mod reply;

mod discovery;
mod layout;
mod node;
mod replication;
mod request;
mod scatter;
mod script;
mod topology;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use redis::{Cmd, Value};
use secrecy::{ExposeSecret, SecretString};

pub(super) use self::layout::tag;
use self::{
    command::{Arg, ScriptCall},
    node::Node,
    replication::{Step, none_connected},
    reply::Failure,
    request::Request,
    scatter::scatter,
    script::{Scripts, StoredScript},
    topology::Topology,
};
use super::{
    Admission, Bucket, Committed, Found, Op, Quota, Read, Snapshot, StoreError, StoreHealth, Txn,
    plan,
};
use crate::{clients::redis::address::RedisAddress, config::Durability, shutdown::Shutdown};

const ADMIT: &str = concat!(
    include_str!("../admit.lua"),
    "return { admit(KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])), ARGV[4] }"
);

/// Redis, through the connections of whichever thread asks.
#[derive(Clone)]
pub(super) struct Redis {
    topology: Arc<Topology>,
    durability: Durability,
    admit: Arc<StoredScript>,
    scripts: Arc<Scripts>,
    /// Scripts called so far: each call's word is its number.
    calls: Arc<AtomicU64>,
}

impl Redis {
    pub(super) fn open(
        url: &SecretString,
        durability: Durability,
        shutdown: &Shutdown,
    ) -> Result<Self, StoreError> {
        let address = RedisAddress::parse(url.expose_secret())
            .map_err(|why| StoreError::Unavailable(format!("the address of the store: {why}")))?;
        Ok(Self {
            topology: Topology::open(address, shutdown)?,
            durability,
            admit: StoredScript::new(ADMIT.to_owned()),
            scripts: Arc::default(),
            calls: Arc::default(),
        })
    }

    pub(super) fn was_away(&self, key: &str, time: Duration) -> bool {
        self.topology.was_away(self.topology.slot(key), time)
    }

    /// `is_large`: over a connection of its own, so that no small call waits behind the answer.
    pub(super) async fn read(
        &self,
        reads: &[Read],
        is_large: bool,
        end: Instant,
    ) -> Result<Snapshot, StoreError> {
        let slot = reads.first().map_or(0, |read| self.topology.slot(read.key()));
        let as_one = !is_large && reading::needs_transaction(reads);
        let commands = reading::commands(reads, as_one);
        let request = match as_one {
            true => Request::Transaction(&commands),
            false if is_large => Request::Bulk(&commands),
            false => Request::Each(&commands),
        };
        let values = match self.topology.read(slot, request, end).await {
            // A full Redis queues no transaction. It takes no writes either, so that nothing comes between the reads.
            Err(Failure::Said(StoreError::Full(_))) if as_one => {
                let commands = reading::commands(reads, false);
                self.topology.read(slot, Request::Each(&commands), end).await
            }
            values => values,
        }?;
        reading::snapshot(reads, values)
    }

    pub(super) async fn read_each(
        &self,
        reads: &[Read],
        end: Instant,
    ) -> Vec<Result<Found, StoreError>> {
        let parts = reads.iter().map(|read| (read.key(), reading::commands_of(read)));
        let mut answers = scatter(&self.topology, parts, true, end).await.into_iter();
        reads.iter().map(|read| reading::found(read, &mut answers)).collect()
    }

    pub(super) async fn commit(&self, txn: &Txn, end: Instant) -> Result<Committed, StoreError> {
        let said = self.run_txn(txn, None, end).await?;
        reply::committed(reply::number(said)?)
    }

    pub(super) async fn apply_each(
        &self,
        ops: &[Op],
        end: Instant,
    ) -> Vec<Result<bool, StoreError>> {
        let parts = ops.iter().map(|op| (op.key(), command::independent(op)));
        let mut answers = scatter(&self.topology, parts, false, end).await.into_iter();
        ops.iter().map(|op| reply::applied(op, &mut answers)).collect()
    }

    pub(super) async fn admit(
        &self,
        key: &str,
        quota: Quota,
        cost: i64,
        end: Instant,
    ) -> Result<Admission, StoreError> {
        let numbers = [quota.burst(), quota.step(), cost].map(|n| n.to_string());
        let args: Vec<_> = numbers.iter().map(|n| n.as_bytes().into()).collect();
        let said = self.run(&self.admit, &[key], &args, Durability::Local, end).await?;
        Ok(reply::admission(said)?.0)
    }

    pub(super) async fn admit_and_commit(
        &self,
        bucket: &Bucket,
        txn: &Txn,
        end: Instant,
    ) -> Result<(Admission, Option<Committed>), StoreError> {
        let said = self.run_txn(txn, Some(bucket), end).await?;
        let (admission, rest) = reply::admission(said)?;
        let committed = rest.map(reply::committed).transpose()?;
        Ok((admission, committed))
    }

    /// Asks every server that serves slots for a sign of life.
    pub(super) async fn ping(&self, end: Instant) -> Result<StoreHealth, StoreError> {
        let layout = self.topology.layout(end).await?;
        let pings = layout.owners().iter().map(|owner| async move {
            let answer = self.ping_node(&owner.node, end).await;
            answer.map_err(|failure| (owner.node.address(), failure))
        });
        let answers = join_all(pings).await;
        let all = answers.len();
        let mut away: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
        if away.len() == all {
            let first = away.pop().map(|(_, failure)| failure.into());
            return Err(first.unwrap_or_else(|| {
                StoreError::Unavailable("no node of the cluster serves slots".into())
            }));
        }
        let mut reasons: Vec<_> = away
            .into_iter()
            .map(|(address, failure)| format!("{address}: {}", reply::reason(failure)))
            .collect();
        if layout.unserved() > 0 {
            reasons.push(format!("{} slots have no node", layout.unserved()));
        }
        Ok(match reasons.is_empty() {
            true => StoreHealth::Whole,
            false => StoreHealth::Degraded(reasons.join("; ")),
        })
    }

    async fn ping_node(&self, node: &Node, end: Instant) -> Result<(), Failure> {
        node.ping(end).await?;
        if self.durability == Durability::Replicated && node.replicas(end).await? == Some(0) {
            return Err(none_connected());
        }
        Ok(())
    }

    /// A server that does not write to its disk before it answers, and what is wrong; nothing with `local` durability.
    pub(super) async fn fsync_problem(
        &self,
        end: Instant,
    ) -> Result<Option<(String, String)>, StoreError> {
        if self.durability == Durability::Local {
            return Ok(None);
        }
        let layout = self.topology.layout(end).await?;
        let mut config = redis::cmd("CONFIG");
        config.arg("GET").arg("append*");
        for owner in layout.owners() {
            let answer = owner.node.exchange(Request::One(&config), false, end).await;
            let problem = match answer {
                Ok(answer) => replication::fsync_problem(answer),
                Err(Failure::Lost(why)) => return Err(StoreError::Unavailable(why)),
                Err(_) => Some("appendfsync cannot be read: CONFIG GET is refused".to_owned()),
            };
            if let Some(problem) = problem {
                return Ok(Some((owner.node.address().to_owned(), problem)));
            }
        }
        Ok(None)
    }

    /// The first eviction policy that may lose data, else that of all servers. Asked of INFO, which hosted Redis allows where CONFIG is
    /// forbidden.
    pub(super) async fn eviction_policy(&self, end: Instant) -> Result<Option<String>, StoreError> {
        let layout = self.topology.layout(end).await?;
        let mut common = None;
        for owner in layout.owners() {
            let info = owner.node.info("memory", end).await?;
            let policy = info
                .lines()
                .find_map(|line| line.strip_prefix("maxmemory_policy:"))
                .map(|policy| policy.trim().to_owned());
            if policy.as_deref() != Some("noeviction") {
                return Ok(policy);
            }
            common = policy;
        }
        Ok(common)
    }

    async fn run_txn(
        &self,
        txn: &Txn,
        bucket: Option<&Bucket>,
        end: Instant,
    ) -> Result<Value, StoreError> {
        let call = ScriptCall::of(txn, bucket)?;
        let script = self.scripts.of(&call.steps);
        // Only what is acknowledged to somebody waits for replicas.
        let durability = if txn.durable { self.durability } else { Durability::Local };
        let keys: Vec<_> = call.keys().collect();
        self.run(&script, &keys, &call.args, durability, end).await
    }

    /// Runs a script by its hash, and whole if Redis has forgotten it (nothing was done then). All keys are of one slot.
    async fn run(
        &self,
        stored: &StoredScript,
        keys: &[&str],
        args: &[Arg<'_>],
        durability: Durability,
        end: Instant,
    ) -> Result<Value, StoreError> {
        let word = self.calls.fetch_add(1, Ordering::Relaxed).to_string();
        let call = |name: &str, script: &str| {
            let size = keys.iter().map(|key| key.len()).sum::<usize>()
                + args.iter().map(|arg| arg.len()).sum::<usize>();
            let mut cmd = Cmd::with_capacity(keys.len() + args.len() + 4, size + script.len() + 32);
            cmd.arg(name).arg(script).arg(keys.len()).arg(keys);
            for arg in args {
                cmd.arg(arg.as_ref());
            }
            cmd.arg(&word);
            cmd
        };
        let first = keys.first().copied().unwrap_or_default();
        let slot = self.topology.slot(first);
        // In the family of the keys that are written.
        let byte = (durability == Durability::Replicated)
            .then(|| format!("{}:{{{}}}:replicated", plan::family(first), tag(first)));
        let request = |step| match &byte {
            None => Request::Script(step, &word),
            Some(byte) => Request::Replicated(Step { step, byte }),
        };
        let sent = match &byte {
            None => call("EVALSHA", stored.hash()),
            // A refusal of the hash would be heard only when the replicas have answered.
            Some(_) => call("EVAL", &stored.source),
        };
        let answer = self.topology.route(slot, request(&sent), end).await;
        let answer = match answer {
            Err(Failure::NoScript) => {
                let whole = call("EVAL", &stored.source);
                self.topology.route(slot, request(&whole), end).await
            }
            answer => answer,
        }?;
        match answer.into_iter().next() {
            Some(Value::Array(mut said)) if said.len() == 2 => Ok(said.swap_remove(0)),
            _ => Err(reply::unexpected()),
        }
    }
}

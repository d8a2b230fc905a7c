//! The store on Redis: one connection a thread, one pipeline or one script for each call.

mod command;
mod reading;
mod reply;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use redis::{Cmd, Pipeline, Script, Value};
use secrecy::SecretString;

use self::{
    command::{RedisCommand, ScriptArgs},
    reply::{Failure, failure},
};
use super::{
    Admission, Bucket, Committed, Op, Quota, Read, Snapshot, StoreError, Txn,
    circuit_breaker::CircuitBreaker, plan,
};
use crate::{
    clients::redis::{Connector, Link},
    shutdown::Shutdown,
};

/// How often the connection is looked at, so that a half-open one is noticed and a store that is back is found.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How often while it does not answer or is not there.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How long one look may take.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

const ADMIT: &str = concat!(
    include_str!("../admit.lua"),
    "return admit(KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]))"
);

const COMMIT: &str = concat!(include_str!("../commit.lua"), "return commit(KEYS, ARGV)");

/// The bucket's key, burst and step come last, after what the transaction takes. Answers as `admit` does, and what the
/// transaction says behind that.
const ADMIT_AND_COMMIT: &str = concat!(
    include_str!("../admit.lua"),
    include_str!("../commit.lua"),
    "
local step, burst = tonumber(table.remove(ARGV)), tonumber(table.remove(ARGV))
local said = admit(table.remove(KEYS), burst, step, 1)
if said[1] == 1 then said[5] = commit(KEYS, ARGV) end
return said"
);

/// Redis, through the connection of whichever thread asks.
#[derive(Clone, Debug)]
pub(super) struct Redis {
    connector: Connector,
    commit: Arc<StoredScript>,
    admit: Arc<StoredScript>,
    admit_and_commit: Arc<StoredScript>,
}

/// A script that Redis knows by its hash once it was sent whole.
#[derive(Debug)]
struct StoredScript {
    source: &'static str,
    script: Script,
}

impl StoredScript {
    fn new(source: &'static str) -> Arc<Self> {
        Arc::new(Self {
            source,
            script: Script::new(source),
        })
    }
}

impl Redis {
    pub(super) fn open(
        url: &SecretString,
        breaker: Arc<CircuitBreaker>,
        shutdown: &Shutdown,
    ) -> Result<Self, StoreError> {
        let connector = Connector::new(url).map_err(|_| {
            StoreError::Unavailable("the address of the store is not a Redis address".into())
        })?;
        let redis = Self {
            connector,
            commit: StoredScript::new(COMMIT),
            admit: StoredScript::new(ADMIT),
            admit_and_commit: StoredScript::new(ADMIT_AND_COMMIT),
        };
        let (watcher, stopping) = (redis.clone(), shutdown.stop_token());
        shutdown.spawn(async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = watcher.watch(&breaker) => {}
            }
        });
        Ok(redis)
    }

    /// Looks at the connection for ever; opens and shuts the breaker, so that callers seldom have to find out.
    async fn watch(&self, breaker: &CircuitBreaker) {
        loop {
            let begun = Instant::now();
            // In time for the next look: while this task lives, callers need not try what is frozen.
            breaker.reserve_probe(begun + LOOK_LIMIT + 2 * LOOK_AGAIN);
            let looks = futures_util::future::join(
                tokio::time::timeout(LOOK_LIMIT, self.ping()),
                self.give_up_silent_links(),
            );
            let healthy = match looks.await.0 {
                Ok(result) => {
                    breaker.record_reply();
                    result.is_ok()
                }
                Err(_) => {
                    breaker.record_timeout(begun, Instant::now());
                    false
                }
            };
            if !healthy {
                breaker.record_unreachable(Instant::now());
            }
            tokio::time::sleep(if healthy { LOOK_EVERY } else { LOOK_AGAIN }).await;
        }
    }

    /// Half-open or frozen: either way a new connection is as good, and a half-open one never mends.
    async fn give_up_silent_links(&self) {
        let ping = redis::cmd("PING");
        let looks = self.connector.links().into_iter().map(|link| {
            let ping = &ping;
            async move {
                let mut connection = link.connection.clone();
                let look = connection.send_packed_command(ping);
                if tokio::time::timeout(LOOK_LIMIT, look).await.is_err() {
                    self.connector.give_up(&link);
                }
            }
        });
        futures_util::future::join_all(looks).await;
    }

    pub(super) async fn read(
        &self,
        reads: &[Read],
        at_one_moment: bool,
    ) -> Result<Snapshot, StoreError> {
        let (pipeline, sizes) = reading::pipeline(reads, at_one_moment);
        // Reading twice does no harm, so a connection that broke meanwhile costs the caller nothing.
        let values = match self.send_pipeline(&pipeline).await {
            Err(Failure::Lost(_)) => self.send_pipeline(&pipeline).await,
            // A full Redis queues no transaction. It takes no writes either, so that nothing comes between the reads.
            Err(Failure::Said(StoreError::Full(_))) => {
                self.send_pipeline(&reading::pipeline(reads, false).0).await
            }
            result => result,
        }?;
        reading::snapshot(reads, &sizes, values)
    }

    pub(super) async fn commit(&self, txn: &Txn) -> Result<Committed, StoreError> {
        let guards = plan::guards(txn)?;
        let flat = ScriptArgs::of(txn, &guards);
        let said = self.run(&self.commit, &flat.keys, &flat.args).await?;
        reply::committed(reply::number(said)?)
    }

    pub(super) async fn apply(&self, ops: &[Op]) -> Result<Vec<bool>, StoreError> {
        let mut pipeline = redis::pipe();
        for op in ops {
            if let Op::Expire(key, None) = op {
                // PERSIST says whether there was an expiry, not whether there was a key.
                pipeline.cmd("EXISTS").arg(key);
            }
            pipeline.add_command(RedisCommand::of(op).packed());
        }
        if pipeline.is_empty() {
            return Ok(Vec::new());
        }
        let mut values = self.send_pipeline(&pipeline).await?.into_iter();
        let mut applied = Vec::with_capacity(ops.len());
        let mut wrong = None;
        for op in ops {
            let first = values.next();
            if let Op::Expire(_, None) = op {
                values.next();
            }
            match reply::applied(op, first) {
                Ok(said) => applied.push(said),
                Err(error) => wrong = wrong.or(Some(error)),
            }
        }
        wrong.map_or(Ok(applied), Err)
    }

    pub(super) async fn admit(
        &self,
        key: &str,
        quota: Quota,
        cost: i64,
    ) -> Result<Admission, StoreError> {
        let numbers = [quota.burst(), quota.step(), cost].map(|n| n.to_string());
        let args = numbers.each_ref().map(|n| n.as_bytes().into());
        let said = self.run(&self.admit, &[key], &args).await?;
        Ok(reply::admission(said)?.0)
    }

    pub(super) async fn admit_and_commit(
        &self,
        bucket: &Bucket,
        txn: &Txn,
    ) -> Result<(Admission, Option<Committed>), StoreError> {
        let guards = plan::guards(txn)?;
        let mut flat = ScriptArgs::of(txn, &guards);
        flat.bucket(bucket);
        let said = self
            .run(&self.admit_and_commit, &flat.keys, &flat.args)
            .await?;
        let (admission, rest) = reply::admission(said)?;
        let committed = rest.map(reply::committed).transpose()?;
        Ok((admission, committed))
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        let ping = redis::cmd("PING");
        match self.send(&ping).await {
            Err(Failure::Lost(_)) => self.send(&ping).await,
            result => result,
        }?;
        Ok(())
    }

    /// The eviction policy. Asked of INFO, which hosted Redis allows where CONFIG is forbidden.
    pub(super) async fn eviction_policy(&self) -> Result<Option<String>, StoreError> {
        let link = self
            .connector
            .link()
            .await
            .map_err(|error| failure(&error))?;
        // A refusal says nothing of the connection: not every user may ask.
        let info: String = redis::cmd("INFO")
            .arg("memory")
            .query_async(&mut link.connection.clone())
            .await
            .map_err(|error| failure(&error))?;
        let policy = info
            .lines()
            .find_map(|line| line.strip_prefix("maxmemory_policy:"));
        Ok(policy.map(|policy| policy.trim().to_owned()))
    }

    /// Runs a script by its hash, and whole if Redis has forgotten it (nothing was done then).
    async fn run(
        &self,
        stored: &StoredScript,
        keys: &[&str],
        args: &[command::Arg<'_>],
    ) -> Result<Value, StoreError> {
        let call = |name: &str, script: &str| {
            let size = keys.iter().map(|key| key.len()).sum::<usize>()
                + args.iter().map(|arg| arg.len()).sum::<usize>();
            let mut cmd = Cmd::with_capacity(keys.len() + args.len() + 3, size + script.len() + 16);
            cmd.arg(name).arg(script).arg(keys.len()).arg(keys);
            for arg in args {
                cmd.arg(arg.as_ref());
            }
            cmd
        };
        match self.send(&call("EVALSHA", stored.script.get_hash())).await {
            Err(Failure::NoScript) => Ok(self.send(&call("EVAL", stored.source)).await?),
            result => Ok(result?),
        }
    }

    async fn send(&self, cmd: &Cmd) -> Result<Value, Failure> {
        let link = self
            .connector
            .link()
            .await
            .map_err(|error| failure(&error))?;
        let result = link.connection.clone().send_packed_command(cmd).await;
        let result = result
            .and_then(Value::extract_error)
            .map_err(|error| failure(&error));
        self.learn(&link, result)
    }

    async fn send_pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Value>, Failure> {
        let link = self
            .connector
            .link()
            .await
            .map_err(|error| failure(&error))?;
        let (skip, keep) = if pipeline.is_transaction() {
            (pipeline.len() + 1, 1)
        } else {
            (0, pipeline.len())
        };
        let result = link
            .connection
            .clone()
            .send_packed_commands(pipeline, skip, keep)
            .await;
        let result = self.learn(&link, result.map_err(|error| failure(&error)))?;
        let refusal = result.iter().find_map(|value| match value {
            Value::ServerError(error) => Some(reply::server_failure(error.code(), error.details())),
            _ => None,
        });
        if let Some(refusal) = refusal {
            self.learn::<()>(&link, Err(refusal)).ok();
        }
        Ok(result)
    }

    /// Gives up a connection that is of no more use.
    fn learn<T>(&self, link: &Arc<Link>, result: Result<T, Failure>) -> Result<T, Failure> {
        match &result {
            Err(Failure::Lost(_)) => self.connector.give_up(link),
            Err(Failure::Refuses(_)) => self.connector.give_up_refusing(link),
            _ => {}
        }
        result
    }
}

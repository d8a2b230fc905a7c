//! Writes that count only once every replica has them (`store.durability = "replicated"`).
//!
//! WAIT holds its connection up and speaks of what was written on it alone, so each such write has a connection to itself. A byte is
//! written with every step: a repetition that finds its step done writes nothing else that WAIT could wait for.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use redis::{Cmd, Pipeline, Value};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::reply::{self, Failure, failure};
use crate::{
    clients::redis::{Connector, Link},
    store::StoreError,
};

/// Writes that may wait at the same time, each on a connection of its own.
const LINKS: usize = 64;

/// How long before the caller's deadline replicas are given up, so that the answer still comes in time: an idle Redis ends a WAIT
/// up to 100 ms late.
const MARGIN: Duration = Duration::from_millis(150);

const BYTE_TTL_MS: u64 = 60_000;

/// How long a master that has lost a replica acknowledges nothing: that one may have been promoted in its place, which Sentinels know,
/// and then we, within about 2 s. Other replicas follow the old master a while longer.
const LOSS_LASTS: Duration = Duration::from_secs(5);

/// A step, and the key of the byte that is written with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'a> {
    pub(super) step: &'a Cmd,
    pub(super) byte: &'a str,
}

/// The connections of one server that are used by one write at a time.
pub(super) struct Replication {
    idle: Mutex<Vec<Arc<Link>>>,
    places: Semaphore,
    followers: Mutex<Option<Followers>>,
}

#[derive(Clone, Copy)]
struct Followers {
    online: usize,
    /// The most that there were lately, and when that was last seen.
    most: usize,
    seen: Instant,
}

impl Default for Replication {
    fn default() -> Self {
        Self { idle: Mutex::default(), places: Semaphore::new(LINKS), followers: Mutex::default() }
    }
}

impl Replication {
    /// Writes, and waits until every replica that is connected has it.
    ///
    /// Where fewer have it by `end`, none is connected, or one was lost just now, the failure means [`StoreError::Unavailable`]; in the
    /// last two cases nothing is written.
    pub(super) async fn write(
        &self,
        connector: &Connector,
        step: Step<'_>,
        asking: bool,
        end: Instant,
    ) -> Result<Value, Failure> {
        let place = self.places.acquire().await;
        let _place = place.map_err(|_| Failure::Lost("the store is closed".to_owned()))?;
        let idle = self.idle.lock().pop();
        let link = match idle.filter(|link| !link.is_lost()) {
            Some(link) => link,
            None => connector.connect().await?,
        };
        let written = self.write_on(&link, step, asking, end).await;
        // A connection that was not answered to the end is dropped, and closed by that.
        if !matches!(written, Err(Failure::Lost(_))) {
            self.idle.lock().push(link);
        }
        written
    }

    async fn write_on(
        &self,
        link: &Link,
        step: Step<'_>,
        asking: bool,
        end: Instant,
    ) -> Result<Value, Failure> {
        let info = info(link).await?;
        let online = online_replicas(&info);
        if online == Some(0) {
            return Err(none_connected());
        }
        // A server that is no master says so itself to every write.
        let expected = online.unwrap_or_default();
        if self.note(&info, Instant::now()) > expected {
            let why = "a replica was lost just now, and may have been promoted";
            return Err(Failure::Refuses(why.to_owned()));
        }
        write_and_wait(link, step, (asking, expected), end).await
    }

    /// Remembers how many replicas there are, by what `INFO replication` says, and tells how many there were lately.
    pub(super) fn note(&self, info: &str, now: Instant) -> usize {
        let Some(online) = online_replicas(info) else { return 0 };
        let mut followers = self.followers.lock();
        let before = followers.filter(|all| online < all.most && all.are_recent(now));
        let all = before.unwrap_or(Followers { online, most: online, seen: now });
        *followers = Some(Followers { online, ..all });
        all.most
    }

    /// Whether the server had more replicas a moment ago.
    pub(super) fn has_lost_one(&self, now: Instant) -> bool {
        let followers = *self.followers.lock();
        followers.is_some_and(|all| all.online < all.most && all.are_recent(now))
    }
}

impl Followers {
    fn are_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.seen) < LOSS_LASTS
    }
}

async fn write_and_wait(
    link: &Link,
    Step { step, byte }: Step<'_>,
    (asking, expected): (bool, usize),
    end: Instant,
) -> Result<Value, Failure> {
    let left = end.saturating_duration_since(Instant::now() + MARGIN);
    let mut pipeline = Pipeline::new();
    // Redis moves no key to where its name is taken, and an earlier byte of this slot may be still to be moved here.
    let moving = asking.then(|| format!("{byte}:{}", Uuid::new_v4()));
    let mut byte_set = redis::cmd("SET");
    byte_set.arg(moving.as_deref().unwrap_or(byte)).arg(1).arg("PX").arg(BYTE_TTL_MS);
    for command in [step, &byte_set] {
        if asking {
            pipeline.cmd("ASKING");
        }
        pipeline.add_command(command.clone());
    }
    pipeline.cmd("WAIT").arg(expected).arg(left.as_millis().max(1).to_string());
    let mut connection = link.connection.clone();
    let sent = connection.send_packed_commands(&pipeline, 0, pipeline.len());
    let mut values = sent.await.map_err(|error| failure(&error))?;
    let reached = values.pop();
    let answer = values.into_iter().nth(usize::from(asking)).ok_or_else(reply::unexpected)?;
    if let Some(failure) = reply::failed(&answer) {
        return Err(failure);
    }
    match reached {
        Some(Value::Int(reached)) if usize::try_from(reached).is_ok_and(|n| n >= expected) => {
            Ok(answer)
        }
        Some(Value::Int(reached)) => {
            Err(unavailable(format!("{reached} of {expected} replicas had the write in time")))
        }
        Some(refused) => Err(reply::failed(&refused).unwrap_or_else(|| reply::unexpected().into())),
        None => Err(reply::unexpected().into()),
    }
}

pub(super) async fn info(link: &Link) -> Result<String, Failure> {
    let mut info = redis::cmd("INFO");
    info.arg("replication");
    let mut connection = link.connection.clone();
    let answer = connection.send_packed_command(&info).await.map_err(|error| failure(&error))?;
    reply::failed(&answer).map_or_else(|| Ok(reply::text(answer)), Err)
}

/// Whether what `INFO replication` says is of a replica that takes no writes.
pub(super) fn is_read_only(info: &str) -> bool {
    let says = |said: &str| info.lines().any(|line| line.trim() == said);
    (says("role:slave") || says("role:replica")) && !says("slave_read_only:0")
}

/// What `INFO replication` says of replicas that follow; `None` where the server is no master.
pub(super) fn online_replicas(info: &str) -> Option<usize> {
    let is_replica = |line: &&str| line.starts_with("slave") && line.contains("state=online");
    let is_master = info.lines().any(|line| line.trim() == "role:master");
    is_master.then(|| info.lines().filter(is_replica).count())
}

/// What `CONFIG GET append*` says that lets an acknowledged write go with the server.
pub(super) fn fsync_problem(answer: Vec<Value>) -> Option<String> {
    let answer = answer.into_iter().next().unwrap_or(Value::Nil);
    let settings: HashMap<String, String> = redis::from_redis_value(answer).unwrap_or_default();
    let needed = [("appendonly", "yes"), ("appendfsync", "always")];
    needed.into_iter().find_map(|(name, needed)| {
        let value = settings.get(name).map_or("unknown", String::as_str);
        let problem = || format!("{name} is {value}; replicated durability needs {needed}");
        (value != needed).then(problem)
    })
}

fn unavailable(why: String) -> Failure {
    StoreError::Unavailable(why).into()
}

pub(super) fn none_connected() -> Failure {
    Failure::Refuses(
        "no replica is connected, and store.durability is \"replicated\": start one, or set it to \"local\""
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_count_once_they_follow() {
        let info = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\n\
                    slave0:ip=127.0.0.1,port=7001,state=online,offset=14,lag=0\r\n\
                    slave1:ip=127.0.0.1,port=7002,state=wait_bgsave,offset=0,lag=0\r\n";
        assert_eq!(online_replicas(info), Some(1));
        assert_eq!(online_replicas("role:master\r\nconnected_slaves:0\r\n"), Some(0));
        assert_eq!(online_replicas("role:slave\r\nmaster_link_status:up\r\n"), None);
    }

    #[test]
    fn a_lost_replica_is_missed_for_a_while() {
        let (replication, start) = (Replication::default(), Instant::now());
        let with = |replicas: &str| format!("role:master\r\n{replicas}");
        let (one, two) =
            (with("slave0:state=online"), with("slave0:state=online\nslave1:state=online"));
        let seconds = |n| start + Duration::from_secs(n);
        replication.note(&two, start);
        assert!(!replication.has_lost_one(seconds(100)), "nobody has looked since");
        replication.note(&two, seconds(100));
        replication.note(&one, seconds(101));
        replication.note(&one, seconds(104));
        assert!(replication.has_lost_one(seconds(104)) && !replication.has_lost_one(seconds(105)));
        replication.note(&two, seconds(104));
        assert!(!replication.has_lost_one(seconds(104)), "it is back");
        replication.note(&one, seconds(110));
        assert!(!replication.has_lost_one(seconds(110)));
    }

    #[test]
    fn a_replica_is_told_from_one_that_takes_writes() {
        assert!(is_read_only("role:slave\r\nslave_read_only:1\r\n"));
        assert!(!is_read_only("role:slave\r\nslave_read_only:0\r\n"));
        assert!(!is_read_only("role:master\r\nconnected_slaves:0\r\n") && !is_read_only(""));
    }
}

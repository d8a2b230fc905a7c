//! One Redis server: its connections, its circuit breaker, and the background look at it.

use std::{
    pin::{Pin, pin},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use redis::{Cmd, ConnectionInfo, RedisError, Value};

use super::{
    replication::{self, Replication},
    reply::{self, Failure, failure},
    request::{Request, answers, pipeline},
};
use crate::{
    clients::redis::{Connector, Expected, Link, address::host_and_port},
    store::{StoreError, circuit_breaker::CircuitBreaker},
};

/// How often a server is looked at, so that a half-open connection is noticed and a server that is back is found.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How often while it does not answer or is not there.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

const LOOK_LIMIT: Duration = Duration::from_secs(1);

/// One Redis server. A frozen one costs its own callers a wait, and nobody else.
pub(super) struct Node {
    address: String,
    expected: Expected,
    connector: Connector,
    /// For large answers: no small call waits behind them.
    bulk: Connector,
    replication: Replication,
    breaker: CircuitBreaker,
    problem: Mutex<Option<String>>,
}

impl Node {
    pub(super) fn new(info: ConnectionInfo, expected: Expected) -> Result<Arc<Self>, RedisError> {
        Ok(Arc::new(Self {
            address: host_and_port(&info),
            bulk: Connector::new(info.clone(), expected)?,
            connector: Connector::new(info, expected)?,
            expected,
            replication: Replication::default(),
            breaker: CircuitBreaker::new(Instant::now()),
            problem: Mutex::default(),
        }))
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn was_away(&self, time: Duration) -> bool {
        self.breaker.unreachable_within(time, Instant::now())
    }

    /// Sends a request and waits for its answers until `end`. `asking`: the slot is being moved here.
    pub(super) async fn exchange(
        &self,
        request: Request<'_>,
        asking: bool,
        end: Instant,
    ) -> Result<Vec<Value>, Failure> {
        let result = match request {
            // Pinned here: each function that they are passed through would have room for them once more.
            Request::Replicated(step) => {
                let written = pin!(self.replication.write(&self.connector, step, asking, end));
                let written = self.breaker.guard_waiting(end, written).await;
                written.map(|written| vec![written])
            }
            request => {
                let sent = pin!(self.send(request, asking));
                self.breaker.guard(end, sent).await
            }
        };
        result.map_err(|failure| self.explained(failure))
    }

    /// The background look has the time to find out why a server is silent; a call has not.
    fn explained(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Said(StoreError::Unavailable(why)) => {
                StoreError::Unavailable(self.problem().unwrap_or(why)).into()
            }
            failure => failure,
        }
    }

    /// How many replicas follow it; `None` where it is no master.
    pub(super) async fn replicas(&self, end: Instant) -> Result<Option<usize>, Failure> {
        Ok(replication::online_replicas(&self.info("replication", end).await?))
    }

    pub(super) async fn info(&self, section: &str, end: Instant) -> Result<String, Failure> {
        let mut info = redis::cmd("INFO");
        info.arg(section);
        let answer = self.exchange(Request::One(&info), false, end).await?;
        Ok(answer.into_iter().map(reply::text).collect())
    }

    async fn send(&self, request: Request<'_>, asking: bool) -> Result<Vec<Value>, Failure> {
        let connector = match request {
            Request::Bulk(_) => &self.bulk,
            _ => &self.connector,
        };
        let link = connector.link().await?;
        let values = match request {
            Request::Script(script, word) if !asking => self.send_script(&link, script, word).await,
            _ => self.send_checked(&link, request, asking).await,
        };
        let failure = match &values {
            Ok(values) => values.iter().find_map(reply::failed),
            Err(_) => None,
        };
        match failure.as_ref().or(values.as_ref().err()) {
            Some(Failure::Lost(_)) => link.give_up(),
            Some(Failure::Refuses(_)) => link.give_up_refusing(),
            _ => {}
        }
        values
    }

    /// Sends a request, and behind it a word that must come back behind its answers. Where it does not, answers were lost or
    /// doubled on the way, and these belong to another call, perhaps of another user: the connection is of no more use.
    async fn send_checked(
        &self,
        link: &Link,
        request: Request<'_>,
        asking: bool,
    ) -> Result<Vec<Value>, Failure> {
        let word = link.next_word();
        let pipeline = pipeline(request, asking, &word)?;
        let mut connection = link.connection.clone();
        let sent = pin!(connection.send_packed_commands(&pipeline, 0, pipeline.len()));
        let mut values = in_order(link, sent).await?;
        let echoed = values.pop();
        let values = answers(request, asking, values);
        match echoed {
            Some(Value::BulkString(echoed)) if echoed == word.as_bytes() => values,
            // A server that does not take the word says so to everybody; what is wrong is in the answers.
            // One that cannot save refuses PING as it refuses writes, and answers reads; a Sentinel before 7.0 takes no word.
            Some(Value::ServerError(error))
                if values.is_err()
                    || matches!(error.code(), "MISCONF" | "LOADING")
                    || error.details().is_some_and(|why| why.contains("number of arguments")) =>
            {
                values
            }
            _ => Err(disordered(link)),
        }
    }

    /// As [`Self::send_checked`]: the script's own answer has the word. An error has none, and is believed once a word comes back
    /// behind it.
    async fn send_script(
        &self,
        link: &Link,
        script: &Cmd,
        word: &str,
    ) -> Result<Vec<Value>, Failure> {
        let mut connection = link.connection.clone();
        let sent = pin!(connection.send_packed_command(script));
        let answer = in_order(link, sent).await;
        match answer.and_then(|answer| reply::failed(&answer).map_or(Ok(answer), Err)) {
            Ok(Value::Array(said)) if said.last() == Some(&Value::BulkString(word.into())) => {
                Ok(vec![Value::Array(said)])
            }
            Ok(_) => Err(disordered(link)),
            Err(Failure::Lost(why)) => Err(Failure::Lost(why)),
            Err(error) => {
                let ping = redis::cmd("PING");
                match Box::pin(self.send_checked(link, Request::One(&ping), false)).await {
                    Err(Failure::Lost(why)) => Err(Failure::Lost(why)),
                    _ => Err(error),
                }
            }
        }
    }

    /// Checks the server's health until the node is dropped; opens and closes the breaker, so that callers seldom pay for finding
    /// out. `changed` is called when the server begins or ceases to answer (then the flag is set), or has lost a replica.
    pub(super) async fn watch(node: Weak<Self>, changed: impl Fn(&Self, bool)) {
        loop {
            let Some(node) = node.upgrade() else { return };
            let (was_healthy, had_lost) = (node.problem().is_none(), node.has_lost_replica());
            node.look().await;
            let is_healthy = node.problem().is_none();
            if is_healthy != was_healthy || node.has_lost_replica() && !had_lost {
                changed(&node, is_healthy != was_healthy);
            }
            drop(node);
            tokio::time::sleep(if is_healthy { LOOK_EVERY } else { LOOK_AGAIN }).await;
        }
    }

    async fn look(&self) {
        let begun = Instant::now();
        // In time for the next look: while this task lives, callers need not try what is frozen.
        self.breaker.reserve_probe(begun + LOOK_LIMIT + 2 * LOOK_AGAIN);
        let looks = futures_util::future::join(
            tokio::time::timeout(LOOK_LIMIT, self.ping_unguarded()),
            self.give_up_silent_links(),
        );
        let problem = match looks.await.0 {
            Ok(result) => {
                self.breaker.record_reply();
                result.err().map(reply::reason)
            }
            Err(_) => {
                self.breaker.record_timeout(begun, Instant::now());
                Some(self.connector.silence().await.to_owned())
            }
        };
        if problem.is_some() {
            self.breaker.record_unreachable(Instant::now());
        }
        *self.problem.lock() = problem;
    }

    pub(super) fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }

    /// A sign of life; of a cluster's node also that it serves its slots, of any other that it is no replica.
    pub(super) async fn ping(&self, end: Instant) -> Result<(), Failure> {
        let pinged = self.breaker.guard(end, self.ping_unguarded()).await;
        pinged.map_err(|failure| self.explained(failure))
    }

    async fn ping_unguarded(&self) -> Result<(), Failure> {
        let mut ping = redis::cmd("PING");
        if self.expected == Expected::ClusterNode {
            ping = redis::cmd("CLUSTER");
            ping.arg("INFO");
        }
        let answer = match self.send(Request::One(&ping), false).await {
            Err(Failure::Lost(_)) => self.send(Request::One(&ping), false).await,
            result => result,
        }?;
        let text = answer.into_iter().next().map(reply::text);
        match text {
            Some(text) if text.contains("cluster_state:fail") => {
                Err(Failure::Again("CLUSTERDOWN the node says that its cluster is down".to_owned()))
            }
            _ => self.check_role().await,
        }
    }

    /// A replica answers reads, and of a cluster sends writes on to its master; any other refuses them. Where INFO is forbidden, the
    /// first write tells.
    async fn check_role(&self) -> Result<(), Failure> {
        if self.expected == Expected::Sentinel {
            return Ok(());
        }
        let link = self.connector.link().await?;
        let Ok(info) = replication::info(&link).await else { return Ok(()) };
        self.replication.note(&info, Instant::now());
        if self.expected == Expected::ClusterNode || !replication::is_read_only(&info) {
            return Ok(());
        }
        // Its name may lead to another server by now.
        link.give_up_refusing();
        Err(Failure::Refuses("READONLY it is a replica and takes no writes".to_owned()))
    }

    /// Whether it is missing a replica that followed it a moment ago: another server may be the master by now.
    pub(super) fn has_lost_replica(&self) -> bool {
        self.replication.has_lost_one(Instant::now())
    }

    /// Half-open or frozen: either way a new connection is as good, and a half-open one never mends.
    async fn give_up_silent_links(&self) {
        let ping = redis::cmd("PING");
        let links = [&self.connector, &self.bulk].map(Connector::links);
        let looks = links.into_iter().flatten().map(|link| {
            let ping = &ping;
            async move {
                let mut connection = link.connection.clone();
                let look = connection.send_packed_command(ping);
                if tokio::time::timeout(LOOK_LIMIT, look).await.is_err() {
                    link.give_up();
                }
            }
        });
        futures_util::future::join_all(looks).await;
    }
}

/// The last answer of a connection that has lost one never comes.
async fn in_order<T>(
    link: &Link,
    sent: Pin<&mut impl Future<Output = Result<T, RedisError>>>,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        () = link.disordered.cancelled() => Err(disordered(link)),
        answer = sent => answer.map_err(|error| failure(&error)),
    }
}

/// Tells everybody who waits on the connection, too.
fn disordered(link: &Link) -> Failure {
    link.disordered.cancel();
    Failure::Lost("answers came out of order".to_owned())
}

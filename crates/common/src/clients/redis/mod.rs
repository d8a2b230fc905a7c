//! Redis connections, opened when needed and again after a loss.
//!
//! One multiplexed connection serves all tasks of a thread, since being woken by the own thread costs a fraction of being
//! woken by another. The `redis` crate's own manager is not used: it keeps a refused login for ever, and stays with a
//! server that has become a replica.

pub mod address;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ProtocolVersion, PushInfo,
    PushKind, RedisError, Value, aio::MultiplexedConnection, io::tcp::TcpSettings,
};
use thread_local::ThreadLocal;
use tokio::{net::TcpStream, time::timeout};
use tokio_util::sync::CancellationToken;

/// How long callers share the error of a failed attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// How long a connection is kept although the server refuses work on it (replica, no permission), so that refusals do
/// not become a storm of connections.
const KEEP_AT_LEAST: Duration = Duration::from_millis(250);

/// How long it may take to find out that a port is open.
const REACH_LIMIT: Duration = Duration::from_millis(200);

/// Calls that may wait to be written; more than the crate's 50, which a burst of requests would fill.
const WRITE_QUEUE: usize = 1024;

#[derive(Debug)]
pub struct Link {
    pub connection: MultiplexedConnection,
    lost: Arc<AtomicBool>,
    made: Instant,
    /// The words that were sent on it to be echoed.
    words: AtomicU64,
    /// Cancelled once answers on it turned out to belong to other calls: then none can be believed any more.
    pub disordered: CancellationToken,
}

/// What a server must be for our connection to make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Standalone,
    /// A server that Sentinels name: no replica.
    Master,
    ClusterNode,
    Sentinel,
}

#[derive(Clone, Debug)]
pub enum ConnectError {
    Redis(RedisError),
    /// The server answers, and is not what was expected.
    Unexpected(&'static str),
}

impl From<RedisError> for ConnectError {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

/// Where one server is, and each thread's connection to it while there is one.
#[derive(Clone)]
pub struct Connector(Arc<Connections>);

struct Connections {
    client: Client,
    expected: Expected,
    own: ThreadLocal<ThreadConnection>,
}

#[derive(Default)]
struct ThreadConnection {
    link: ArcSwapOption<Link>,
    /// Held while connecting; the error of the last attempt is for those who waited.
    connecting: tokio::sync::Mutex<Option<(Instant, ConnectError)>>,
}

impl ThreadConnection {
    fn current(&self) -> Option<Arc<Link>> {
        self.link.load_full().filter(|link| !link.is_lost())
    }
}

impl Connector {
    pub fn new(info: ConnectionInfo, expected: Expected) -> Result<Self, RedisError> {
        // With RESP3 the crate reports a lost connection at once, not at the next command.
        let login = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let tcp = TcpSettings::default().set_nodelay(true);
        let client = Client::open(info.set_redis_settings(login).set_tcp_settings(tcp))?;
        Ok(Self(Arc::new(Connections { client, expected, own: ThreadLocal::new() })))
    }

    /// This thread's connection, opened where there is none. The caller sets the timeout, and may drop this future at any
    /// time. The error is why the latest attempt failed.
    pub async fn link(&self) -> Result<Arc<Link>, ConnectError> {
        let own = self.0.own.get_or_default();
        if let Some(link) = own.current() {
            return Ok(link);
        }
        let mut failed = own.connecting.lock().await;
        if let Some(link) = own.current() {
            return Ok(link);
        }
        if let Some((at, error)) = failed.as_ref()
            && at.elapsed() < RETRY_PAUSE
        {
            return Err(error.clone());
        }
        match Box::pin(self.connect()).await {
            Ok(link) => {
                *failed = None;
                own.link.store(Some(link.clone()));
                Ok(link)
            }
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    pub fn links(&self) -> Vec<Arc<Link>> {
        self.0.own.iter().filter_map(ThreadConnection::current).collect()
    }

    /// Why a server that was asked in vain did not answer, as far as can be told. One that speaks no TLS waits for more of a
    /// handshake, for ever.
    pub async fn silence(&self) -> &'static str {
        let has_link = self.0.own.iter().any(|own| own.current().is_some());
        if let ConnectionAddr::TcpTls { host, port, .. } =
            self.0.client.get_connection_info().addr()
            && !has_link
            && let connecting = TcpStream::connect((host.as_str(), *port))
            && matches!(timeout(REACH_LIMIT, connecting).await, Ok(Ok(_)))
        {
            return "it takes connections and does not answer the TLS handshake: does it speak TLS?";
        }
        "no answer in time"
    }

    /// A new connection, for one caller alone where it is not put into the thread's place.
    pub async fn connect(&self) -> Result<Arc<Link>, ConnectError> {
        let lost = Arc::new(AtomicBool::new(false));
        let seen = lost.clone();
        let config = AsyncConnectionConfig::new()
            // The caller has a timeout for all of it; an error here would look like an answer.
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(WRITE_QUEUE)
            .set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    seen.store(true, Ordering::Relaxed);
                }
                Ok::<(), redis::aio::SendError>(())
            });
        let connection =
            self.0.client.get_multiplexed_async_connection_with_config(&config).await?;
        let hello = redis::cmd("HELLO");
        let hello = connection.clone().send_packed_command(&hello).await?;
        self.0.expected.check(hello.extract_error()?)?;
        Ok(Arc::new(Link {
            connection,
            lost,
            made: Instant::now(),
            words: AtomicU64::new(0),
            disordered: CancellationToken::new(),
        }))
    }
}

impl Expected {
    /// Whether the server that answered HELLO so is the right one.
    fn check(self, hello: Value) -> Result<(), ConnectError> {
        let fields: HashMap<String, Value> = redis::from_redis_value(hello).unwrap_or_default();
        let field = |name| match fields.get(name) {
            Some(Value::BulkString(text)) => std::str::from_utf8(text).unwrap_or_default(),
            _ => "",
        };
        let wrong = match (self, field("mode")) {
            (Self::Standalone | Self::Master | Self::Sentinel, "cluster") => {
                "it is a node of a Redis Cluster: use redis+cluster://host:port"
            }
            (Self::Standalone | Self::ClusterNode, "sentinel") => {
                "it is a Sentinel: use redis+sentinel://host:port/SERVICE/DB"
            }
            (Self::ClusterNode | Self::Sentinel, "standalone") => {
                "it is a single server: use redis://host:port/DB"
            }
            (Self::Master, _) if matches!(field("role"), "replica" | "slave") => {
                "READONLY it is a replica, and not yet or no longer the master"
            }
            _ => return Ok(()),
        };
        Err(ConnectError::Unexpected(wrong))
    }
}

impl Link {
    /// A word that was never sent on this connection before.
    pub fn next_word(&self) -> String {
        format!("word-{}", self.words.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether the connection is known to be lost. What was sent on it may have been applied all the same.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Has the connection replaced at the next call. Calls in progress on it may still be answered.
    pub fn give_up(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }

    /// Has a connection replaced on which the server refuses work, unless it is new.
    pub fn give_up_refusing(&self) {
        if self.made.elapsed() >= KEEP_AT_LEAST {
            self.give_up();
        }
    }
}

//! Redis connections, opened when needed and again after a loss.
//!
//! One multiplexed connection serves all tasks of a thread, since being woken by the own thread costs a fraction of being
//! woken by another. The `redis` crate's own manager is not used: it keeps a refused login for ever, and stays with a
//! server that has become a replica.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, PushInfo,
    PushKind, RedisError, aio::MultiplexedConnection, io::tcp::TcpSettings,
};
use secrecy::{ExposeSecret, SecretString};
use thread_local::ThreadLocal;

/// How long callers share the error of a failed attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// How long a connection is kept although the server refuses work on it (replica, no permission), so that refusals do
/// not become a storm of connections.
const KEEP_AT_LEAST: Duration = Duration::from_millis(250);

/// Calls that may wait to be written; more than the crate's 50, which a burst of requests would fill.
const WRITE_QUEUE: usize = 1024;

#[derive(Debug)]
pub struct Link {
    pub connection: MultiplexedConnection,
    lost: Arc<AtomicBool>,
    made: Instant,
}

/// Where Redis is, and each thread's connection to it while there is one.
#[derive(Clone)]
pub struct Connector(Arc<Connections>);

struct Connections {
    client: Client,
    own: ThreadLocal<ThreadConnection>,
}

#[derive(Default)]
struct ThreadConnection {
    link: ArcSwapOption<Link>,
    /// Held while connecting; the error of the last attempt is for those who waited.
    connecting: tokio::sync::Mutex<Option<(Instant, RedisError)>>,
}

impl ThreadConnection {
    fn current(&self) -> Option<Arc<Link>> {
        self.link.load_full().filter(|link| !link.is_lost())
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// Parses the address, and connects nowhere yet. The error does not hold the address.
    pub fn new(url: &SecretString) -> Result<Self, RedisError> {
        let info: ConnectionInfo = url.expose_secret().into_connection_info()?;
        // With RESP3 the crate reports a lost connection at once, not at the next command.
        let login = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3);
        let tcp = TcpSettings::default().set_nodelay(true);
        let client = Client::open(info.set_redis_settings(login).set_tcp_settings(tcp))?;
        Ok(Self(Arc::new(Connections {
            client,
            own: ThreadLocal::new(),
        })))
    }

    /// This thread's connection, opened where there is none. The caller sets the timeout, and may drop this future at any
    /// time. The error is why the latest attempt failed.
    pub async fn link(&self) -> Result<Arc<Link>, RedisError> {
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
        match self.connect().await {
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

    /// The open connections of all threads.
    pub fn links(&self) -> Vec<Arc<Link>> {
        self.0
            .own
            .iter()
            .filter_map(ThreadConnection::current)
            .collect()
    }

    async fn connect(&self) -> Result<Arc<Link>, RedisError> {
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
        let connection = self
            .0
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        Ok(Arc::new(Link {
            connection,
            lost,
            made: Instant::now(),
        }))
    }

    /// Replaces a connection at the next call. Calls in progress on it may still be answered.
    pub fn give_up(&self, link: &Arc<Link>) {
        link.lost.store(true, Ordering::Relaxed);
    }

    /// Replaces a connection on which the server refuses work, unless it is new.
    pub fn give_up_refusing(&self, link: &Arc<Link>) {
        if link.made.elapsed() >= KEEP_AT_LEAST {
            self.give_up(link);
        }
    }
}

impl Link {
    /// Whether the connection is known to be lost. What was sent on it may have been applied all the same.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

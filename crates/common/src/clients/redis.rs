//! The Redis connection, with its timeouts and its reconnection.
//!
//! One multiplexed connection serves all that runs on a thread: whoever waits for an answer is then woken by its own
//! thread, which costs a fraction of being woken by another. It is made by whoever first needs it and made anew once it is
//! lost or given up. The `redis` crate's own manager is not used: it keeps a refused login for ever, and stays with a server that
//! has become a replica.

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

/// After a failed attempt, callers share its error for that long.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A connection that refuses work (replica, no permission) is kept at least that long, so that refusals do not become
/// a storm of connections.
const KEEP_AT_LEAST: Duration = Duration::from_millis(250);

/// Calls waiting for their turn to be written; more than the crate's 50, which a burst of requests would fill.
const WRITE_QUEUE: usize = 1024;

/// One established connection.
#[derive(Debug)]
pub struct Link {
    /// Clone it to send.
    pub connection: MultiplexedConnection,
    lost: Arc<AtomicBool>,
    made: Instant,
}

/// Where Redis is, and each thread's connection to it while there is one.
#[derive(Clone)]
pub struct Connector(Arc<Inner>);

struct Inner {
    client: Client,
    own: ThreadLocal<Own>,
}

/// What a thread has.
#[derive(Default)]
struct Own {
    link: ArcSwapOption<Link>,
    /// Held by whoever connects; what it found out for those who waited.
    connecting: tokio::sync::Mutex<Option<(Instant, RedisError)>>,
}

impl Own {
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
    /// Reads the address (`redis://` or `rediss://`, with or without user, password and database). Connects nowhere.
    ///
    /// # Errors
    /// The address is none; the error does not hold it.
    pub fn new(url: &SecretString) -> Result<Self, RedisError> {
        let info: ConnectionInfo = url.expose_secret().into_connection_info()?;
        // RESP3 tells of a lost connection at once, not at the next command.
        let login = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3);
        let tcp = TcpSettings::default().set_nodelay(true);
        let client = Client::open(info.set_redis_settings(login).set_tcp_settings(tcp))?;
        Ok(Self(Arc::new(Inner {
            client,
            own: ThreadLocal::new(),
        })))
    }

    /// This thread's connection; makes one where there is none. It has no time limit of its own: the caller must set one, and may
    /// drop it at any time.
    ///
    /// # Errors
    /// Why the latest attempt failed.
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

    /// Every thread's connection that there is.
    pub fn links(&self) -> Vec<Arc<Link>> {
        self.0.own.iter().filter_map(Own::current).collect()
    }

    async fn connect(&self) -> Result<Arc<Link>, RedisError> {
        let lost = Arc::new(AtomicBool::new(false));
        let seen = lost.clone();
        let config = AsyncConnectionConfig::new()
            // The caller's own limit is round all of it; an error here would look like an answer.
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

    /// Gives a connection up: the next call makes another. Calls under way on it may still be answered.
    pub fn give_up(&self, link: &Arc<Link>) {
        link.lost.store(true, Ordering::Relaxed);
    }

    /// Gives a connection up that refuses work, unless it is only just made.
    pub fn give_up_refusing(&self, link: &Arc<Link>) {
        if link.made.elapsed() >= KEEP_AT_LEAST {
            self.give_up(link);
        }
    }
}

impl Link {
    /// Whether it is known to be gone; what was sent on it may have been applied all the same.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

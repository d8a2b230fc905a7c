//! The accept loop: HTTP/1.1 over hyper, with caps, an end to every wait, and a bounded stop.

use std::{
    convert::Infallible,
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, Request},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use http_body::{Body as _, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;
use tower::Service as _;

use super::{
    connection_limiter::{ConnectionLimiter, ConnectionPermit},
    timeout_io::{ConnState, ResponseGuard, TimeoutIo},
};
use crate::{config, shutdown::Shutdown};

/// The largest head that hyper takes in. Wider than the limits of the layers, so that theirs answer first.
const READ_BUFFER: usize = 128 * 1024;

/// The most header lines that hyper takes in; past them it refuses with a bare 431. Every request's parser has room for
/// that many, so it is not much wider than the limit of the layers.
const READ_HEADERS: usize = 256;

/// What the kernel keeps of unsent bytes, each connection (it doubles that for its own bookkeeping).
const SEND_BUFFER: usize = 128 * 1024;

/// How long the loop waits when the process is out of file descriptors or memory.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// What one listener allows its connections.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Open connections in all; what comes beyond is closed at once.
    pub max_connections: usize,
    /// Open connections from one address (IPv6: one /64); trusted proxies are exempt.
    pub max_connections_per_address: usize,
    /// Who is exempt.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// From the need of a head (for the first one: from the connection's opening) to its last byte.
    pub head: Duration,
    /// How long a connection may stay open between two requests.
    pub idle: Duration,
    /// How long a client may take nothing of what is written to it.
    pub write_stall: Duration,
    /// What a connection gets to end once running work is conn_state to end.
    pub farewell: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_connections_per_address: 100,
            trusted_proxies: Vec::new(),
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            write_stall: Duration::from_secs(30),
            farewell: Duration::from_secs(1),
        }
    }
}

impl From<&config::Server> for ConnectionLimits {
    fn from(server: &config::Server) -> Self {
        Self {
            max_connections: server.max_connections,
            max_connections_per_address: server.max_connections_per_address,
            trusted_proxies: server.trusted_proxies.clone(),
            ..Self::default()
        }
    }
}

/// Serves the router on that listener until running work is conn_state to end ([`Shutdown::stopping`]).
///
/// While draining it still accepts and answers (a probe must see the 503), each answer closing its connection.
/// Then connections have `limits.farewell` to end and are dropped.
///
/// # Errors
/// None today: an error of one `accept` is logged and outlived.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    shutdown: Shutdown,
) -> io::Result<()> {
    let farewell = limits.farewell;
    let site = Listener {
        router,
        limiter: ConnectionLimiter::new(limits.clone()),
        limits: Arc::new(limits),
        shutdown: shutdown.clone(),
    };
    let connections = TaskTracker::new();
    let mut stopping = pin!(shutdown.stopping());
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stopping => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, address)) => {
                if let Some(permit) = site.limiter.admit(address.ip().to_canonical()) {
                    let connection = site.clone().moved(socket, address, permit);
                    shutdown.spawn_on_worker(connections.track_future(connection));
                } else {
                    metrics::counter!("http_connections_refused_total").increment(1);
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(error = %error, "cannot accept connections");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    drop(listener);
    connections.close();
    // The connections' own bound, and a moment for the last of them to be dropped.
    let _all_ended = timeout(farewell + ACCEPT_BACKOFF, connections.wait()).await;
    Ok(())
}

/// Errors of `accept` that say something of one client, not of this process.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}

/// What every connection of a listener needs.
#[derive(Clone)]
struct Listener {
    router: Router,
    limiter: Arc<ConnectionLimiter>,
    limits: Arc<ConnectionLimits>,
    shutdown: Shutdown,
}

impl Listener {
    /// Serves a connection on the thread that this runs on, which need not be the one that accepted it.
    fn moved(
        self,
        socket: TcpStream,
        address: SocketAddr,
        permit: ConnectionPermit,
    ) -> impl Future<Output = ()> {
        let socket = socket.into_std();
        async move {
            match socket.and_then(TcpStream::from_std) {
                Ok(socket) => self.connection(socket, address, permit).await,
                Err(error) => tracing::debug!(error = %error, "cannot serve a connection"),
            }
        }
    }

    async fn connection(self, socket: TcpStream, address: SocketAddr, permit: ConnectionPermit) {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        tune(&socket, &self.limits);
        let state = ConnState::new();
        let io = TokioIo::new(TimeoutIo::new(
            socket,
            state.clone(),
            self.limits.clone(),
            permit,
        ));
        let Listener {
            router,
            limits,
            shutdown,
            ..
        } = self;
        let stop = shutdown.stop_token();
        let conn_state = state.clone();
        let service = service_fn(move |request| {
            answer(
                router.clone(),
                request,
                address,
                conn_state.clone(),
                shutdown.is_draining(),
            )
        });
        let connection = http1::Builder::new()
            .header_read_timeout(None) // `TimeoutIo` tells a head from an idle wait; hyper's own cannot
            .max_buf_size(READ_BUFFER)
            .max_headers(READ_HEADERS)
            .serve_connection(io, service)
            .with_upgrades();
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return log_end(ended),
            () = stop.cancelled() => {}
        }
        state.linger(false);
        connection.as_mut().graceful_shutdown();
        if let Ok(ended) = timeout(limits.farewell, connection).await {
            log_end(ended);
        }
    }
}

/// Sets what a chat needs of its socket: small writes go out at once, and what the kernel keeps for a slow reader is
/// bounded, so that a stall is seen and many of them cost little.
fn tune(socket: &TcpStream, limits: &ConnectionLimits) {
    let options = socket2::SockRef::from(socket);
    let tuned = socket
        .set_nodelay(true)
        .and_then(|()| options.set_send_buffer_size(SEND_BUFFER));
    // A peer that is gone without a word acknowledges nothing; little that is written to it would ever stall.
    #[cfg(target_os = "linux")]
    let tuned = tuned.and_then(|()| options.set_tcp_user_timeout(Some(limits.write_stall)));
    #[cfg(not(target_os = "linux"))]
    let _ = limits;
    if let Err(error) = tuned {
        tracing::debug!(error = %error, "cannot set the options of a socket");
    }
}

fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(error = %error, "connection ended");
    }
}

async fn answer(
    mut router: Router,
    mut request: Request<Incoming>,
    address: SocketAddr,
    state: Arc<ConnState>,
    draining: bool,
) -> Result<Response<GuardedBody>, Infallible> {
    let mut guard = state.begin(request.body().size_hint().exact());
    request.extensions_mut().insert(ConnectInfo(address));
    let mut response = router.call(request).await?;
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        guard = guard.for_ever();
    } else if draining {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    state.linger(status.as_u16() >= 400);
    Ok(response.map(|body| GuardedBody {
        body,
        _guard: guard,
    }))
}

/// An answer's body, whose end is the end of the request.
struct GuardedBody {
    body: Body,
    _guard: ResponseGuard,
}

impl http_body::Body for GuardedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! The accept loop: HTTP/1.1 over hyper, with connection caps, timeouts for every wait, and a bounded shutdown.

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
    request_body::RequestBody,
    timeout_io::{ConnState, ResponseGuard, TimeoutIo},
};
use crate::{config, shutdown::Shutdown};

/// The largest head that hyper reads. Wider than the limits of the layers, so that those answer first.
const READ_BUFFER: usize = 128 * 1024;

/// The most header lines that hyper reads; past them it answers with a bare 431. Each request's parser allocates room
/// for that many, so it is not much wider than the limit of the layers.
const READ_HEADERS: usize = 256;

/// The kernel's buffer of unsent bytes for each connection (the kernel doubles the value for its bookkeeping).
const SEND_BUFFER: usize = 128 * 1024;

/// The pause of the accept loop when the process is out of file descriptors or memory.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Open connections in all; one too many is closed at once.
    pub max_connections: usize,
    /// Open connections from one address (IPv6: one /64); trusted proxies are exempt.
    pub max_connections_per_address: usize,
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Time for a request's head, from its first byte (for the first request: from the connection's opening).
    pub head: Duration,
    /// How long a connection may stay open between two requests.
    pub idle: Duration,
    /// How long a client may read nothing of what is written to it.
    pub write_stall: Duration,
    /// Time for a connection to end at [`Shutdown::stopping`].
    pub close_timeout: Duration,
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
            close_timeout: Duration::from_secs(1),
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

/// Serves the router on that listener until [`Shutdown::stopping`].
///
/// While draining it still accepts and answers, since a probe must see the 503; each answer closes its connection. At the stop,
/// connections have `limits.close_timeout` to end, then they are dropped. An error of `accept` is logged, and the loop goes on.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    shutdown: Shutdown,
) {
    let close_timeout = limits.close_timeout;
    let shared = Listener {
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
                if let Some(permit) = shared.limiter.admit(address.ip().to_canonical()) {
                    let connection = shared.clone().on_this_runtime(socket, address, permit);
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
    // Each connection ends by itself in that time; the rest is for the last of them to be dropped.
    let _all_ended = timeout(close_timeout + ACCEPT_BACKOFF, connections.wait()).await;
}

/// Serves both listeners until [`Shutdown::stopping`], and logs their addresses.
///
/// # Errors
/// Where a listener has no address.
pub async fn serve_public_and_admin(
    service: &'static str,
    (public, admin): (TcpListener, TcpListener),
    (public_routes, admin_routes): (Router, Router),
    server: &config::Server,
    shutdown: &Shutdown,
) -> io::Result<()> {
    for (listener, is_admin) in [(&public, false), (&admin, true)] {
        let address = listener.local_addr()?;
        tracing::info!(service, %address, admin = is_admin, "listening");
    }
    tokio::join!(
        serve(public, public_routes, server.into(), shutdown.clone()),
        serve(admin, admin_routes, ConnectionLimits::default(), shutdown.clone()),
    );
    Ok(())
}

/// Whether an error of `accept` concerns one client and not this process.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}

#[derive(Clone)]
struct Listener {
    router: Router,
    limiter: Arc<ConnectionLimiter>,
    limits: Arc<ConnectionLimits>,
    shutdown: Shutdown,
}

impl Listener {
    /// Serves a connection on the runtime that polls this, which need not be the one that accepted it.
    fn on_this_runtime(
        self,
        socket: TcpStream,
        address: SocketAddr,
        permit: ConnectionPermit,
    ) -> impl Future<Output = ()> {
        let socket = socket.into_std();
        async move {
            match socket.and_then(TcpStream::from_std) {
                Ok(socket) => self.serve_connection(socket, address, permit).await,
                Err(error) => tracing::debug!(error = %error, "cannot serve a connection"),
            }
        }
    }

    async fn serve_connection(
        self,
        socket: TcpStream,
        address: SocketAddr,
        permit: ConnectionPermit,
    ) {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        set_socket_options(&socket, &self.limits);
        let state = ConnState::new();
        let io = TokioIo::new(TimeoutIo::new(socket, state.clone(), self.limits.clone(), permit));
        let Listener { router, limits, shutdown, .. } = self;
        let stop = shutdown.stop_token();
        let conn_state = state.clone();
        // Boxed: hyper keeps room for it as long as the connection lives, and it ends with the head of the response.
        let service = service_fn(move |request| {
            let (router, state) = (router.clone(), conn_state.clone());
            Box::pin(answer(router, request, address, state, shutdown.is_draining()))
        });
        let connection = http1::Builder::new()
            .header_read_timeout(None) // `TimeoutIo` tells a head from an idle wait; hyper's own cannot
            .max_buf_size(READ_BUFFER)
            .max_headers(READ_HEADERS)
            .serve_connection(io, service)
            .with_upgrades();
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return log_result(ended),
            () = stop.cancelled() => {}
        }
        state.discard_rest(false);
        connection.as_mut().graceful_shutdown();
        if let Ok(ended) = timeout(limits.close_timeout, connection).await {
            log_result(ended);
        }
    }
}

/// Sends small writes at once, and bounds what the kernel buffers for a slow reader, so that a stall is noticed and
/// many stalled readers cost little memory.
fn set_socket_options(socket: &TcpStream, limits: &ConnectionLimits) {
    let options = socket2::SockRef::from(socket);
    let tuned = socket.set_nodelay(true).and_then(|()| options.set_send_buffer_size(SEND_BUFFER));
    // A peer that vanished acknowledges nothing, and the little that is written to it fits the buffers: it would never
    // count as stalled.
    #[cfg(target_os = "linux")]
    let tuned = tuned.and_then(|()| options.set_tcp_user_timeout(Some(limits.write_stall)));
    #[cfg(not(target_os = "linux"))]
    let _ = limits;
    if let Err(error) = tuned {
        tracing::debug!(error = %error, "cannot set the options of a socket");
    }
}

fn log_result(ended: hyper::Result<()>) {
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
    let (head, body) = request.into_parts();
    let (body, rest) = RequestBody::new(body, head.headers.contains_key(header::EXPECT));
    let mut response = router.call(Request::from_parts(head, body)).await?;
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        guard = guard.upgraded();
    } else if !rest.discard().await || draining {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    state.discard_rest(status.as_u16() >= 400);
    Ok(response.map(|body| GuardedBody { body, _guard: guard }))
}

/// A response body that ends its request when it is dropped.
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

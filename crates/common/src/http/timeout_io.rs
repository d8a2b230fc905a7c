//! A socket with timeouts: for a request's head, for the next request, and for a client that does not read.

use std::{
    future::Future,
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    ConnectionLimits, connection_limiter::ConnectionPermit, request_boundary::RequestBoundary,
};

/// How long the rest of a refused upload is read and discarded, so that its sender sees the refusal and not a reset.
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// The state of a connection, set by the service and read by the socket that has to choose a timeout.
#[derive(Debug)]
pub(super) struct ConnState {
    opened: Instant,
    /// Counts requests. Even: a head is awaited (0: the first one). Odd: a request is being answered, or the connection was upgraded.
    phase: AtomicU32,
    discard_rest: AtomicBool,
    upgraded: AtomicBool,
    body: AtomicU64,
    /// When the last response was handed over, in milliseconds after `opened`.
    ended: AtomicU64,
}

const CHUNKED: u64 = u64::MAX;

impl ConnState {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            opened: Instant::now(),
            phase: AtomicU32::new(0),
            discard_rest: AtomicBool::new(false),
            upgraded: AtomicBool::new(false),
            body: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        })
    }

    /// Notes that a head has arrived, with a body of this length. Until the guard is dropped, that is, until the
    /// response's last byte is handed over, reading has no timeout here.
    pub(super) fn begin(self: &Arc<Self>, body: Option<u64>) -> ResponseGuard {
        self.body.store(body.unwrap_or(CHUNKED), Ordering::Relaxed);
        let phase = self.phase.load(Ordering::Acquire) | 1;
        self.phase.store(phase, Ordering::Release);
        ResponseGuard { state: self.clone(), phase }
    }

    fn waiting_since(&self) -> Instant {
        self.opened + Duration::from_millis(self.ended.load(Ordering::Relaxed))
    }

    fn body(&self) -> Option<u64> {
        Some(self.body.load(Ordering::Relaxed)).filter(|length| *length != CHUNKED)
    }

    /// Sets whether to read on for a moment before closing, since the request may have been refused before its body was read.
    pub(super) fn discard_rest(&self, refused: bool) {
        self.discard_rest.store(refused, Ordering::Release);
    }
}

/// One request in progress; dropped with the response's body.
#[derive(Debug)]
pub(super) struct ResponseGuard {
    state: Arc<ConnState>,
    phase: u32,
}

impl ResponseGuard {
    /// Turns the timeouts for reading off: the connection speaks another protocol from here on.
    pub(super) fn upgraded(mut self) -> Self {
        self.phase = 0;
        self.state.upgraded.store(true, Ordering::Relaxed);
        self
    }
}

impl Drop for ResponseGuard {
    fn drop(&mut self) {
        if self.phase != 0 {
            let next = self.phase.wrapping_add(1).max(2);
            let since_opening = self.state.opened.elapsed().as_millis();
            let ended = u64::try_from(since_opening).unwrap_or(0);
            self.state.ended.store(ended, Ordering::Relaxed);
            self.state.phase.store(next, Ordering::Release);
        }
    }
}

/// A timer that is armed only when something is pending, and re-armed lazily.
#[derive(Debug, Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Whether the moment has passed; if not, wakes the task then.
    fn passed(&mut self, moment: Instant, cx: &mut Context<'_>) -> bool {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(moment)));
        if sleep.deadline() > moment {
            sleep.as_mut().reset(moment);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= moment {
                return true;
            }
            sleep.as_mut().reset(moment);
        }
        false
    }
}

/// The socket of one connection, through HTTP and whatever follows an upgrade.
#[derive(Debug)]
pub(super) struct TimeoutIo {
    socket: TcpStream,
    state: Arc<ConnState>,
    limits: Arc<ConnectionLimits>,
    /// The phase that `head_due` belongs to; odd before the first read.
    phase: u32,
    boundary: RequestBoundary,
    head_begun: bool,
    head_due: Instant,
    read_timer: Timer,
    write_due: Option<Instant>,
    write_timer: Timer,
    discard_until: Option<Instant>,
    _permit: ConnectionPermit,
}

impl TimeoutIo {
    pub(super) fn new(
        socket: TcpStream,
        state: Arc<ConnState>,
        limits: Arc<ConnectionLimits>,
        permit: ConnectionPermit,
    ) -> Self {
        Self {
            socket,
            state,
            limits,
            phase: 1,
            boundary: RequestBoundary::default(),
            head_begun: false,
            head_due: Instant::now(),
            read_timer: Timer::default(),
            write_due: None,
            write_timer: Timer::default(),
            discard_until: None,
            _permit: permit,
        }
    }

    /// Starts the clock of a new wait: for the first head, or for the next request.
    fn await_head(&mut self, phase: u32) {
        self.phase = phase;
        self.head_begun = phase == 0 || self.boundary.next_request(self.state.body());
        let timeout = if self.head_begun { self.limits.head } else { self.limits.idle };
        self.head_due = self.state.waiting_since() + timeout;
    }

    /// Re-arms the read timer: finishing a response does not wake this reader, but the idle timeout starts then.
    fn rearm(&mut self, cx: &mut Context<'_>) {
        if !self.state.upgraded.load(Ordering::Relaxed) {
            let soon = Instant::now() + self.limits.head.min(self.limits.idle);
            self.read_timer.passed(soon, cx);
        }
    }

    /// Whether a part of a head was read: hyper refused it by itself if the socket ends now.
    fn is_within_head(&self) -> bool {
        self.boundary.begun && self.phase == self.state.phase.load(Ordering::Acquire)
    }

    fn wrote(
        &mut self,
        result: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if result.is_ready() {
            self.write_due = None;
            return result;
        }
        let stall = self.limits.write_stall;
        let due = *self.write_due.get_or_insert_with(|| Instant::now() + stall);
        if self.write_timer.passed(due, cx) {
            let stalled = io::Error::new(ErrorKind::TimedOut, "the client does not read");
            return Poll::Ready(Err(stalled));
        }
        Poll::Pending
    }
}

impl AsyncRead for TimeoutIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let phase = self.state.phase.load(Ordering::Acquire);
        let waits = phase.is_multiple_of(2);
        if waits && self.phase != phase {
            self.await_head(phase);
        }
        let before = buf.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut self.socket).poll_read(cx, buf) {
            let came = buf.filled().get(before..).unwrap_or_default();
            self.boundary.read(came, waits);
            if waits && !self.head_begun && !came.is_empty() {
                self.head_begun = true;
                self.head_due = Instant::now() + self.limits.head;
            }
            return Poll::Ready(result);
        }
        if !waits {
            self.rearm(cx);
            return Poll::Pending;
        }
        let due = self.head_due;
        if self.read_timer.passed(due, cx) {
            return Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, "no request arrived")));
        }
        Poll::Pending
    }
}

impl AsyncWrite for TimeoutIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.wrote(result, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.wrote(result, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    /// Ends our side. After a refusal it reads on for a moment: closing with unread bytes would reset the connection, and
    /// the client might not see the refusal.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let due = match self.discard_until {
            Some(due) => due,
            None => {
                ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
                if !self.state.discard_rest.load(Ordering::Acquire) && !self.is_within_head() {
                    return Poll::Ready(Ok(()));
                }
                *self.discard_until.insert(Instant::now() + DISCARD_TIME)
            }
        };
        let mut scratch = [0; 4096];
        loop {
            if self.read_timer.passed(due, cx) {
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

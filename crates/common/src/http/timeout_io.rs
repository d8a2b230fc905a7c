//! A socket that does not wait for ever: for a request's head, for the next request, or for a reader that takes nothing.

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

/// How long a refused upload is read and thrown away, so that its sender gets to see the refusal and not a reset.
const LINGER: Duration = Duration::from_secs(1);

/// Where a connection stands between its requests; shared by the socket, which waits, and the service, which knows.
///
/// Even: a head is awaited (0: the first one). Odd: a request is being answered, or the connection was upgraded.
#[derive(Debug)]
pub(super) struct ConnState {
    born: Instant,
    turn: AtomicU32,
    linger: AtomicBool,
    upgraded: AtomicBool,
    /// How long the last request's body was said to be.
    body: AtomicU64,
    /// When the last answer was handed over, in milliseconds after `born`.
    ended: AtomicU64,
}

/// A body whose length nobody said.
const UNKNOWN: u64 = u64::MAX;

impl ConnState {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            born: Instant::now(),
            turn: AtomicU32::new(0),
            linger: AtomicBool::new(false),
            upgraded: AtomicBool::new(false),
            body: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        })
    }

    /// A head has arrived, and says of its body that it has this length. Until the answer's last byte is handed over the
    /// socket sets no limit on reading.
    pub(super) fn begin(self: &Arc<Self>, body: Option<u64>) -> ResponseGuard {
        self.body.store(body.unwrap_or(UNKNOWN), Ordering::Relaxed);
        let turn = self.turn.load(Ordering::Acquire) | 1;
        self.turn.store(turn, Ordering::Release);
        ResponseGuard {
            state: self.clone(),
            turn,
        }
    }

    /// When the wait for the next head began.
    fn waits_since(&self) -> Instant {
        self.born + Duration::from_millis(self.ended.load(Ordering::Relaxed))
    }

    fn body(&self) -> Option<u64> {
        Some(self.body.load(Ordering::Relaxed)).filter(|length| *length != UNKNOWN)
    }

    /// Whether the last request was refused, maybe before its body was read.
    pub(super) fn linger(&self, refused: bool) {
        self.linger.store(refused, Ordering::Release);
    }
}

/// One request's answer under way; dropped with the answer's body.
#[derive(Debug)]
pub(super) struct ResponseGuard {
    state: Arc<ConnState>,
    turn: u32,
}

impl ResponseGuard {
    /// The connection speaks another protocol from here on: its reads are not ours to limit.
    pub(super) fn for_ever(mut self) -> Self {
        self.turn = 0;
        self.state.upgraded.store(true, Ordering::Relaxed);
        self
    }
}

impl Drop for ResponseGuard {
    fn drop(&mut self) {
        if self.turn != 0 {
            let next = self.turn.wrapping_add(1).max(2);
            let since_birth = self.state.born.elapsed().as_millis();
            let ended = u64::try_from(since_birth).unwrap_or(0);
            self.state.ended.store(ended, Ordering::Relaxed);
            self.state.turn.store(next, Ordering::Release);
        }
    }
}

/// A timer that is armed only where something is pending, and rearmed lazily.
#[derive(Debug, Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Whether the moment has passed; if not, the task is woken then.
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
    /// The turn that `head_due` belongs to; odd before the first read.
    turn: u32,
    boundary: RequestBoundary,
    head_begun: bool,
    head_due: Instant,
    read_timer: Timer,
    write_due: Option<Instant>,
    write_timer: Timer,
    linger_due: Option<Instant>,
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
            turn: 1,
            boundary: RequestBoundary::default(),
            head_begun: false,
            head_due: Instant::now(),
            read_timer: Timer::default(),
            write_due: None,
            write_timer: Timer::default(),
            linger_due: None,
            _permit: permit,
        }
    }

    /// Starts the clock of a new wait: for the first head, or for the next request.
    fn await_head(&mut self, turn: u32) {
        self.turn = turn;
        self.head_begun = turn == 0 || self.boundary.next_request(self.state.body());
        let patience = if self.head_begun {
            self.limits.head
        } else {
            self.limits.idle
        };
        self.head_due = self.state.waits_since() + patience;
    }

    /// Looks again in time. The end of an answer does not wake whoever waits here for bytes, and from it on time counts.
    fn look_again(&mut self, cx: &mut Context<'_>) {
        if !self.state.upgraded.load(Ordering::Relaxed) {
            let soon = Instant::now() + self.limits.head.min(self.limits.idle);
            self.read_timer.passed(soon, cx);
        }
    }

    /// Whether the socket ends for what was read of a head: hyper has refused it by itself.
    fn is_within_head(&self) -> bool {
        self.boundary.has_begun() && self.turn == self.state.turn.load(Ordering::Acquire)
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
            return Poll::Ready(Err(io::Error::new(
                ErrorKind::TimedOut,
                "the client takes nothing",
            )));
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
        let turn = self.state.turn.load(Ordering::Acquire);
        let waits = turn.is_multiple_of(2);
        if waits && self.turn != turn {
            self.await_head(turn);
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
            self.look_again(cx);
            return Poll::Pending;
        }
        let due = self.head_due;
        if self.read_timer.passed(due, cx) {
            return Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, "no request came")));
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

    /// Ends our side; after a refusal reads on for a moment, since closing on unread bytes would reset the connection
    /// and could take the refusal with it.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let due = match self.linger_due {
            Some(due) => due,
            None => {
                ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
                if !self.state.linger.load(Ordering::Acquire) && !self.is_within_head() {
                    return Poll::Ready(Ok(()));
                }
                *self.linger_due.insert(Instant::now() + LINGER)
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

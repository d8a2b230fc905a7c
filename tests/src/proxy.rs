//! The wire between a service and what it depends on, which a test can slow down, freeze or cut.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// What the wire does with everything that is sent over it, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Passes it on, each piece that much later.
    Delay(Duration),
    /// Keeps connections, even new ones, and passes nothing on.
    Freeze,
    /// Loses one piece of the answers in so many, and passes another one on twice.
    Garble(usize),
    /// Takes everything from the caller and gives nothing back: the request arrives, its answer never.
    Swallow,
    /// Passes everything on, but no answer on a connection on which a request with that text has come.
    HoldAnswersTo(&'static str),
    /// Cuts every connection, and new ones at once.
    Cut,
}

/// A TCP proxy on a free port; gone when dropped.
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    task: AbortHandle,
}

impl Proxy {
    /// A proxy to that `address:port`, which need not listen yet.
    pub async fn to(target: impl Into<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, watched) = watch::channel(Mode::Pass);
        let task = tokio::spawn(accept(listener, target.into(), watched)).abort_handle();
        Self { address, mode, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Changes what it does, for open connections too.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Cuts what is open now, and passes everything on from then on.
    pub async fn cut_once(&self) {
        self.set(Mode::Cut);
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.set(Mode::Pass);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, target: String, mode: watch::Receiver<Mode>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        connections.spawn(connection(stream, target.clone(), mode.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(caller: TcpStream, target: String, mut mode: watch::Receiver<Mode>) {
    if *mode.borrow() == Mode::Cut {
        caller.set_zero_linger().ok();
        return;
    }
    let mut thawed = mode.clone();
    if thawed.wait_for(|mode| *mode != Mode::Freeze).await.is_err() {
        return;
    }
    let Ok(server) = TcpStream::connect(&target).await else {
        caller.set_zero_linger().ok();
        return;
    };
    caller.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let ((from_caller, to_caller), (from_server, to_server)) =
        (caller.into_split(), server.into_split());
    let asked = Arc::new(AtomicBool::new(false));
    tokio::select! {
        () = pump(from_caller, to_server, mode.clone(), Pumped::Requests, &asked) => {}
        () = pump(from_server, to_caller, mode.clone(), Pumped::Answers, &asked) => {}
        _ = mode.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pumped {
    Requests,
    Answers,
}

/// `asked`: whether the text of [`Mode::HoldAnswersTo`] has come on this connection.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    what: Pumped,
    asked: &AtomicBool,
) {
    let answers = what == Pumped::Answers;
    let (mut buffer, mut pieces) = (vec![0; 64 * 1024], 0_usize);
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if let Mode::HoldAnswersTo(text) = *mode.borrow()
            && !answers
            && buffer[..read].windows(text.len()).any(|piece| piece == text.as_bytes())
        {
            asked.store(true, Ordering::SeqCst);
        }
        let held = |mode: &Mode| match mode {
            Mode::Freeze => true,
            Mode::Swallow => answers,
            Mode::HoldAnswersTo(_) => answers && asked.load(Ordering::SeqCst),
            _ => false,
        };
        let is_lost = answers && *mode.borrow() == Mode::Swallow;
        let Ok(now) = mode.wait_for(|mode| !held(mode)).await.map(|mode| *mode) else {
            return;
        };
        if is_lost {
            continue;
        }
        if let Mode::Delay(time) = now {
            tokio::time::sleep(time).await;
        }
        pieces += 1;
        let times = match now {
            Mode::Garble(every) if answers && pieces % every == every / 2 => 0,
            Mode::Garble(every) if answers && pieces % every == 0 => 2,
            _ => 1,
        };
        for _ in 0..times {
            if to.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    }
}

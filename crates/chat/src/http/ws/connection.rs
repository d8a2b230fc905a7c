//! The loop of one socket: it takes frames in, carries events out, and ends with the right code.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use common::{
    clock,
    errors::{ApiError, Code, status_of},
    http::Deadline,
    identity::Identity,
};
use futures_util::{
    SinkExt as _, Stream, StreamExt as _,
    future::BoxFuture,
    stream::{BoxStream, FuturesUnordered, SelectAll, SplitSink},
};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use tungstenite::{Error, Message, Utf8Bytes};

use crate::{
    domain::MessageId,
    error::ChatError,
    http::{
        encode,
        ws::{
            auth::{AuthFailure, SocketAuth},
            close::{
                FLOOD, Next, PONG_MISSING, SHUTDOWN, TOO_SLOW, UNAUTHENTICATED, close, close_for,
            },
            frames::{self, Frame, MessageFrame, Refused},
            handshake::WsStream,
            limits::FrameLimiter,
            timers::{Due, Timers},
            turns::{OutboundFrames, TurnFrame, TurnOrder, TurnStart, begin, frames_of},
        },
    },
    state::AppState,
};

/// How long a reader may take nothing.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Turns that one socket may begin or watch at once.
const TURNS_LIMIT: usize = 64;

struct Socket {
    app: Arc<AppState>,
    auth: SocketAuth,
    request_id: Arc<str>,
    sink: SplitSink<WsStream, Message>,
    frames: FrameLimiter,
    timers: Timers,
    line: TurnOrder,
    starting: FuturesUnordered<BoxFuture<'static, TurnStart>>,
    watches: SelectAll<BoxStream<'static, OutboundFrames>>,
    revoked: BoxFuture<'static, ()>,
}

/// Runs a socket to its close.
pub async fn run(
    app: Arc<AppState>,
    auth: SocketAuth,
    acquired: Result<(), AuthFailure>,
    request_id: Arc<str>,
    stream: WsStream,
) {
    let (sink, mut incoming) = stream.split();
    let mut timers = Timers::new(auth.must_authenticate());
    if auth.identity().is_some() {
        timers.authenticated(auth.expires_at());
    }
    let revoked = until_revoked(&app, auth.identity());
    let mut socket = Socket {
        app,
        auth,
        request_id,
        sink,
        frames: FrameLimiter::default(),
        timers,
        line: TurnOrder::default(),
        starting: FuturesUnordered::new(),
        watches: SelectAll::new(),
        revoked,
    };
    let gauge = metrics::gauge!("chat_sockets_open");
    gauge.increment(1.0);
    let end = match acquired {
        Ok(()) => socket.run(&mut incoming).await,
        Err(why) => Next::Close(why.into()),
    };
    // Whoever watched here leaves now, however long the close takes.
    let Socket {
        sink,
        watches,
        starting,
        ..
    } = socket;
    drop((watches, starting));
    close(sink, incoming, end).await;
    gauge.decrement(1.0);
}

fn until_revoked(app: &Arc<AppState>, identity: Option<&Identity>) -> BoxFuture<'static, ()> {
    match identity.cloned() {
        Some(identity) => {
            let authenticator = app.authenticator.clone();
            Box::pin(async move {
                authenticator.revoked(&identity).await;
            })
        }
        None => Box::pin(std::future::pending()),
    }
}

impl Socket {
    async fn run<S>(&mut self, incoming: &mut S) -> Next
    where
        S: Stream<Item = Result<Message, Error>> + Unpin,
    {
        let shutdown = self.app.shutdown.clone();
        loop {
            let is_idle = self.starting.is_empty() && self.watches.is_empty();
            let next = tokio::select! {
                () = shutdown.draining(), if is_idle => Next::Close(SHUTDOWN),
                () = &mut self.revoked => Next::Close(UNAUTHENTICATED),
                due = self.timers.due() => self.on_time(due).await,
                // A branch that finds its stream empty must look round again: only then is the socket seen to be idle.
                out = self.watches.next(), if !self.watches.is_empty() => match out {
                    Some(OutboundFrames::Ready(frames)) => self.send_all(frames).await,
                    Some(OutboundFrames::TooSlow) => Next::Close(TOO_SLOW),
                    None => Next::Go,
                },
                Some(started) = self.starting.next() => self.on_started(started).await,
                message = incoming.next() => match message {
                    Some(Ok(message)) => self.on_message(message).await,
                    Some(Err(error)) => close_for(&error),
                    None => Next::Gone,
                },
            };
            if !matches!(next, Next::Go) {
                return next;
            }
        }
    }

    async fn on_time(&mut self, due: Due) -> Next {
        match due {
            Due::Ping => self.send(Message::Ping(Bytes::new())).await,
            Due::PongMissing => Next::Close(PONG_MISSING),
            Due::TokenMissing | Due::Expired => Next::Close(UNAUTHENTICATED),
            Due::ExpiresSoon => self.tell_identity().await,
        }
    }

    async fn on_message(&mut self, message: Message) -> Next {
        self.timers.received();
        if !self.frames.take(Instant::now()) {
            return Next::Close(FLOOD);
        }
        match message {
            Message::Text(text) => match frames::parse(&text) {
                Ok((frame, reference)) => self.on_frame(frame, reference).await,
                Err(Refused { error, reference }) => {
                    self.refuse_bad(&error, reference.as_deref()).await
                }
            },
            Message::Binary(_) => {
                let error = ApiError::new(Code::InvalidRequest, "Frames here are JSON text.");
                self.refuse_bad(&error, None).await
            }
            Message::Ping(_) | Message::Pong(_) => Next::Go,
            Message::Close(_) | Message::Frame(_) => Next::Gone,
        }
    }

    async fn on_frame(&mut self, frame: Frame, reference: Option<String>) -> Next {
        let refused = match frame {
            Frame::Auth(token) => match self.on_auth(&token).await {
                Ok(next) => return next,
                Err(error) => error,
            },
            _ if self.auth.must_authenticate() => return Next::Close(UNAUTHENTICATED),
            Frame::Message(frame) => return self.on_turn(*frame, reference).await,
            Frame::Cancel(id) => match self.on_cancel(&id).await {
                Ok(()) => return Next::Go,
                Err(error) => error.into(),
            },
            Frame::Resume(id, after) => match self.on_resume(id, after).await {
                Ok(()) => return Next::Go,
                Err(error) => error.into(),
            },
        };
        self.refuse(&refused, reference.as_deref()).await
    }

    async fn on_auth(&mut self, token: &str) -> Result<Next, ApiError> {
        let Deadline(mut deadline) = Deadline::from_now();
        match self
            .app
            .authenticator
            .authenticate(token, &mut deadline)
            .await
            .map_err(ApiError::from)
        {
            Ok(identity) => match self.auth.authenticated(identity) {
                Ok(()) => {
                    self.timers.authenticated(self.auth.expires_at());
                    self.revoked = until_revoked(&self.app, self.auth.identity());
                    Ok(self.tell_identity().await)
                }
                Err(why) => Ok(Next::Close(why.into())),
            },
            Err(error) if status_of(error.code).is_server_error() => Err(error),
            Err(_) => Ok(Next::Close(UNAUTHENTICATED)),
        }
    }

    /// Says who speaks and until when.
    async fn tell_identity(&mut self) -> Next {
        let Some(identity) = self.auth.identity() else {
            return Next::Go;
        };
        let expires_at = self
            .auth
            .expires_at()
            .map(|at| clock::rfc3339(at.saturating_mul(1000)));
        let frame = serde_json::json!({ "type": "auth", "user_id": identity.user().as_str(), "expires_at": expires_at });
        self.send(Message::text(frame.to_string())).await
    }

    async fn on_turn(&mut self, frame: MessageFrame, reference: Option<String>) -> Next {
        if self.starting.len() + self.watches.len() >= TURNS_LIMIT {
            let error = ApiError::new(
                Code::Overloaded,
                "Too many answers share this socket; wait for one to end.",
            );
            return self.refuse(&error, reference.as_deref()).await;
        }
        let peer = self.auth.peer();
        let (app, known) = (self.app.clone(), self.auth.identity().cloned());
        let request_id = Arc::clone(&self.request_id);
        let door = self.line.next();
        let asked = TurnFrame {
            known,
            peer,
            frame,
            request_id,
        };
        // A task of its own: it holds places that others wait behind, and this loop stands still while its reader does.
        let shutdown = self.app.shutdown.clone();
        let beginning = shutdown.spawn(async move { begin(&app, door, asked).await });
        let beginning = AbortOnDropHandle::new(beginning);
        self.starting.push(Box::pin(async move {
            let outcome = beginning
                .await
                .unwrap_or_else(|_| Err(ChatError::Broken.into()));
            TurnStart { reference, outcome }
        }));
        Next::Go
    }

    async fn on_started(&mut self, TurnStart { reference, outcome }: TurnStart) -> Next {
        match outcome {
            Ok((identity, id, watch)) => {
                self.auth.add_turn(&identity.owner, &id);
                self.watches.push(frames_of(watch, id, reference));
                Next::Go
            }
            Err(error) => self.refuse(&error, reference.as_deref()).await,
        }
    }

    async fn on_cancel(&mut self, id: &MessageId) -> Result<(), ChatError> {
        let owner = self.auth.owner_of(id);
        let owner = owner.ok_or(ChatError::MessageNotFound)?;
        let Deadline(deadline) = Deadline::from_now();
        self.app.turns.cancel(&owner, id, deadline).await
    }

    async fn on_resume(&mut self, id: MessageId, after: u64) -> Result<(), ChatError> {
        let owner = self.auth.owner_of(&id);
        let owner = owner.ok_or(ChatError::MessageNotFound)?;
        let Deadline(deadline) = Deadline::from_now();
        let subscriber = self.app.turns.resume(&owner, &id, after, deadline).await?;
        if !subscriber.is_past_end() {
            self.watches.push(frames_of(subscriber, id, None));
        }
        Ok(())
    }

    /// Refuses a frame that is none of ours; too many of them end the socket.
    async fn refuse_bad(&mut self, error: &ApiError, reference: Option<&str>) -> Next {
        match self.refuse(error, reference).await {
            Next::Go if !self.frames.take_bad(Instant::now()) => Next::Close(FLOOD),
            next => next,
        }
    }

    async fn refuse(&mut self, error: &ApiError, reference: Option<&str>) -> Next {
        let mut out = String::new();
        encode::connection_error(error, &self.request_id, reference, &mut out);
        self.send(Message::text(out)).await
    }

    async fn send_all(&mut self, frames: Vec<Utf8Bytes>) -> Next {
        for frame in frames {
            // Fed, not sent: what is there at once goes out at once.
            match with_timeout(self.sink.feed(Message::Text(frame))).await {
                Next::Go => {}
                end => return end,
            }
        }
        with_timeout(self.sink.flush()).await
    }

    async fn send(&mut self, message: Message) -> Next {
        with_timeout(self.sink.send(message)).await
    }
}

/// What writing to a reader comes to, who may take nothing for a while.
async fn with_timeout(write: impl Future<Output = Result<(), Error>>) -> Next {
    match timeout(SEND_TIMEOUT, write).await {
        Ok(Ok(())) => Next::Go,
        Ok(Err(_)) => Next::Gone,
        Err(_) => Next::Close(TOO_SLOW),
    }
}

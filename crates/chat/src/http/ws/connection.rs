//! The loop of one socket: it takes frames in, carries events out, and ends with the right code.

use std::sync::Arc;

use bytes::Bytes;
use common::{
    clock,
    errors::{ApiError, Code, status_of},
    http::Deadline,
    identity::Identity,
    otel::{Span, SpanKind},
};
use futures_util::{
    StreamExt as _,
    future::BoxFuture,
    stream::{BoxStream, FuturesUnordered, SplitStream},
};
use tokio::time::Instant;
use tokio_stream::StreamMap;
use tokio_util::task::AbortOnDropHandle;
use tungstenite::Message;

use crate::{
    domain::MessageId,
    error::ChatError,
    http::ws::{
        auth::SocketAuth,
        close::{Close, FLOOD, Next, PONG_MISSING, SHUTDOWN, UNAUTHENTICATED, close, close_for},
        frames::{self, Frame, MessageFrame},
        handshake::WsStream,
        limits::FrameLimiter,
        timers::{Due, Timers},
        turns::{OutboundFrames, TurnOrder, TurnStart, begin, frames_of},
        writer::FrameWriter,
    },
    state::AppState,
};

/// Turns that one socket may begin or watch at once.
const TURNS_LIMIT: usize = 64;

struct Socket {
    app: Arc<AppState>,
    auth: SocketAuth,
    out: FrameWriter,
    frames: FrameLimiter,
    timers: Timers,
    order: TurnOrder,
    starting: FuturesUnordered<BoxFuture<'static, TurnStart>>,
    /// One an answer: whoever resumes it again drops the watch before.
    watches: StreamMap<MessageId, BoxStream<'static, OutboundFrames>>,
    revoked: BoxFuture<'static, ApiError>,
}

pub async fn run(
    app: Arc<AppState>,
    auth: SocketAuth,
    accepted: Result<(), Close>,
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
        out: FrameWriter { sink, request_id },
        frames: FrameLimiter::default(),
        timers,
        order: TurnOrder::default(),
        starting: FuturesUnordered::new(),
        watches: StreamMap::new(),
        revoked,
    };
    let gauge = metrics::gauge!("chat_sockets_open");
    gauge.increment(1.0);
    let end = match accepted {
        Ok(()) => socket.run(&mut incoming).await,
        Err(close) => Next::Close(close),
    };
    // Whoever watched here leaves now, however long the close takes.
    let Socket { out, watches, starting, .. } = socket;
    drop((watches, starting));
    close(out.sink, incoming, end).await;
    gauge.decrement(1.0);
}

fn until_revoked(app: &AppState, identity: Option<&Identity>) -> BoxFuture<'static, ApiError> {
    match identity {
        Some(identity) => app.until_revoked(identity),
        None => Box::pin(std::future::pending()),
    }
}

impl Socket {
    async fn run(&mut self, incoming: &mut SplitStream<WsStream>) -> Next {
        let shutdown = self.app.shutdown.clone();
        loop {
            let is_idle = self.starting.is_empty() && self.watches.is_empty();
            let next = tokio::select! {
                () = shutdown.draining(), if is_idle => Next::Close(SHUTDOWN),
                _ = &mut self.revoked => Next::Close(UNAUTHENTICATED),
                due = self.timers.due() => self.on_time(due).await,
                // A branch that finds its stream empty must look round again: only then is the socket seen to be idle.
                out = self.watches.next(), if !self.watches.is_empty() => match out {
                    Some((_, Ok(frames))) => self.out.send_all(frames).await,
                    Some((_, Err(close))) => Next::Close(close),
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
            Due::Ping => self.out.send(Message::Ping(Bytes::new())).await,
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
                (reference, Ok(frame)) => self.on_frame(frame, reference).await,
                (reference, Err(error)) => self.refuse_bad(&error, reference.as_deref()).await,
            },
            Message::Binary(_) => {
                let detail = "Frames must be text frames with JSON.";
                let error = ApiError::new(Code::InvalidRequest, detail);
                self.refuse_bad(&error, None).await
            }
            Message::Ping(_) | Message::Pong(_) => Next::Go,
            Message::Close(_) | Message::Frame(_) => Next::Gone,
        }
    }

    async fn on_frame(&mut self, frame: Frame, reference: Option<String>) -> Next {
        let done = match frame {
            Frame::Auth(token) => self.on_auth(&token).await,
            _ if self.auth.must_authenticate() => return Next::Close(UNAUTHENTICATED),
            Frame::Message(frame) => self.on_turn(*frame, reference.clone()),
            Frame::Cancel(id) => self.on_cancel(&id).await,
            Frame::Resume(id, after) => self.on_resume(id, after).await,
        };
        match done {
            Ok(next) => next,
            Err(error) => self.out.refuse(&error, reference.as_deref()).await,
        }
    }

    async fn on_auth(&mut self, token: &str) -> Result<Next, ApiError> {
        let Deadline(mut deadline) = Deadline::from_now();
        let authenticator = &self.app.authenticator;
        let identity = match authenticator.authenticate(token, &mut deadline).await {
            Ok(identity) => identity,
            Err(error) => match ApiError::from(error) {
                error if status_of(error.code).is_server_error() => return Err(error),
                _ => return Ok(Next::Close(UNAUTHENTICATED)),
            },
        };
        self.auth.count(Some(&identity.owner), deadline).await?;
        if let Err(close) = self.auth.authenticated(identity) {
            return Ok(Next::Close(close));
        }
        self.timers.authenticated(self.auth.expires_at());
        self.revoked = until_revoked(&self.app, self.auth.identity());
        Ok(self.tell_identity().await)
    }

    async fn tell_identity(&mut self) -> Next {
        let Some(identity) = self.auth.identity() else { return Next::Go };
        let expires_at = self.auth.expires_at().map(|at| clock::rfc3339(at.saturating_mul(1000)));
        let frame = serde_json::json!({ "type": "auth", "user_id": identity.user().as_str(), "expires_at": expires_at });
        self.out.send(Message::text(frame.to_string())).await
    }

    fn on_turn(
        &mut self,
        frame: MessageFrame,
        reference: Option<String>,
    ) -> Result<Next, ApiError> {
        self.check_turns()?;
        let permit = self.app.load_shedder.enter(self.auth.caller)?;
        let peer = self.auth.peer;
        let (app, known) = (self.app.clone(), self.auth.identity().cloned());
        let request_id = self.out.request_id.clone();
        let place = self.order.next();
        // A task of its own: it holds places that others wait behind, and this loop stands still while its reader does.
        let shutdown = self.app.shutdown.clone();
        let span = Span::child("ws message", SpanKind::Server);
        let beginning = shutdown.spawn(
            span.run(async move { begin(&app, place, known, peer, frame, request_id).await }),
        );
        let beginning = AbortOnDropHandle::new(beginning);
        self.starting.push(Box::pin(async move {
            let outcome = beginning.await.unwrap_or_else(|_| Err(ChatError::Broken.into()));
            TurnStart { reference, permit, outcome }
        }));
        Ok(Next::Go)
    }

    async fn on_started(&mut self, started: TurnStart) -> Next {
        let TurnStart { reference, permit, outcome } = started;
        match outcome {
            Ok((identity, id, watch)) => {
                self.auth.add_turn(&identity.owner, &id);
                self.auth.renewed(identity);
                let request_id = self.out.request_id.clone();
                let frames = frames_of(watch, id.clone(), reference, request_id, Some(permit));
                self.watches.insert(id, frames);
                Next::Go
            }
            Err(error) => self.out.refuse(&error, reference.as_deref()).await,
        }
    }

    /// Refuses one more answer on a socket that has as many as it may.
    fn check_turns(&self) -> Result<(), ApiError> {
        if self.starting.len() + self.watches.len() < TURNS_LIMIT {
            return Ok(());
        }
        let detail = "Too many answers share this socket; wait for one to end.";
        Err(ApiError::new(Code::Overloaded, detail))
    }

    async fn on_cancel(&mut self, id: &MessageId) -> Result<Next, ApiError> {
        let Deadline(deadline) = Deadline::from_now();
        let owner = self.auth.owner_of(id, deadline).await?;
        self.app.turns.cancel(&owner, id, deadline).await?;
        Ok(Next::Go)
    }

    async fn on_resume(&mut self, id: MessageId, after: u64) -> Result<Next, ApiError> {
        let Deadline(deadline) = Deadline::from_now();
        let owner = self.auth.owner_of(&id, deadline).await?;
        if !self.watches.contains_key(&id) {
            self.check_turns()?;
        }
        let subscriber = self.app.turns.resume(&owner, &id, after, deadline).await?;
        if subscriber.is_past_end() {
            self.watches.remove(&id);
        } else {
            let frames = frames_of(subscriber, id.clone(), None, self.out.request_id.clone(), None);
            self.watches.insert(id, frames);
        }
        Ok(Next::Go)
    }

    /// Refuses a frame that is none of ours; too many of them end the socket.
    async fn refuse_bad(&mut self, error: &ApiError, reference: Option<&str>) -> Next {
        match self.out.refuse(error, reference).await {
            Next::Go if !self.frames.take_bad(Instant::now()) => Next::Close(FLOOD),
            next => next,
        }
    }
}

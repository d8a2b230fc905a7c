//! The loop of one socket: it takes frames in, carries events out, and ends with the right code.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use common::{
    clock,
    errors::{ApiError, Code},
    http::Deadline,
    identity::Identity,
};
use futures_util::{
    SinkExt as _, Stream, StreamExt as _,
    future::BoxFuture,
    stream::{BoxStream, FuturesUnordered, SelectAll, SplitSink, unfold},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Mutex,
    time::{Instant, timeout},
};

use tungstenite::{Error, Message, Utf8Bytes, protocol::CloseFrame};

use super::{
    super::{
        App, messages,
        requests::{disconnect_rule, idempotency_key},
        wire,
    },
    fragments::TooMany,
    frames::{self, Frame, MessageFrame, Refused},
    limits::Frames,
    speaker::{NoSpeaker, Speaker, counted_identity},
    timers::{Due, Timers},
    upgrade::Wire,
};
use crate::{
    models::{MessageId, records::Ending},
    service::{
        begin::Begun,
        event::{Event, Kind},
        log::{Step, Watch},
        turns::{ChatError, NewTurn, Question},
    },
};

/// How long a reader may take nothing.
const SEND_PATIENCE: Duration = Duration::from_secs(30);

/// How long the other side's close is waited for.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// Turns that one socket may begin or watch at once.
const TURNS_LIMIT: usize = 64;

/// How a socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Close(u16, &'static str);

const SHUTDOWN: Close = Close(1001, "the service stops");
const UNSUPPORTED_FLOOD: Close = Close(1008, "too many frames");
const TOO_BIG: Close = Close(1009, "a frame may have 64 KiB");
const TOO_SLOW: Close = Close(1013, "the reader is too slow");
const UNAUTHENTICATED: Close = Close(4401, "the token is missing, wrong, revoked or expired");
const TOO_MANY: Close = Close(4429, "too many sockets of this user");
const PROTOCOL: Close = Close(1002, "a frame against the protocol");
const NOT_TEXT: Close = Close(1007, "text must be UTF-8");
const SILENT: Close = Close(1008, "no pong came");

/// How the loop goes on.
enum Next {
    Go,
    Close(Close),
    Gone,
}

/// What a watched turn sends: frames that are ready, or the end of the watch.
enum Out {
    Frames(Vec<Utf8Bytes>),
    TooSlow,
}

/// A turn that was asked for, begun or refused.
struct Started {
    reference: Option<String>,
    outcome: Result<(Identity, MessageId, Watch), ApiError>,
}

struct Socket {
    app: App,
    speaker: Speaker,
    request_id: Arc<str>,
    sink: SplitSink<Wire, Message>,
    frames: Frames,
    timers: Timers,
    /// Passed by messages one after another, so that they take their places in the order in which they came.
    door: Arc<Mutex<()>>,
    starting: FuturesUnordered<BoxFuture<'static, Started>>,
    watches: SelectAll<BoxStream<'static, Out>>,
    revoked: BoxFuture<'static, ()>,
}

/// Runs a socket to its close.
pub async fn run(
    app: App,
    speaker: Speaker,
    seated: Result<(), NoSpeaker>,
    request_id: Arc<str>,
    wire: Wire,
) {
    let (sink, mut incoming) = wire.split();
    let mut timers = Timers::new(speaker.must_authenticate());
    if speaker.identity().is_some() {
        timers.authenticated(speaker.expires_at());
    }
    let revoked = until_revoked(&app, speaker.identity());
    let mut socket = Socket {
        app,
        speaker,
        request_id,
        sink,
        frames: Frames::default(),
        timers,
        door: Arc::default(),
        starting: FuturesUnordered::new(),
        watches: SelectAll::new(),
        revoked,
    };
    let gauge = metrics::gauge!("chat_sockets_open");
    gauge.increment(1.0);
    let end = match seated {
        Ok(()) => socket.carry(&mut incoming).await,
        Err(why) => Next::Close(why.into()),
    };
    // Whoever watched here leaves now, however long the goodbye takes.
    let Socket {
        mut sink,
        watches,
        starting,
        ..
    } = socket;
    drop((watches, starting));
    let goodbye = async {
        say_goodbye(&mut sink, end).await;
        if let Ok(wire) = sink.reunite(incoming) {
            linger(wire).await;
        }
    };
    let _ = timeout(CLOSE_PATIENCE, goodbye).await;
    gauge.decrement(1.0);
}

impl From<NoSpeaker> for Close {
    fn from(why: NoSpeaker) -> Self {
        match why {
            NoSpeaker::Unauthenticated => UNAUTHENTICATED,
            NoSpeaker::TooMany => TOO_MANY,
        }
    }
}

fn until_revoked(app: &App, identity: Option<&Identity>) -> BoxFuture<'static, ()> {
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
    async fn carry<S>(&mut self, incoming: &mut S) -> Next
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
                    Some(Out::Frames(frames)) => self.send_all(frames).await,
                    Some(Out::TooSlow) => Next::Close(TOO_SLOW),
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
            Due::Silent => Next::Close(SILENT),
            Due::Unknown | Due::Expired => Next::Close(UNAUTHENTICATED),
            Due::ExpiresSoon => self.tell_identity().await,
        }
    }

    async fn on_message(&mut self, message: Message) -> Next {
        self.timers.heard();
        if !self.frames.take(Instant::now()) {
            return Next::Close(UNSUPPORTED_FLOOD);
        }
        match message {
            Message::Text(text) => match frames::parse(&text) {
                Ok(frame) => self.on_frame(frame).await,
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

    async fn on_frame(&mut self, frame: Frame) -> Next {
        match frame {
            Frame::Auth(token) => self.on_auth(&token).await,
            _ if self.speaker.must_authenticate() => Next::Close(UNAUTHENTICATED),
            Frame::Message(frame) => self.on_turn(*frame).await,
            Frame::Cancel(id) => self.on_cancel(&id).await,
            Frame::Resume(id, after) => self.on_resume(id, after).await,
        }
    }

    async fn on_auth(&mut self, token: &str) -> Next {
        let Deadline(deadline) = Deadline::from_now();
        match self.app.authenticator.authenticate(token, deadline).await {
            Ok(identity) => match self.speaker.authenticated(identity) {
                Ok(()) => {
                    self.timers.authenticated(self.speaker.expires_at());
                    self.revoked = until_revoked(&self.app, self.speaker.identity());
                    self.tell_identity().await
                }
                Err(why) => Next::Close(why.into()),
            },
            Err(error) if error.code.status().is_server_error() => self.refuse(&error, None).await,
            Err(_) => Next::Close(UNAUTHENTICATED),
        }
    }

    /// Says who speaks and until when.
    async fn tell_identity(&mut self) -> Next {
        let Some(identity) = self.speaker.identity() else {
            return Next::Go;
        };
        let expires_at = self
            .speaker
            .expires_at()
            .map(|at| clock::rfc3339(at.saturating_mul(1000)));
        let frame = serde_json::json!({ "type": "auth", "user_id": identity.user().as_str(), "expires_at": expires_at });
        self.send(Message::text(frame.to_string())).await
    }

    async fn on_turn(&mut self, frame: MessageFrame) -> Next {
        let reference = frame.reference.as_ref().and_then(frames::Reference::json);
        if self.starting.len() + self.watches.len() >= TURNS_LIMIT {
            let error = ApiError::new(
                Code::Overloaded,
                "Too many answers share this socket; wait for one to end.",
            );
            return self.refuse(&error, reference.as_deref()).await;
        }
        let peer = self.speaker.peer();
        let (app, known) = (self.app.clone(), self.speaker.identity().cloned());
        let request_id = Arc::clone(&self.request_id);
        let (door, Deadline(deadline)) = (Arc::clone(&self.door), Deadline::from_now());
        self.starting.push(Box::pin(async move {
            let asked = Asked {
                known,
                peer,
                frame,
                request_id,
                deadline,
            };
            let outcome = begin(&app, &door, asked).await;
            Started { reference, outcome }
        }));
        Next::Go
    }

    async fn on_started(&mut self, Started { reference, outcome }: Started) -> Next {
        match outcome {
            Ok((identity, id, watch)) => {
                self.speaker.has_begun(&identity.owner, &id);
                self.watches.push(frames_of(watch, id, reference));
                Next::Go
            }
            Err(error) => self.refuse(&error, reference.as_deref()).await,
        }
    }

    async fn on_cancel(&mut self, id: &MessageId) -> Next {
        let cancelled = match self.speaker.owner_of(id) {
            Some(owner) => {
                self.app
                    .turns
                    .cancel(&owner, id, Deadline::from_now().0)
                    .await
            }
            None => Err(ChatError::MessageNotFound),
        };
        match cancelled {
            Ok(()) => Next::Go,
            Err(error) => self.refuse(&error.into(), None).await,
        }
    }

    async fn on_resume(&mut self, id: MessageId, after: u64) -> Next {
        let resumed = match self.speaker.owner_of(&id) {
            Some(owner) => {
                self.app
                    .turns
                    .resume(&owner, &id, after, Deadline::from_now().0)
                    .await
            }
            None => Err(ChatError::MessageNotFound),
        };
        match resumed {
            Ok(watch) if watch.is_past_the_end() => Next::Go,
            Ok(watch) => {
                self.watches.push(frames_of(watch, id, None));
                Next::Go
            }
            Err(error) => self.refuse(&error.into(), None).await,
        }
    }

    /// Refuses a frame that is none of ours; too many of them end the socket.
    async fn refuse_bad(&mut self, error: &ApiError, reference: Option<&str>) -> Next {
        match self.refuse(error, reference).await {
            Next::Go if !self.frames.take_bad(Instant::now()) => Next::Close(UNSUPPORTED_FLOOD),
            next => next,
        }
    }

    async fn refuse(&mut self, error: &ApiError, reference: Option<&str>) -> Next {
        let ending = Ending::Error {
            code: error.code,
            detail: error.detail.clone(),
        };
        let mut event = Event::ending(&ending, &self.request_id);
        if let Ok(errors) = serde_json::to_string(&error.errors)
            && !error.errors.is_empty()
        {
            event.members.push_str(",\"errors\":");
            event.members.push_str(&errors);
        }
        let mut out = String::new();
        wire::notice(Kind::Error, reference, &event.members, &mut out);
        self.send(Message::text(out)).await
    }

    async fn send_all(&mut self, frames: Vec<Utf8Bytes>) -> Next {
        for frame in frames {
            // Fed, not sent: what is there at once goes out at once.
            match timeout(SEND_PATIENCE, self.sink.feed(Message::Text(frame))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Next::Gone,
                Err(_) => return Next::Close(TOO_SLOW),
            }
        }
        self.flush().await
    }

    async fn send(&mut self, message: Message) -> Next {
        match timeout(SEND_PATIENCE, self.sink.send(message)).await {
            Ok(Ok(())) => Next::Go,
            Ok(Err(_)) => Next::Gone,
            Err(_) => Next::Close(TOO_SLOW),
        }
    }

    async fn flush(&mut self) -> Next {
        match timeout(SEND_PATIENCE, self.sink.flush()).await {
            Ok(Ok(())) => Next::Go,
            Ok(Err(_)) => Next::Gone,
            Err(_) => Next::Close(TOO_SLOW),
        }
    }
}

/// Says why it ends, or answers the other side's close.
async fn say_goodbye(sink: &mut SplitSink<Wire, Message>, end: Next) {
    // What cannot be said any more is not heard either.
    let _ = match end {
        Next::Close(Close(code, reason)) => {
            let frame = CloseFrame {
                code: code.into(),
                reason: Utf8Bytes::from_static(reason),
            };
            sink.send(Message::Close(Some(frame))).await
        }
        Next::Go | Next::Gone => sink.flush().await,
    };
}

/// Takes in what is still on its way, until the other side ends too: a connection dropped before is reset, and what was
/// said last is lost.
async fn linger(mut wire: Wire) {
    let connection = wire.get_mut().connection();
    if connection.shutdown().await.is_err() {
        return;
    }
    let mut nobody_reads_this = [0; 4096];
    while let Ok(1..) = connection.read(&mut nobody_reads_this).await {}
}

/// A message as it came, and what was known then.
struct Asked {
    known: Option<Identity>,
    peer: IpAddr,
    frame: MessageFrame,
    request_id: Arc<str>,
    deadline: std::time::Instant,
}

/// Counts the message, says whose it is, and begins its turn.
async fn begin(
    app: &App,
    door: &Mutex<()>,
    asked: Asked,
) -> Result<(Identity, MessageId, Watch), ApiError> {
    let Asked {
        known,
        peer,
        frame,
        request_id,
        deadline,
    } = asked;
    let passing = door.lock().await;
    let user_id = frame.user_id.as_deref();
    let identity = counted_identity(app, known, peer, user_id, deadline).await?;
    let place = app.turns.arrive(&identity.owner, &frame.session());
    drop(passing);
    let key = match &frame.idempotency_key {
        Some(key) => Some(idempotency_key(key, "/idempotency_key", "message", &frame)?),
        None => None,
    };
    let new = NewTurn {
        session: frame.session(),
        question: Question::Message(frame.message),
        model: frame.model,
        system: frame.system,
        options: frame.options.unwrap_or_default(),
        on_disconnect: disconnect_rule(frame.on_disconnect, app.disconnect_grace, true),
        key,
        request_id,
    };
    let Begun { id, watch, joined } = app
        .turns
        .begin_at(place, &identity.owner, new, deadline)
        .await?;
    if joined {
        messages::give_back(app, &identity).await;
    }
    Ok((identity, id, watch))
}

/// A watched turn as frames; the stream ends with the turn.
fn frames_of(watch: Watch, id: MessageId, reference: Option<String>) -> BoxStream<'static, Out> {
    let state = Some((watch, id, reference));
    Box::pin(unfold(state, |state| async move {
        let (mut watch, id, reference) = state?;
        let mut frames = Vec::new();
        let take = |event: u64, kind: Kind, members: &str| {
            let mut out = String::new();
            wire::json(
                event,
                kind,
                id.as_str(),
                reference.as_deref(),
                members,
                &mut out,
            );
            frames.push(Utf8Bytes::from(out));
        };
        match watch.next(take).await {
            Step::More => Some((Out::Frames(frames), Some((watch, id, reference)))),
            Step::Ended => Some((Out::Frames(frames), None)),
            Step::Lagging => Some((Out::TooSlow, None)),
            Step::Gone => {
                let detail = "This instance stops; resume on another.".to_owned();
                let event = Event::ending(
                    &Ending::Error {
                        code: Code::ShuttingDown,
                        detail,
                    },
                    "",
                );
                let mut out = String::new();
                wire::notice(Kind::Error, None, &event.members, &mut out);
                Some((Out::Frames(vec![out.into()]), None))
            }
        }
    }))
}

/// What a broken frame means for the socket.
fn close_for(error: &Error) -> Next {
    match error {
        Error::Capacity(_) => Next::Close(TOO_BIG),
        Error::Utf8(_) => Next::Close(NOT_TEXT),
        Error::Protocol(_) => Next::Close(PROTOCOL),
        Error::Io(cause) if cause.get_ref().is_some_and(|cause| cause.is::<TooMany>()) => {
            Next::Close(UNSUPPORTED_FLOOD)
        }
        _ => Next::Gone,
    }
}

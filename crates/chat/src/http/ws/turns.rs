//! The turns of a socket: a message becomes one, and its events become frames.

use std::{net::IpAddr, sync::Arc};

use common::{
    errors::{ApiError, Code},
    http::Deadline,
    identity::Identity,
};
use futures_util::stream::{BoxStream, unfold};
use tokio::sync::oneshot;
use tungstenite::Utf8Bytes;

use crate::{
    domain::{
        MessageId,
        event::{Event, Kind},
        records::Ending,
    },
    events::log::{Step, Watch},
    http::{
        App, encode,
        requests::{disconnect_rule, idempotency_key},
        ws::{auth::counted_identity, frames::MessageFrame},
    },
    turns::service::{Begun, NewTurn, Question},
};

/// What a watched turn sends: frames that are ready, or the end of the watch.
pub(super) enum Out {
    Frames(Vec<Utf8Bytes>),
    TooSlow,
}

/// A turn that was asked for, begun or refused.
pub(super) struct Started {
    pub(super) reference: Option<String>,
    pub(super) outcome: Result<(Identity, MessageId, Watch), ApiError>,
}

/// Where a socket's messages pass one after another, so that they take their places in the order in which they came.
pub(super) struct Door {
    /// Closed once the message before is through.
    before: oneshot::Receiver<()>,
    /// Dropped once this one is.
    through: oneshot::Sender<()>,
}

/// The end of a socket's line at its door.
pub(super) struct Line {
    last: oneshot::Receiver<()>,
}

impl Default for Line {
    fn default() -> Self {
        let (_, last) = oneshot::channel();
        Self { last }
    }
}

impl Line {
    /// The next message's.
    pub(super) fn next(&mut self) -> Door {
        let (through, last) = oneshot::channel();
        let before = std::mem::replace(&mut self.last, last);
        Door { before, through }
    }
}

/// A message as it came, and what was known then.
pub(super) struct Asked {
    pub(super) known: Option<Identity>,
    pub(super) peer: IpAddr,
    pub(super) frame: MessageFrame,
    pub(super) request_id: Arc<str>,
}

/// Counts the message, says whose it is, and begins its turn.
pub(super) async fn begin(
    app: &App,
    Door { before, through }: Door,
    asked: Asked,
) -> Result<(Identity, MessageId, Watch), ApiError> {
    let Asked {
        known,
        peer,
        frame,
        request_id,
    } = asked;
    // Nothing is ever sent: the other end goes, by whatever way.
    let _gone = before.await;
    // From here on: the messages before it may have taken their time.
    let Deadline(deadline) = Deadline::from_now();
    let user_id = frame.user_id.as_deref();
    let (identity, call) = counted_identity(app, known, peer, user_id, deadline).await?;
    let place = app.turns.arrive(&identity.owner, &frame.session());
    drop(through);
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
        call: call.clone(),
        request_id,
    };
    let Begun { id, watch, joined } = app
        .turns
        .begin_at(place, &identity.owner, new, deadline)
        .await?;
    if joined {
        call.refund().await;
    }
    Ok((identity, id, watch))
}

/// A watched turn as frames; the stream ends with the turn.
pub(super) fn frames_of(
    watch: Watch,
    id: MessageId,
    reference: Option<String>,
) -> BoxStream<'static, Out> {
    let state = Some((watch, id, reference));
    Box::pin(unfold(state, |state| async move {
        let (mut watch, id, reference) = state?;
        let mut frames = Vec::new();
        let take = |event: u64, kind: Kind, data: &str| {
            let mut out = String::new();
            encode::json(
                event,
                kind,
                id.as_str(),
                reference.as_deref(),
                data,
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
                encode::notice(Kind::Error, None, &event.data, &mut out);
                Some((Out::Frames(vec![out.into()]), None))
            }
        }
    }))
}

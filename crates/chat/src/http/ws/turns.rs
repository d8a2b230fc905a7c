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
    domain::{MessageId, TurnInput, event::EventRef},
    events::log::{ReadResult, Subscriber},
    http::{
        encode,
        requests::{disconnect_rule, idempotency_key},
        ws::{auth::identify_and_count, frames::MessageFrame},
    },
    state::AppState,
    turns::request::{StartedTurn, TurnRequest},
};

/// What a watched turn sends: frames that are ready, or the end of the watch.
pub(super) enum OutboundFrames {
    Ready(Vec<Utf8Bytes>),
    TooSlow,
}

/// A turn that was asked for, turns or refused.
pub(super) struct TurnStart {
    pub(super) reference: Option<String>,
    pub(super) outcome: Result<(Identity, MessageId, Subscriber), ApiError>,
}

/// Where a socket's messages pass one after another, so that they take their places in the order in which they came.
pub(super) struct OrderGuard {
    /// Closed once the message before is through.
    before: oneshot::Receiver<()>,
    /// Dropped once this one is.
    through: oneshot::Sender<()>,
}

/// The end of a socket's line at its door.
pub(super) struct TurnOrder {
    last: oneshot::Receiver<()>,
}

impl Default for TurnOrder {
    fn default() -> Self {
        let (_, last) = oneshot::channel();
        Self { last }
    }
}

impl TurnOrder {
    /// The next message's.
    pub(super) fn next(&mut self) -> OrderGuard {
        let (through, last) = oneshot::channel();
        let before = std::mem::replace(&mut self.last, last);
        OrderGuard { before, through }
    }
}

/// A message as it came, and what was known then.
pub(super) struct TurnFrame {
    pub(super) known: Option<Identity>,
    pub(super) peer: IpAddr,
    pub(super) frame: MessageFrame,
    pub(super) request_id: Arc<str>,
}

/// Counts the message, says whose it is, and begins its turn.
pub(super) async fn begin(
    app: &Arc<AppState>,
    OrderGuard { before, through }: OrderGuard,
    asked: TurnFrame,
) -> Result<(Identity, MessageId, Subscriber), ApiError> {
    let TurnFrame {
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
    let (identity, call) = identify_and_count(app, known, peer, user_id, deadline).await?;
    let permit = app.turns.reserve_slot(&identity.owner, &frame.session());
    drop(through);
    let key = match &frame.idempotency_key {
        Some(key) => Some(idempotency_key(key, "/idempotency_key", "message", &frame)?),
        None => None,
    };
    let request = TurnRequest {
        owner: identity.owner.clone(),
        session: frame.session(),
        input: TurnInput::Message(frame.message),
        model: frame.model,
        system: frame.system,
        options: frame.options.unwrap_or_default(),
        on_disconnect: disconnect_rule(frame.on_disconnect, app.disconnect_grace, true),
        key,
        ticket: call,
        request_id,
    };
    let StartedTurn { id, events } = app.turns.start_in_slot(permit, request, deadline).await?;
    Ok((identity, id, events))
}

/// A watched turn as frames; the stream ends with the turn.
pub(super) fn frames_of(
    subscriber: Subscriber,
    id: MessageId,
    reference: Option<String>,
) -> BoxStream<'static, OutboundFrames> {
    let state = Some((subscriber, id, reference));
    Box::pin(unfold(state, |state| async move {
        let (mut subscriber, id, reference) = state?;
        let mut frames = Vec::new();
        let take = |event_id: u64, event: EventRef<'_>| {
            let mut out = String::new();
            encode::json(event_id, event, id.as_str(), reference.as_deref(), &mut out);
            frames.push(Utf8Bytes::from(out));
        };
        match subscriber.next(take).await {
            ReadResult::More => Some((
                OutboundFrames::Ready(frames),
                Some((subscriber, id, reference)),
            )),
            ReadResult::Ended => Some((OutboundFrames::Ready(frames), None)),
            ReadResult::Lagging => Some((OutboundFrames::TooSlow, None)),
            ReadResult::Gone => {
                let mut out = String::new();
                let error = ApiError::new(
                    Code::ShuttingDown,
                    "This instance stops; resume on another.",
                );
                encode::connection_error(&error, "", None, &mut out);
                Some((OutboundFrames::Ready(vec![out.into()]), None))
            }
        }
    }))
}

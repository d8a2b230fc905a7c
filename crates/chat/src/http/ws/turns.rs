//! The turns of a socket: a message becomes one, and its events become frames.

use std::{net::IpAddr, sync::Arc};

use common::{
    errors::{ApiError, Code},
    http::{Deadline, RequestPermit},
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
        error::{about, instance_stops},
        requests::{disconnect_rule, idempotency_key},
        ws::{
            auth::identify_and_count,
            close::{Close, TOO_SLOW},
            frames::MessageFrame,
        },
    },
    state::AppState,
    turns::request::{StartedTurn, TurnRequest},
};

/// What a watched turn sends: frames that are ready, or the end of the watch and of the socket.
pub(super) type OutboundFrames = Result<Vec<Utf8Bytes>, Close>;

/// What became of a message: a started turn, or why it was refused.
pub(super) struct TurnStart {
    pub(super) reference: Option<String>,
    pub(super) permit: RequestPermit,
    pub(super) outcome: Result<(Identity, MessageId, Subscriber), ApiError>,
}

pub(super) struct OrderGuard {
    /// Resolves once the message before has its place in the session's queue.
    before: Option<oneshot::Receiver<()>>,
    through: oneshot::Sender<()>,
}

/// The order in which a socket's messages start their turns: that in which they came.
#[derive(Default)]
pub(super) struct TurnOrder {
    last: Option<oneshot::Receiver<()>>,
}

impl TurnOrder {
    pub(super) fn next(&mut self) -> OrderGuard {
        let (through, last) = oneshot::channel();
        let before = self.last.replace(last);
        OrderGuard { before, through }
    }
}

/// Counts the message, says whose it is, and begins its turn.
pub(super) async fn begin(
    app: &Arc<AppState>,
    OrderGuard { before, through }: OrderGuard,
    known: Option<Identity>,
    peer: IpAddr,
    frame: MessageFrame,
    request_id: Arc<str>,
) -> Result<(Identity, MessageId, Subscriber), ApiError> {
    if let Some(before) = before {
        // Nothing is ever sent: the other end goes, by whatever way.
        let _gone = before.await;
    }
    // From here on: the messages before it may have taken their time.
    let Deadline(deadline) = Deadline::from_now();
    let user_id = frame.user_id.as_deref();
    let (identity, ticket) = identify_and_count(app, known, peer, user_id, deadline).await?;
    let permit = app.turns.reserve_slot(&identity.owner, &frame.session());
    drop(through);
    let key = match &frame.idempotency_key {
        Some(key) => Some(idempotency_key(key, "/idempotency_key", "message", &frame)?),
        None => None,
    };
    let request = TurnRequest {
        identity,
        session: frame.session(),
        input: TurnInput::Message(frame.message),
        model: frame.model,
        system: frame.system,
        options: frame.options.unwrap_or_default(),
        on_disconnect: disconnect_rule(frame.on_disconnect, app.disconnect_grace, true),
        key,
        ticket,
        request_id,
    };
    let started = app.turns.start_in_slot(permit, request, deadline).await;
    let StartedTurn { id, identity, events } = started.map_err(|error| {
        let error = ApiError::from(error);
        match error.code {
            Code::IdempotencyMismatch => about(Some("/idempotency_key"), error.code, error.detail),
            _ => error,
        }
    })?;
    Ok((identity, id, events))
}

/// A watched turn as frames; the stream ends with the turn. Until then the permit of a turn that began here is held.
pub(super) fn frames_of(
    subscriber: Subscriber,
    id: MessageId,
    reference: Option<String>,
    request_id: Arc<str>,
    permit: Option<RequestPermit>,
) -> BoxStream<'static, OutboundFrames> {
    let state = Some((subscriber, id, reference, request_id));
    Box::pin(unfold(state, move |state| {
        let _in_flight = &permit;
        next_frames(state)
    }))
}

type Watched = (Subscriber, MessageId, Option<String>, Arc<str>);

async fn next_frames(state: Option<Watched>) -> Option<(OutboundFrames, Option<Watched>)> {
    let (mut subscriber, id, reference, request_id) = state?;
    let mut frames = Vec::new();
    let take = |event_id: u64, event: EventRef<'_>| {
        let mut out = String::new();
        let reference = reference.as_deref();
        encode::json(event_id, event, id.as_str(), reference, &request_id, &mut out);
        frames.push(Utf8Bytes::from(out));
    };
    match subscriber.next(take).await {
        ReadResult::More => {
            let state = (subscriber, id, reference, request_id);
            Some((Ok(frames), Some(state)))
        }
        ReadResult::Ended => Some((Ok(frames), None)),
        ReadResult::Lagging => Some((Err(TOO_SLOW), None)),
        ReadResult::Gone => {
            let mut out = String::new();
            let stops = instance_stops();
            encode::connection_error(&stops, &request_id, Some(id.as_str()), None, &mut out);
            Some((Ok(vec![out.into()]), None))
        }
    }
}

//! What callers ask of the turn service, and get from it.

use std::sync::Arc;

use common::{identity::Identity, rate_limiter::RateLimitTicket};

use crate::{
    domain::{IdempotencyKey, MessageId, OnDisconnect, Options, SessionId, TurnInput},
    events::log::Subscriber,
};

#[derive(Clone, Debug)]
pub struct TurnRequest {
    pub identity: Identity,
    pub session: SessionId,
    pub input: TurnInput,
    pub model: Option<String>,
    pub system: Option<String>,
    pub options: Options,
    pub on_disconnect: OnDisconnect,
    pub key: Option<IdempotencyKey>,
    /// The request as the rate limit sees it, counted or not.
    pub ticket: RateLimitTicket,
    /// For the log and the `error` event.
    pub request_id: Arc<str>,
}

/// A turn that has started, or one that existed already under the same idempotency key.
#[derive(Debug)]
pub struct StartedTurn {
    pub id: MessageId,
    /// The caller's, as it was checked last.
    pub identity: Identity,
    pub events: Subscriber,
}

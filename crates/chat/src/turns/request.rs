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

#[derive(Clone, Debug)]
pub struct TurnLimits {
    /// How many of the newest messages are considered for a prompt.
    pub history_messages: usize,
    /// The longest message, in characters.
    pub max_message_chars: usize,
    /// The largest number of messages in a session.
    pub max_session_messages: u64,
    /// The system prompt if neither request nor session has one.
    pub system_prompt: Option<String>,
    /// LLM tokens that a user may use per day.
    pub tokens_per_day: Option<u64>,
}

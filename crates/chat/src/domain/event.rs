//! The events of a turn.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Ending, MessageId, SessionId};

/// The distance of the id of an ending that recovery wrote from the last stored one: more events than anybody sends before they are stored.
pub const RECOVERY_GAP: u64 = 1_000_000;

/// An event of a turn. Its id, from 1 within the turn, is given by the log that it is appended to.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Start(Start),
    /// The turn waits for the model server; so many turns are ahead.
    Queued {
        position: usize,
    },
    Token(String),
    /// A piece of the thoughts before it.
    Thinking(String),
    End(End),
}

/// An event as a log lends it out, without copying its text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EventRef<'a> {
    Start(&'a Start),
    Queued { position: usize },
    Token(&'a str),
    Thinking(&'a str),
    End(&'a End),
}

/// The first event: the turn was accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Start {
    #[schema(value_type = String)]
    pub message_id: MessageId,
    #[schema(value_type = String)]
    pub session_id: SessionId,
    pub user_id: String,
    pub model: String,
    /// The provider that is tried first.
    pub provider: String,
    /// The reader drops what it has: the whole text follows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reset: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    pub ending: Ending,
    /// The request that started the turn; empty where it is not known.
    pub request_id: Arc<str>,
    /// Written in the place of an instance that may have given more ids than it stored: its id is [`RECOVERY_GAP`] above the last
    /// stored one, and so above all of these.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_recovery: bool,
}

impl Event {
    pub fn end(ending: Ending, request_id: &Arc<str>) -> Self {
        Self::End(End { ending, request_id: Arc::clone(request_id), by_recovery: false })
    }

    pub fn as_ref(&self) -> EventRef<'_> {
        match self {
            Self::Start(start) => EventRef::Start(start),
            Self::Queued { position } => EventRef::Queued { position: *position },
            Self::Token(text) => EventRef::Token(text),
            Self::Thinking(text) => EventRef::Thinking(text),
            Self::End(end) => EventRef::End(end),
        }
    }
}

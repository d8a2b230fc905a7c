//! Turns: one message and its answer.

use std::time::Duration;

use common::errors::Code;
use serde::{Deserialize, Serialize};

use super::{AnswerInfo, Context, FinishReason, MessageId, SessionId, Usage};

#[derive(Clone, Debug, PartialEq)]
pub enum TurnInput {
    Message(String),
    Regenerate,
}

/// What happens to a turn without subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisconnect {
    Continue,
    /// It is cancelled after that time, unless somebody subscribes again.
    CancelAfter(Duration),
}

/// An idempotency key with the request that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// SHA-256 of the key, hexadecimal.
    pub digest: String,
    /// SHA-256 of the request, hexadecimal.
    pub body: String,
}

/// Why a turn is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    Cancelled,
    SessionDeleted,
    /// Another instance closed it, since its lease had lapsed.
    LeaseLost,
}

/// The turn that a session is answering, with everything that is needed to close it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenTurn {
    /// The answer's id; it contains the position at which the answer will stand.
    pub id: MessageId,
    pub fence: u64,
    pub reply_to: MessageId,
    /// The answer that this one replaces when it has text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<MessageId>,
    /// Whether the old answer stays if this one fails: it was good, and the caller only wanted another.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub regenerates: bool,
    pub model: String,
    pub provider: String,
    /// Whether an idempotency key refers to it: its record is then kept as long as the key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keyed: bool,
    /// Tokens held of the day's quota: of these `prompt` are the prompt's.
    pub reserved: u64,
    pub prompt: u64,
    /// The day on which the turn counts (`YYYYMMDD`, UTC).
    pub day: String,
    /// The context window of the provider that is tried first.
    pub window: u32,
}

/// How a turn ended: the contents of its last event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Ending {
    /// With an answer, complete or stopped.
    Done {
        /// `stop`, `length` or `cancelled`.
        finish_reason: FinishReason,
        usage: Usage,
        context: Context,
        model: String,
        provider: String,
    },
    /// Without an answer, or with a part of one.
    Error {
        code: Code,
        detail: String,
        /// Seconds, where the model server told them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
        /// The member of the request that it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pointer: Option<String>,
    },
}

impl Ending {
    pub fn error(code: Code, detail: &str) -> Self {
        let detail = detail.to_owned();
        Self::Error { code, detail, retry_after: None, pointer: None }
    }

    /// The ending of a turn whose process died or was stopped.
    pub fn interrupted() -> Self {
        let detail = "The answer was interrupted; what there is of it is kept. Send the message again to go on.";
        Self::error(Code::Interrupted, detail)
    }

    /// The ending of a turn whose session was deleted.
    pub fn session_deleted() -> Self {
        let detail = "The session was deleted while it was answered.";
        Self::error(Code::SessionNotFound, detail)
    }

    pub fn of_answer(answer: &AnswerInfo) -> Self {
        match answer.finish_reason {
            FinishReason::Interrupted => Self::interrupted(),
            FinishReason::Error => Self::error(
                answer.code.unwrap_or(Code::LlmFailed),
                "The answer failed; what there is of it is kept.",
            ),
            finish_reason => Self::Done {
                finish_reason,
                usage: answer.usage,
                context: answer.context,
                model: answer.model.clone(),
                provider: answer.provider.clone(),
            },
        }
    }

    pub fn is_interrupted(&self) -> bool {
        matches!(self, Self::Error { code: Code::Interrupted, .. })
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IdempotencyRecord {
    /// The answer of the turn that it started, or of that turn's last run.
    pub id: MessageId,
    pub session: SessionId,
    /// The fencing number of that turn: while it is the session's, the turn is the last of its session.
    pub fence: u64,
    /// SHA-256 of the request, hexadecimal: another body under the same key is refused.
    pub body: String,
}

//! What is stored: messages, sessions and the turn that is open in one. Each record carries a version.

use common::{errors::Code, store::Bytes};
use serde::{Deserialize, Deserializer, Serialize};

use crate::domain::{Context, FinishReason, MessageId, Role, SessionId, Usage};

/// The version that new records carry; a reader skips what it does not know.
pub const VERSION: u8 = 1;

/// A message as it stands in a session's list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessageRecord {
    /// [`VERSION`].
    pub v: u8,
    /// Its id.
    pub id: MessageId,
    /// Who said it: `user` or `assistant`.
    pub role: Role,
    /// The text, byte for byte.
    pub content: String,
    /// When it was stored: Unix milliseconds.
    pub at: i64,
    /// Of an answer: the thoughts before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<String>,
    /// Of an answer: what is particular to it.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<AnswerFacts>,
}

impl MessageRecord {
    /// How much text it holds, in bytes.
    pub fn size(&self) -> usize {
        self.content.len() + self.thinking.as_ref().map_or(0, String::len)
    }
}

/// What an answer has beside its text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnswerFacts {
    /// The user's message that it answers.
    pub reply_to: MessageId,
    /// The model that made it.
    pub model: String,
    /// The provider that ran the model.
    pub provider: String,
    /// How it ended.
    pub finish_reason: FinishReason,
    /// What it cost.
    pub usage: Usage,
    /// How the prompt fitted.
    pub context: Context,
    /// With `error` and `interrupted`: the code that the stream ended with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
}

/// A session as it is kept beside its list of messages: one value, so that a change of it is one comparison and one write.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// [`VERSION`].
    pub v: u8,
    /// Which life of the id this is.
    pub incarnation: String,
    /// Its title.
    pub title: String,
    /// The model for its turns, where one was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The model of its last turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_model: Option<String>,
    /// Its system prompt, where one was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// When it was begun: Unix milliseconds.
    pub created_at: i64,
    /// When a turn was last accepted in it: Unix milliseconds.
    pub updated_at: i64,
    /// How many turns were ever accepted in it: the fencing number of the last.
    pub fence: u64,
    /// The turn that is being answered. What stands there and is no turn of ours cannot be closed by anybody, and counts
    /// as none.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "turn_or_none"
    )]
    pub open: Option<OpenTurn>,
    /// Whether its keys were given a time to live.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expires: bool,
    /// How many messages its list has: counted there, and not kept here.
    #[serde(skip)]
    pub count: u64,
    /// This record as the store has it, which a change compares; empty where the session is still to begin.
    #[serde(skip)]
    pub stored: Bytes,
}

fn turn_or_none<'de, D: Deserializer<'de>>(stored: D) -> Result<Option<OpenTurn>, D::Error> {
    let stored = serde_json::Value::deserialize(stored)?;
    Ok(serde_json::from_value(stored).ok())
}

/// The turn that a session is answering: who closes it finds everything here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenTurn {
    /// [`VERSION`].
    pub v: u8,
    /// The answer's id; it holds the position at which the answer will stand.
    pub id: MessageId,
    /// The fencing number.
    pub fence: u64,
    /// The user's message.
    pub reply_to: MessageId,
    /// The answer that this one replaces when it has text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<MessageId>,
    /// Whether the old answer stays where this one fails: it was good, and the caller only wanted another.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub regenerates: bool,
    /// The model asked.
    pub model: String,
    /// The provider tried first.
    pub provider: String,
    /// Whether an idempotency key remembers it: its record is then kept as long as the key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keyed: bool,
    /// Tokens reserved of the day's quota, and the day (`YYYYMMDD`, UTC).
    pub reserved: u64,
    /// The day on which the turn counts.
    pub day: String,
    /// The window of the provider tried first.
    pub window: u32,
}

/// How a turn went, by its answer's id: kept for a while after its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TurnRecord {
    /// [`VERSION`].
    pub v: u8,
    /// Its session.
    pub session: SessionId,
    /// The user's message.
    pub reply_to: MessageId,
    /// The model asked.
    pub model: String,
    /// The provider tried first.
    pub provider: String,
    /// How it ended; absent where its acceptance was given up before it was known to be applied: it must never be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
}

/// How a turn ended: what its last event says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Ending {
    /// With an answer, whole or stopped.
    Done {
        /// `stop`, `length` or `cancelled`.
        finish_reason: FinishReason,
        /// What it cost.
        usage: Usage,
        /// How the prompt fitted.
        context: Context,
        /// The model that answered.
        model: String,
        /// The provider that ran it.
        provider: String,
    },
    /// Without one, or with a part of one.
    Error {
        /// Why.
        code: Code,
        /// What the caller is told.
        detail: String,
    },
}

impl Ending {
    /// Of a turn whose process died or was stopped.
    pub fn interrupted() -> Self {
        Self::Error {
            code: Code::Interrupted,
            detail: "The answer was interrupted; what there is of it is kept. Send the message again to go on.".into(),
        }
    }

    /// Whether the turn's process died or was stopped.
    pub fn is_interrupted(&self) -> bool {
        matches!(
            self,
            Self::Error {
                code: Code::Interrupted,
                ..
            }
        )
    }
}

/// What an idempotency key remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// [`VERSION`].
    pub v: u8,
    /// The answer of the turn that it made, or of that turn's last run.
    pub id: MessageId,
    /// The session.
    pub session: SessionId,
    /// The fencing number of that turn: while it is the session's, the turn is the last of its session.
    pub fence: u64,
    /// SHA-256 of the request, hexadecimal: another body under the same key is refused.
    pub body: String,
}

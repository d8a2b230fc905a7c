//! Messages of a conversation.

use common::errors::Code;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::MessageId;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    User,
    Assistant,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    #[default]
    Stop,
    /// `max_tokens`, the context window, or the largest answer was reached.
    Length,
    /// Somebody cancelled it, or nobody was subscribed any more.
    Cancelled,
    /// The model server failed.
    Error,
    /// The process that generated it died or was stopped.
    Interrupted,
    /// The model asks for tools to be called; only without a session.
    ToolCalls,
    /// The model server withheld the rest; with a session a failure.
    ContentFilter,
}

impl FinishReason {
    /// Whether the answer ended before the model had finished it.
    pub fn is_cut(self) -> bool {
        matches!(self, Self::Length | Self::ContentFilter)
    }
}

/// Tokens as the model server counted them, or estimates where it did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    pub prompt_tokens: u64,
    /// Includes the tokens of thoughts.
    pub completion_tokens: u64,
}

/// How the prompt fitted the model's context window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Context {
    /// The window, in tokens.
    pub window: u32,
    /// How many earlier messages did not fit and were left out.
    pub dropped_messages: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub id: MessageId,
    /// `user` or `assistant`.
    pub role: Role,
    pub content: String,
    /// When it was stored: Unix milliseconds.
    pub at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<String>,
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<AnswerInfo>,
}

impl Message {
    /// Bytes of text.
    pub fn size(&self) -> usize {
        self.content.len() + self.thinking.as_ref().map_or(0, String::len)
    }
}

/// What an answer has beside its text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnswerInfo {
    pub reply_to: MessageId,
    pub model: String,
    pub provider: String,
    pub finish_reason: FinishReason,
    pub usage: Usage,
    pub context: Context,
    /// The code that the stream ended with, for `error` and `interrupted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
}

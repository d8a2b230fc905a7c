//! The words of the chat service: what a turn, an answer and its parts are.

pub use crate::domain::ids::{MessageId, SessionId, new_incarnation, random_text};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub mod error;
pub mod event;
pub mod ids;
pub mod records;

/// Who said something in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The frame of the conversation, set by the caller or the operator.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model was done.
    Stop,
    /// A limit was reached: `max_tokens`, the window, or the largest answer.
    Length,
    /// Somebody stopped it, or nobody watched it any more.
    Cancelled,
    /// The model server failed.
    Error,
    /// The process that made it died or was stopped.
    Interrupted,
    /// The model asks for tools to be called; on `/v1` alone.
    ToolCalls,
    /// The model server withheld the rest; on `/v1` alone, elsewhere told as `stop`.
    ContentFilter,
}

/// Tokens as the model server counted them, or estimates where it did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Tokens read.
    pub prompt_tokens: u64,
    /// Tokens written, thoughts included.
    pub completion_tokens: u64,
}

/// How the prompt fitted the model's window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Context {
    /// The window, in tokens.
    pub window: u32,
    /// How many earlier messages did not fit and were left out.
    pub dropped_messages: u64,
}

/// What a caller may ask of the sampling.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// 0 to 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 2)]
    pub temperature: Option<f64>,
    /// Above 0, up to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub top_p: Option<f64>,
    /// At least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub top_k: Option<u32>,
    /// Longest answer in tokens, at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub max_tokens: Option<u32>,
    /// Makes sampling repeatable where the server can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// Texts that end the answer, at most 16 of at most 256 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 16)]
    pub stop: Option<Vec<String>>,
    /// Whether a thinking model thinks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub think: Option<bool>,
}

//! What Anthropic's clients send.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    domain::options::{off_below_one, stop_texts, unlimited_below_zero},
    http::anthropic::blocks::{ContentBlock, blocks},
};

/// A conversation to be answered. Members that are not known here are ignored, as are those that only make sense at
/// Anthropic (`metadata`, `service_tier`, `context_management`, `cache_control`, …).
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"max_tokens": 1024, "messages": [{"role": "user", "content": "Hello!"}]}))]
pub struct CreateMessage {
    /// The model; the default one where none is named.
    pub(super) model: Option<String>,
    /// The conversation, oldest message first.
    pub(super) messages: Vec<InputMessage>,
    /// The system prompt: a text, or text blocks.
    #[serde(default, deserialize_with = "blocks")]
    #[schema(value_type = Option<Value>)]
    pub(super) system: Vec<ContentBlock>,
    /// Longest answer in tokens; without it, or with -1, what the window leaves.
    #[serde(default, deserialize_with = "unlimited_below_zero")]
    #[schema(value_type = Option<f64>, multiple_of = 1.0)]
    pub(super) max_tokens: Option<u32>,
    pub(super) stream: Option<bool>,
    /// Texts that end the answer, at most 16 of at most 256 characters.
    #[serde(default, deserialize_with = "stop_texts")]
    #[schema(value_type = Option<Value>)]
    pub(super) stop_sequences: Option<Vec<String>>,
    /// 0 to 2.
    pub(super) temperature: Option<f64>,
    /// 0 to 1.
    pub(super) top_p: Option<f64>,
    /// 0 and -1 are no limit.
    #[serde(default, deserialize_with = "off_below_one")]
    #[schema(value_type = Option<f64>, multiple_of = 1.0)]
    pub(super) top_k: Option<u32>,
    /// Functions that the model may call, `{name, description, input_schema}`; what Anthropic's own servers would run is left out.
    pub(super) tools: Option<Vec<Value>>,
    /// `{type: "auto" | "any" | "none"}` or `{type: "tool", name}`, each with `disable_parallel_tool_use`.
    pub(super) tool_choice: Option<Value>,
    /// `{type: "enabled" | "adaptive" | "disabled"}`; ignored by a model that does not think.
    pub(super) thinking: Option<Value>,
    /// `effort`: `low`, `medium`, `high`, `xhigh` or `max`; `format`: `{type: "json_schema", schema}`, the form that the
    /// answer must have.
    pub(super) output_config: Option<Value>,
    /// The older place of `output_config.format`.
    pub(super) output_format: Option<Value>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct InputMessage {
    pub(super) role: InputRole,
    /// A text, or blocks: `text`, `image`, `document`, `tool_use`, `tool_result`, `thinking`, …
    #[serde(deserialize_with = "blocks")]
    #[schema(value_type = Value)]
    pub(super) content: Vec<ContentBlock>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum InputRole {
    User,
    Assistant,
    System,
}

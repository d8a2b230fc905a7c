//! What OpenAI's SDKs send for a completion: read tolerantly, checked where a wrong value would only fail later.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    domain::options::{off_below_one, stop_schema, stop_texts, unlimited_below_zero},
    http::openai::conversation::RequestMessage,
};

/// A conversation to be answered. Members that are not known here go on to OpenAI-compatible servers as they came; others ignore them.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(example = json!({"messages": [{"role": "user", "content": "Hello!"}]}))]
pub struct CreateChatCompletion {
    /// The model; the default one where none is named.
    pub(super) model: Option<String>,
    /// The conversation, oldest message first.
    pub(super) messages: Vec<RequestMessage>,
    /// Whether the answer is streamed.
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<StreamOptions>,
    /// Longest answer in tokens; the older name. -1 is none.
    #[serde(default, deserialize_with = "unlimited_below_zero")]
    #[schema(value_type = Option<i64>, minimum = -1, maximum = 1_000_000)]
    pub(super) max_tokens: Option<u32>,
    /// Longest answer in tokens. -1 is none.
    #[serde(default, deserialize_with = "unlimited_below_zero")]
    #[schema(value_type = Option<i64>, minimum = -1, maximum = 1_000_000)]
    pub(super) max_completion_tokens: Option<u32>,
    /// 0 to 2.
    pub(super) temperature: Option<f64>,
    /// 0 to 1.
    pub(super) top_p: Option<f64>,
    /// Not OpenAI's, but many servers have it. -1 and 0 are none.
    #[serde(default, deserialize_with = "off_below_one")]
    #[schema(value_type = Option<i64>, minimum = -1, maximum = 1000)]
    pub(super) top_k: Option<u32>,
    /// How many answers: 1.
    pub(super) n: Option<i64>,
    /// Makes sampling repeatable where the server can.
    pub(super) seed: Option<i64>,
    /// A text that ends the answer, or several.
    #[serde(default, deserialize_with = "stop_texts")]
    #[schema(schema_with = stop_schema)]
    pub(super) stop: Option<Vec<String>>,
    pub(super) presence_penalty: Option<Value>,
    pub(super) frequency_penalty: Option<Value>,
    pub(super) logit_bias: Option<Value>,
    /// `{type: "text"}`, `{type: "json_object"}`, or `{type: "json_schema", json_schema}`.
    pub(super) response_format: Option<Value>,
    /// Functions that the model may call.
    pub(super) tools: Option<Value>,
    pub(super) tool_choice: Option<Value>,
    /// The older form of `tools`, and that of `tool_choice`.
    pub(super) functions: Option<Value>,
    pub(super) function_call: Option<Value>,
    pub(super) parallel_tool_calls: Option<Value>,
    pub(super) reasoning_effort: Option<Value>,
    pub(super) verbosity: Option<Value>,
    pub(super) prediction: Option<Value>,
    #[serde(flatten)]
    #[schema(ignore)]
    pub(super) unknown: Map<String, Value>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
pub struct StreamOptions {
    /// Whether a last chunk tells what the answer cost.
    pub(super) include_usage: Option<bool>,
}

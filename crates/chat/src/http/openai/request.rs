//! What OpenAI's SDKs send for a completion: read tolerantly, checked where a wrong value would only fail later.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::http::openai::conversation::RequestMessage;

/// A conversation to be answered. Members that are not known here are ignored, as are those that only make sense at
/// OpenAI (`store`, `metadata`, `user`, `service_tier`, `logprobs`, …).
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct CreateChatCompletion {
    /// The model; the default one where none is named.
    #[serde(default)]
    pub(super) model: Option<String>,
    /// The conversation, oldest message first.
    pub(super) messages: Vec<RequestMessage>,
    /// Whether the answer is streamed.
    #[serde(default)]
    pub(super) stream: Option<bool>,
    #[serde(default)]
    pub(super) stream_options: Option<StreamOptions>,
    /// Longest answer in tokens; the older name.
    #[serde(default)]
    pub(super) max_tokens: Option<u32>,
    /// Longest answer in tokens.
    #[serde(default)]
    pub(super) max_completion_tokens: Option<u32>,
    /// 0 to 2.
    #[serde(default)]
    pub(super) temperature: Option<f64>,
    /// 0 to 1.
    #[serde(default)]
    pub(super) top_p: Option<f64>,
    /// At least 1; not OpenAI's, but many servers have it.
    #[serde(default)]
    pub(super) top_k: Option<u32>,
    /// How many answers: 1.
    #[serde(default)]
    pub(super) n: Option<i64>,
    /// Makes sampling repeatable where the server can.
    #[serde(default)]
    pub(super) seed: Option<i64>,
    /// A text that ends the answer, or several.
    #[serde(default)]
    pub(super) stop: Option<Value>,
    #[serde(default)]
    pub(super) presence_penalty: Option<Value>,
    #[serde(default)]
    pub(super) frequency_penalty: Option<Value>,
    #[serde(default)]
    pub(super) logit_bias: Option<Value>,
    /// `{type: "text"}`, `{type: "json_object"}`, or `{type: "json_schema", json_schema}`.
    #[serde(default)]
    pub(super) response_format: Option<Value>,
    /// Functions that the model may call.
    #[serde(default)]
    pub(super) tools: Option<Value>,
    #[serde(default)]
    pub(super) tool_choice: Option<Value>,
    #[serde(default)]
    pub(super) parallel_tool_calls: Option<Value>,
    #[serde(default)]
    pub(super) reasoning_effort: Option<Value>,
    #[serde(default)]
    pub(super) verbosity: Option<Value>,
    #[serde(default)]
    pub(super) prediction: Option<Value>,
}

/// How a stream is wanted.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
pub struct StreamOptions {
    /// Whether a last chunk tells what the answer cost.
    #[serde(default)]
    include_usage: Option<bool>,
}

/// How the answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseMode {
    /// Streamed.
    pub stream: bool,
    /// With a chunk of usage at the end.
    pub with_usage: bool,
}

impl CreateChatCompletion {
    /// How the answer is wanted.
    pub fn mode(&self) -> ResponseMode {
        let options = self.stream_options.unwrap_or_default();
        ResponseMode {
            stream: self.stream.unwrap_or(false),
            with_usage: options.include_usage.unwrap_or(false),
        }
    }
}

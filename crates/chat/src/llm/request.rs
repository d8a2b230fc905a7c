//! What a model server is asked.

use std::sync::Arc;

use crate::domain::Options;

/// What makes the request once a provider's turn has come: called once for each provider tried, since windows differ.
pub trait Prompt: Send + Sync {
    /// The request for that model and window.
    fn fit(&self, model: &str, window: u32) -> ChatRequest;
}

/// One message of a prompt, in the OpenAI form, which the Ollama adapter translates.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptMessage {
    /// `system`, `user`, `assistant`, or on `/v1` also `tool`.
    pub role: String,
    /// Its text.
    pub content: String,
    /// On `/v1` alone: everything else of the message (`tool_calls`, `tool_call_id`, `name`, and `content` as parts), as sent.
    pub extra: Option<serde_json::Map<String, serde_json::Value>>,
}

/// One request to a model server.
#[derive(Clone, Debug, Default)]
pub struct ChatRequest {
    /// The model.
    pub model: String,
    /// The messages that fit, oldest first.
    pub messages: Vec<PromptMessage>,
    /// The caller's options.
    pub options: Options,
    /// The window in tokens.
    pub window: u32,
    /// Our estimate of the prompt's tokens.
    pub prompt_estimate: u32,
    /// How many earlier messages were left out.
    pub dropped: u64,
    /// On `/v1` alone: the prompt goes as the caller made it; a server that would cut it silently is told not to.
    pub untrimmed: bool,
    /// On `/v1` alone: members passed through to servers that have them (`tools`, `tool_choice`, `response_format`, …).
    pub extra: serde_json::Map<String, serde_json::Value>,
    /// The id of the caller's request, passed on so that the server's log can be searched by it; empty: none is sent.
    pub request_id: Arc<str>,
}

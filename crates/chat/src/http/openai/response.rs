//! The answer of a completion as OpenAI's SDKs read it.

use common::clock;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::{FinishReason, Usage, random_text},
    llm::{Chunk, ToolCall},
};

/// A whole answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatCompletion {
    id: String,
    object: &'static str,
    /// Unix seconds.
    created: i64,
    model: String,
    choices: [CompletionChoice; 1],
    usage: Tokens,
}

/// The answer itself.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CompletionChoice {
    index: u32,
    message: CompletionMessage,
    /// Always null: not counted here.
    #[schema(value_type = Option<Object>)]
    logprobs: (),
    /// `stop`, `length`, `tool_calls` or `content_filter`.
    finish_reason: &'static str,
}

/// What the model said.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct CompletionMessage {
    role: &'static str,
    /// The text; null where there are only tool calls.
    content: Option<String>,
    #[schema(value_type = Option<String>)]
    refusal: (),
    /// The thoughts before it, of a model that thinks.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCallObject>,
}

/// A tool call.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ToolCallObject {
    /// Its place, in chunks alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    function: FunctionObject,
}

/// What is to be called.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FunctionObject {
    name: String,
    /// A JSON document as text.
    arguments: String,
}

/// What it cost.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Tokens {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

impl From<Usage> for Tokens {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens.saturating_add(usage.completion_tokens),
        }
    }
}

impl ToolCallObject {
    pub(super) fn new(call: ToolCall, index: Option<usize>) -> Self {
        Self {
            index,
            id: call.id,
            kind: "function",
            function: FunctionObject {
                name: call.name,
                arguments: call.arguments,
            },
        }
    }
}

/// The word for how it ended.
pub(super) fn finish_word(finish: FinishReason) -> &'static str {
    match finish {
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::ContentFilter => "content_filter",
        FinishReason::Stop
        | FinishReason::Cancelled
        | FinishReason::Error
        | FinishReason::Interrupted => "stop",
    }
}

/// A new id for an answer.
pub(super) fn new_id() -> String {
    format!("chatcmpl-{}", random_text(26))
}

/// Gathers the parts of a completion into one answer.
#[derive(Debug, Default)]
pub struct CompletionCollector {
    model: String,
    text: String,
    thinking: String,
    calls: Vec<ToolCallObject>,
}

impl CompletionCollector {
    /// Takes a part in; the answer, where it was the last.
    pub fn take(&mut self, chunk: Chunk) -> Option<ChatCompletion> {
        match chunk {
            Chunk::Queued { .. } => {}
            Chunk::Started { model, .. } => self.model = model,
            Chunk::Thinking(text) => self.thinking.push_str(&text),
            Chunk::Text(text) => self.text.push_str(&text),
            Chunk::ToolCall(call) => self.calls.push(ToolCallObject::new(call, None)),
            Chunk::End { finish, usage } => {
                return Some(std::mem::take(self).answer(finish, usage.unwrap_or_default()));
            }
        }
        None
    }

    fn answer(self, finish: FinishReason, usage: Usage) -> ChatCompletion {
        let only_calls = self.text.is_empty() && !self.calls.is_empty();
        let message = CompletionMessage {
            role: "assistant",
            content: (!only_calls).then_some(self.text),
            reasoning_content: Some(self.thinking).filter(|thoughts| !thoughts.is_empty()),
            tool_calls: self.calls,
            refusal: (),
        };
        let choice = CompletionChoice {
            index: 0,
            message,
            logprobs: (),
            finish_reason: finish_word(finish),
        };
        ChatCompletion {
            id: new_id(),
            object: "chat.completion",
            created: clock::now_s(),
            model: self.model,
            choices: [choice],
            usage: usage.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_answer_is_an_empty_text() {
        let end = Chunk::End {
            finish: FinishReason::Stop,
            usage: None,
        };
        let answer = CompletionCollector::default().take(end);
        assert_eq!(json!(answer)["choices"][0]["message"]["content"], "");
    }
}

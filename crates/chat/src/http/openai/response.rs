//! The answer of a completion as OpenAI's SDKs read it.

use common::clock;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::{FinishReason, Usage, random_text},
    http::inference::{AnswerEnd, CollectedAnswer, collected_answer::merged},
    llm::{ToolCall, UsageDetails},
};

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

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FunctionObject {
    name: String,
    /// A JSON document as text.
    arguments: String,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Tokens {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptTokenDetails,
    /// Where the model server tells of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_tokens_details: Option<CompletionTokenDetails>,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct PromptTokenDetails {
    /// Tokens that the model server had in its cache; 0 where it does not tell.
    cached_tokens: u64,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct CompletionTokenDetails {
    /// Tokens of thoughts.
    reasoning_tokens: u64,
}

impl From<&AnswerEnd> for Tokens {
    fn from(end: &AnswerEnd) -> Self {
        let Usage { prompt_tokens, completion_tokens } = end.usage;
        let UsageDetails { cached_tokens, reasoning_tokens, .. } = end.details;
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens.saturating_add(completion_tokens),
            prompt_tokens_details: PromptTokenDetails { cached_tokens },
            completion_tokens_details: reasoning_tokens
                .map(|reasoning_tokens| CompletionTokenDetails { reasoning_tokens }),
        }
    }
}

impl ToolCallObject {
    pub(super) fn new(call: ToolCall, index: Option<usize>) -> Self {
        Self {
            index,
            id: call.id,
            kind: "function",
            function: FunctionObject { name: call.name, arguments: call.arguments },
        }
    }
}

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

pub(super) fn new_id() -> String {
    format!("chatcmpl-{}", random_text(26))
}

impl From<CollectedAnswer> for ChatCompletion {
    fn from(answer: CollectedAnswer) -> Self {
        let CollectedAnswer { model, items, end, .. } = answer;
        let (text, thoughts, calls) = merged(items);
        let message = CompletionMessage {
            role: "assistant",
            content: Some(text).filter(|text| !text.is_empty() || calls.is_empty()),
            reasoning_content: Some(thoughts).filter(|thoughts| !thoughts.is_empty()),
            tool_calls: calls.into_iter().map(|call| ToolCallObject::new(call, None)).collect(),
            refusal: (),
        };
        let finish_reason = finish_word(end.finish);
        let choice = CompletionChoice { index: 0, message, logprobs: (), finish_reason };
        ChatCompletion {
            id: new_id(),
            object: "chat.completion",
            created: clock::now_s(),
            model,
            choices: [choice],
            usage: Tokens::from(&end),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_answer_is_an_empty_text() {
        let answer = ChatCompletion::from(CollectedAnswer::default());
        assert_eq!(json!(answer)["choices"][0]["message"]["content"], "");
    }
}

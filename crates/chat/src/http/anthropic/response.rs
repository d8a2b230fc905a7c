//! The answer as Anthropic's SDKs read it. Members that are always null here are there since strict clients want to see them.

use serde_json::{Value, json};

use crate::{
    domain::{FinishReason, Usage, random_text},
    http::inference::{AnswerEnd, AnswerItem, CollectedAnswer, content::arguments},
};

/// Stands where Anthropic signs thoughts; nothing here reads it. Some clients send back only thoughts that have one.
pub(super) const SIGNATURE: &str = "bm90IHNpZ25lZA==";

pub(super) fn message(answer: &CollectedAnswer) -> Value {
    let CollectedAnswer { model, items, end, .. } = answer;
    let has_calls = items.iter().any(|item| matches!(item, AnswerItem::ToolCall(_)));
    let blocks: Vec<_> = items.iter().map(|item| block(item, Some(end.finish))).collect();
    let mut message = begun(model, usage(end.usage, end.details.cached_tokens));
    message["content"] = blocks.into();
    let mut stop = stop(end, has_calls);
    for member in ["stop_reason", "stop_sequence"] {
        message[member] = stop[member].take();
    }
    message
}

/// An answer of which nothing has been said yet.
pub(super) fn begun(model: &str, usage: Value) -> Value {
    json!({
        "id": format!("msg_{}", random_text(24)),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
        "stop_details": null,
        "container": null,
        "usage": usage,
    })
}

/// A content block of an answer that ended so; while it goes on, the block's beginning.
pub(super) fn block(item: &AnswerItem, finish: Option<FinishReason>) -> Value {
    match item {
        // No `citations`: clients that read a list refuse null.
        AnswerItem::Text(text) => json!({ "type": "text", "text": text }),
        AnswerItem::Thinking(thoughts) => {
            let signature = if finish.is_some() { SIGNATURE } else { "" };
            json!({ "type": "thinking", "thinking": thoughts, "signature": signature })
        }
        AnswerItem::ToolCall(call) => {
            // Half of the arguments says nothing that a tool could be run with.
            let input = match (finish, arguments(call)) {
                (Some(_), Ok(input)) => input,
                (Some(finish), Err(broken)) if !finish.is_cut() => broken,
                _ => json!({}),
            };
            json!({ "type": "tool_use", "id": call.id, "name": call.name, "input": input,
                "caller": { "type": "direct" } })
        }
    }
}

/// Why it ended, and the stop sequence where one ended it and the model server tells which.
pub(super) fn stop(end: &AnswerEnd, has_calls: bool) -> Value {
    let mut sequence = None;
    let reason = match end.finish {
        FinishReason::Length => "max_tokens",
        FinishReason::ContentFilter => "refusal",
        FinishReason::ToolCalls => "tool_use",
        _ if has_calls => "tool_use",
        _ if end.stop_sequence.is_some() => {
            sequence.clone_from(&end.stop_sequence);
            "stop_sequence"
        }
        _ => "end_turn",
    };
    json!({ "stop_details": null, "container": null, "stop_reason": reason, "stop_sequence": sequence })
}

/// The cost in tokens. All kinds of input together are the prompt, at least 1 of them not from a cache.
pub(super) fn usage(usage: Usage, cached_tokens: u64) -> Value {
    let prompt = usage.prompt_tokens.max(1);
    let cached = cached_tokens.min(prompt - 1);
    json!({
        "input_tokens": prompt - cached,
        // Model servers do not tell.
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.completion_tokens,
        "cache_creation": null,
        "inference_geo": null,
        "output_tokens_details": null,
        "server_tool_use": null,
        "service_tier": null,
    })
}

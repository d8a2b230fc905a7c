//! The response object and its items. Members that may be null are present: clients' schemas ask for them.

use common::{
    clock,
    errors::{ApiError, Code},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    domain::{FinishReason, Usage, random_text},
    http::{
        inference::{AnswerEnd, AnswerItem, errors::is_soon},
        openai::responses::{input::encode_thoughts, request::CreateResponse},
    },
    llm::UsageDetails,
};

pub(super) const IN_PROGRESS: &str = "in_progress";

/// A response that grows: what it repeats of its request, and its items.
#[derive(Serialize)]
pub(super) struct ResponseObject {
    #[serde(flatten)]
    members: Map<String, Value>,
    /// Whether thoughts are wanted in the form in which they can be sent again.
    #[serde(skip)]
    encodes_thoughts: bool,
    pub(super) output: Vec<Value>,
}

impl ResponseObject {
    pub(super) fn of(request: &CreateResponse) -> Self {
        let reasoning = |name: &str| request.reasoning.as_ref()?.get(name);
        let mut text = request.text.clone().unwrap_or_default();
        text.retain(|_, value| !value.is_null());
        text.entry("format").or_insert_with(|| json!({ "type": "text" }));
        let tools = request.tools.iter().flatten().map(echoed_tool);
        let members = json!({
            "id": format!("resp_{}", random_text(26)),
            "object": "response",
            "created_at": clock::now_s(),
            "completed_at": null,
            "status": IN_PROGRESS,
            "error": null,
            "incomplete_details": null,
            "model": request.model,
            "usage": null,
            "background": false,
            "frequency_penalty": 0.0,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "max_tool_calls": null,
            "metadata": request.metadata.clone().unwrap_or_default(),
            "parallel_tool_calls": request.parallel_tool_calls.unwrap_or(true),
            "presence_penalty": 0.0,
            "previous_response_id": null,
            "prompt_cache_key": request.prompt_cache_key,
            "reasoning": { "effort": reasoning("effort"), "summary": reasoning("summary") },
            "safety_identifier": request.safety_identifier,
            "service_tier": "default",
            "store": false,
            "temperature": request.temperature.unwrap_or(1.0),
            "text": text,
            "tool_choice": request.tool_choice.clone().unwrap_or_else(|| "auto".into()),
            "tools": tools.collect::<Vec<_>>(),
            "top_logprobs": 0,
            "top_p": request.top_p.unwrap_or(1.0),
            "truncation": request.truncation.as_deref().unwrap_or("disabled"),
            "user": request.user,
        });
        let mut include = request.include.iter().flatten();
        Self {
            members: match members {
                Value::Object(members) => members,
                _ => Map::new(),
            },
            encodes_thoughts: include.any(|name| name == "reasoning.encrypted_content"),
            output: Vec::new(),
        }
    }

    pub(super) fn set(&mut self, member: &str, value: impl Into<Value>) {
        self.members.insert(member.to_owned(), value.into());
    }

    /// Sets how it ended; returns the name of the event that says so.
    pub(super) fn finish(&mut self, finish: FinishReason, usage: Value) -> &'static str {
        self.set("usage", usage);
        let reason = match finish {
            FinishReason::Length => "max_output_tokens",
            FinishReason::ContentFilter => "content_filter",
            _ => {
                self.set("status", "completed");
                self.set("completed_at", clock::now_s());
                return "response.completed";
            }
        };
        self.set("status", "incomplete");
        self.set("incomplete_details", json!({ "reason": reason }));
        "response.incomplete"
    }

    /// Sets the failure in OpenAI's words, by which clients decide whether they try again.
    pub(super) fn fail(&mut self, error: &ApiError) {
        let (code, advice) = match error.code {
            Code::ContextTooLong => ("context_length_exceeded", String::new()),
            Code::QuotaExceeded if !is_soon(error.retry_after) => {
                ("insufficient_quota", String::new())
            }
            Code::QuotaExceeded | Code::RateLimited | Code::QueueFull | Code::Overloaded => {
                let wait = error.retry_after.map_or(1, |wait| wait.as_secs().max(1));
                ("rate_limit_exceeded", format!(" Please try again in {wait}s."))
            }
            _ => ("server_error", String::new()),
        };
        let message = format!("{}{advice}", error.detail);
        self.set("status", "failed");
        self.set("error", json!({ "code": code, "message": message }));
    }

    /// An item of the output; while it is in progress, its beginning.
    pub(super) fn item(&self, id: &str, item: &AnswerItem, status: &str) -> Value {
        let has_ended = status != IN_PROGRESS;
        let parts: Vec<_> = has_ended.then(|| part(item)).into_iter().collect();
        match item {
            AnswerItem::Thinking(text) => {
                let mut item = json!({ "type": "reasoning", "id": id, "status": status,
                    "summary": parts, "content": [] });
                if has_ended && self.encodes_thoughts {
                    item["encrypted_content"] = encode_thoughts(text).into();
                }
                item
            }
            AnswerItem::Text(_) => json!({ "type": "message", "id": id, "status": status,
                "role": "assistant", "content": parts }),
            AnswerItem::ToolCall(call) => {
                let arguments = if has_ended { &*call.arguments } else { "" };
                json!({ "type": "function_call", "id": id, "status": status, "call_id": call.id,
                    "name": call.name, "arguments": arguments })
            }
        }
    }
}

/// The part of an item that has its text.
pub(super) fn part(item: &AnswerItem) -> Value {
    match item {
        AnswerItem::Thinking(text) => json!({ "type": "summary_text", "text": text }),
        AnswerItem::Text(text) => {
            json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
        }
        AnswerItem::ToolCall(_) => Value::Null,
    }
}

pub(super) fn new_id(item: &AnswerItem) -> String {
    let prefix = match item {
        AnswerItem::Thinking(_) => "rs",
        AnswerItem::Text(_) => "msg",
        AnswerItem::ToolCall(_) => "fc",
    };
    format!("{prefix}_{}", random_text(26))
}

pub(super) fn usage(end: &AnswerEnd) -> Value {
    let Usage { prompt_tokens, completion_tokens } = end.usage;
    let UsageDetails { cached_tokens, reasoning_tokens, estimated_reasoning, .. } = end.details;
    json!({
        "input_tokens": prompt_tokens,
        "input_tokens_details": { "cached_tokens": cached_tokens },
        "output_tokens": completion_tokens,
        "output_tokens_details": { "reasoning_tokens": reasoning_tokens.unwrap_or(estimated_reasoning) },
        "total_tokens": prompt_tokens.saturating_add(completion_tokens),
    })
}

/// A tool with every member that a function has.
fn echoed_tool(tool: &Value) -> Value {
    let mut tool = tool.clone();
    if tool["type"] == "function" {
        for member in ["description", "parameters", "strict"] {
            // Indexing adds what is missing as null.
            let _ = &mut tool[member];
        }
    }
    tool
}

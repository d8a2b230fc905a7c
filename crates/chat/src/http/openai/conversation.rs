//! The conversation that a completion answers, as OpenAI's SDKs send it.

use common::errors::ApiError;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    http::inference::checks::{ValueCheck, check},
    llm::PromptMessage,
};

#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct RequestMessage {
    /// `system`, `developer`, `user`, `assistant`, `tool` or `function`.
    role: String,
    /// A text, parts (`text`, `image_url`, …), or null beside tool calls.
    content: Option<Value>,
    name: Option<Value>,
    tool_calls: Option<Value>,
    tool_call_id: Option<Value>,
    function_call: Option<Value>,
    refusal: Option<Value>,
    /// The thoughts of an earlier answer, for models that want them back.
    reasoning_content: Option<Value>,
}

const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];
/// Parts that some server takes; `video_url` and `audio_url` are vLLM's.
const PARTS: [&str; 7] =
    ["text", "refusal", "image_url", "input_audio", "file", "video_url", "audio_url"];

impl RequestMessage {
    /// The message in our words; `index` is its place.
    ///
    /// # Errors
    /// The first wrong value is named.
    pub fn checked(self, index: usize) -> Result<PromptMessage, ApiError> {
        let at = |member: &str| format!("/messages/{index}/{member}");
        check(
            ROLES.contains(&self.role.as_str()),
            &at("role"),
            "This must be system, developer, user, assistant, tool or function.",
        )?;
        let mut extra = Map::new();
        // An empty list says nothing, and some servers refuse it.
        let is_empty = |calls: &Value| calls.as_array().is_some_and(Vec::is_empty);
        let tool_calls = self.tool_calls.filter(|calls| !is_empty(calls));
        let content = match self.content {
            Some(Value::String(text)) => text,
            Some(Value::Array(parts)) => match text_of(&parts, &at("content"))? {
                Some(text) => text,
                None => {
                    extra.insert("content".to_owned(), Value::Array(parts));
                    String::new()
                }
            },
            None if self.role == "assistant" => {
                if tool_calls.is_some() {
                    extra.insert("content".to_owned(), Value::Null);
                }
                String::new()
            }
            None | Some(_) => {
                let detail = "This must be a text or a list of parts.";
                return Err(ApiError::invalid(at("content"), detail));
            }
        };
        let calls: ValueCheck = Value::is_array;
        let members: [(&str, Option<Value>, ValueCheck, &str); 6] = [
            ("name", self.name, Value::is_string, "a text"),
            ("tool_calls", tool_calls, calls, "a list of calls"),
            ("tool_call_id", self.tool_call_id, Value::is_string, "a text"),
            ("function_call", self.function_call, Value::is_object, "an object"),
            ("refusal", self.refusal, Value::is_string, "a text"),
            ("reasoning_content", self.reasoning_content, Value::is_string, "a text"),
        ];
        for (name, value, fits, wanted) in members {
            let Some(value) = value else { continue };
            check(fits(&value), &at(name), &format!("This must be {wanted}."))?;
            extra.insert(name.to_owned(), value);
        }
        Ok(PromptMessage {
            role: self.role.into(),
            content,
            extra: Some(extra).filter(|extra| !extra.is_empty()),
        })
    }
}

/// The text of parts that are all text; `None` where there is anything else among them.
fn text_of(parts: &[Value], pointer: &str) -> Result<Option<String>, ApiError> {
    let (mut text, mut only_text) = (String::new(), true);
    for (i, part) in parts.iter().enumerate() {
        let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
        check(
            PARTS.contains(&kind),
            &format!("{pointer}/{i}/type"),
            "This must be text, image_url, input_audio, file, video_url or audio_url.",
        )?;
        if kind != "text" {
            only_text = false;
            continue;
        }
        let piece = part.get("text").and_then(Value::as_str);
        let wrong = || ApiError::invalid(format!("{pointer}/{i}/text"), "This must be a text.");
        text.push_str(piece.ok_or_else(wrong)?);
    }
    Ok(only_text.then_some(text))
}

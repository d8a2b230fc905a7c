//! The items of a conversation as messages of a chat completion.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use common::errors::ApiError;
use serde_json::{Map, Value, json};

use crate::{
    http::inference::{
        checks::check,
        content::{Content, function_call},
    },
    llm::PromptMessage,
};

/// The conversation: what leads it as one system message, since templates of open models take one alone; a model's thoughts,
/// text and calls as one message.
///
/// # Errors
/// The first wrong value is named.
pub(super) fn messages(
    instructions: Option<String>,
    input: Value,
) -> Result<Vec<PromptMessage>, ApiError> {
    let mut conversation = Conversation::default();
    if let Some(instructions) = instructions.filter(|text| !text.is_empty()) {
        conversation.push(PromptMessage::text("system", instructions));
    }
    match input {
        Value::String(text) => conversation.push(PromptMessage::text("user", text)),
        Value::Array(items) => {
            for (i, item) in items.into_iter().enumerate() {
                conversation.add(item, &format!("/input/{i}"))?;
            }
        }
        _ => check(false, "/input", "This must be a text or a list of items.")?,
    }
    let messages = conversation.messages;
    let is_asked = messages.iter().any(|message| message.role != "system");
    check(is_asked, "/input", "There must be at least one message of the user.")?;
    Ok(messages)
}

/// What base64 holds of a model's thoughts, so that a client can send them again.
pub(super) fn encode_thoughts(thoughts: &str) -> String {
    BASE64.encode(thoughts)
}

#[derive(Default)]
struct Conversation {
    messages: Vec<PromptMessage>,
    /// Thoughts that belong to the model's next message, before anything else is said.
    thoughts: Vec<String>,
    /// Whether the last message is the model's and still grows.
    is_open: bool,
}

impl Conversation {
    fn add(&mut self, item: Value, pointer: &str) -> Result<(), ApiError> {
        let Value::Object(mut item) = item else {
            return Err(ApiError::invalid(pointer, "This must be an item."));
        };
        let kind = item.get("type").and_then(Value::as_str).unwrap_or("message");
        match kind {
            "message" => self.add_message(&mut item, pointer),
            "function_call" => {
                let arguments = match item.get("arguments") {
                    None | Some(Value::Null) => String::new(),
                    Some(Value::String(text)) => text.clone(),
                    Some(object @ Value::Object(_)) => object.to_string(),
                    Some(_) => {
                        let detail = "This must be a JSON object, as a text.";
                        return Err(ApiError::invalid(format!("{pointer}/arguments"), detail));
                    }
                };
                self.add_call(&item, arguments, pointer)
            }
            // A tool with a grammar takes one text.
            "custom_tool_call" => {
                let arguments = json!({ "input": text(&item, "input") }).to_string();
                self.add_call(&item, arguments, pointer)
            }
            "function_call_output" | "custom_tool_call_output" => {
                self.add_output(&mut item, pointer)
            }
            "reasoning" => {
                self.thoughts.extend(thoughts(&item));
                self.is_open = false;
                Ok(())
            }
            "item_reference" => Err(ApiError::invalid(
                pointer,
                "Items are not stored here: send the item itself. In the AI SDK, set `providerOptions: {openai: {store: false}}` or use `.chat(...)`.",
            )),
            // What only OpenAI's own tools make.
            _ => Ok(()),
        }
    }

    fn add_message(
        &mut self,
        item: &mut Map<String, Value>,
        pointer: &str,
    ) -> Result<(), ApiError> {
        let role = match item.get("role").and_then(Value::as_str) {
            Some("system" | "developer") => "system",
            Some("user") => "user",
            Some("assistant") => "assistant",
            _ => {
                let detail = "This must be user, assistant, system or developer.";
                return Err(ApiError::invalid(format!("{pointer}/role"), detail));
            }
        };
        let content = item.remove("content").unwrap_or_default();
        let message = message(role, content, &format!("{pointer}/content"))?;
        if role == "assistant" {
            self.open().content.push_str(&message.content);
        } else {
            self.push(message);
        }
        Ok(())
    }

    fn add_call(
        &mut self,
        item: &Map<String, Value>,
        arguments: String,
        pointer: &str,
    ) -> Result<(), ApiError> {
        let (id, name) = (text(item, "call_id"), text(item, "name"));
        for (member, value) in [("call_id", id), ("name", name)] {
            check(!value.is_empty(), &format!("{pointer}/{member}"), "A call needs this.")?;
        }
        let call = function_call(id, name, &arguments);
        let extra = self.open().extra.get_or_insert_default();
        let calls = extra.entry("tool_calls").or_insert_with(|| json!([]));
        if let Some(calls) = calls.as_array_mut() {
            calls.push(call);
        }
        Ok(())
    }

    fn add_output(&mut self, item: &mut Map<String, Value>, pointer: &str) -> Result<(), ApiError> {
        let id = text(item, "call_id").to_owned();
        let detail = "The output of a call needs the id of the call.";
        check(!id.is_empty(), &format!("{pointer}/call_id"), detail)?;
        let output = item.remove("output").unwrap_or_default();
        let mut message = message("tool", output, &format!("{pointer}/output"))?;
        message.set("tool_call_id", id);
        self.push(message);
        Ok(())
    }

    fn push(&mut self, message: PromptMessage) {
        // Thoughts of an answer that was cut while it thought. Outputs must follow their calls.
        if message.role != "tool" && !self.thoughts.is_empty() {
            self.open();
        }
        self.is_open = false;
        let is_first = self.messages.len() == 1;
        match self.messages.last_mut() {
            Some(last)
                if is_first
                    && last.role == "system"
                    && message.role == "system"
                    && message.extra.is_none() =>
            {
                last.content.push_str("\n\n");
                last.content.push_str(&message.content);
            }
            _ => self.messages.push(message),
        }
    }

    fn open(&mut self) -> &mut PromptMessage {
        if !self.is_open {
            let mut message = PromptMessage::text("assistant", "");
            let thoughts = std::mem::take(&mut self.thoughts).join("\n\n");
            if !thoughts.is_empty() {
                message.set("reasoning_content", thoughts);
            }
            self.messages.push(message);
            self.is_open = true;
        }
        let last = self.messages.len() - 1;
        &mut self.messages[last]
    }
}

fn text<'a>(item: &'a Map<String, Value>, name: &str) -> &'a str {
    item.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The message with that content: a text, or parts.
fn message(role: &'static str, content: Value, pointer: &str) -> Result<PromptMessage, ApiError> {
    let parts = match content {
        Value::String(text) => return Ok(PromptMessage::text(role, text)),
        Value::Null => return Ok(PromptMessage::text(role, "")),
        Value::Array(parts) => parts,
        _ => {
            return Err(ApiError::invalid(pointer, "This must be a text or a list of parts."));
        }
    };
    let mut content = Content::default();
    for (i, mut part) in parts.into_iter().enumerate() {
        let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
        let member = match kind {
            "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text" => "text",
            "refusal" => "refusal",
            "input_image" => "image_url",
            "input_file" => {
                let mut file = part.as_object().cloned().unwrap_or_default();
                file.remove("type");
                content.add(json!({ "type": "file", "file": file }));
                continue;
            }
            _ => {
                let detail =
                    "This must be input_text, output_text, refusal, input_image or input_file.";
                return Err(ApiError::invalid(format!("{pointer}/{i}/type"), detail));
            }
        };
        match (member, part.get_mut(member).map(Value::take)) {
            ("image_url", Some(Value::String(url))) => content.add_image(url),
            (_, Some(Value::String(text))) => content.add_text(&text),
            (member, _) => {
                let detail = match member {
                    "image_url" => "Send the image as a data URL; files are not stored here.",
                    _ => "This must be a text.",
                };
                return Err(ApiError::invalid(format!("{pointer}/{i}/{member}"), detail));
            }
        }
    }
    Ok(content.into_message(role))
}

/// The thoughts of an earlier answer: as we encoded them, else its texts.
fn thoughts(item: &Map<String, Value>) -> Option<String> {
    let encoded = BASE64.decode(text(item, "encrypted_content")).unwrap_or_default();
    let ours = String::from_utf8(encoded).ok().filter(|text| !text.is_empty());
    let texts = |member: &str| {
        let parts = item.get(member)?.as_array()?;
        let texts: Vec<_> = parts.iter().filter_map(|part| part.get("text")?.as_str()).collect();
        Some(texts.join("\n\n")).filter(|text| !text.is_empty())
    };
    ours.or_else(|| texts("content")).or_else(|| texts("summary"))
}

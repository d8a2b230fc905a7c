//! The content of messages, in the form of chat completions, in which model servers are asked.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::{
    domain::base64::is_base64,
    llm::{PromptMessage, ToolCall},
};

#[derive(Debug, Default)]
pub struct Content(Vec<Value>);

impl Content {
    pub fn add_text(&mut self, text: &str) {
        self.add(json!({ "type": "text", "text": text }));
    }

    /// Adds an image at a URL, which may be a `data:` URL.
    pub fn add_image(&mut self, url: impl Into<Value>) {
        self.add(json!({ "type": "image_url", "image_url": { "url": url.into() } }));
    }

    pub fn add(&mut self, part: Value) {
        self.0.push(part);
    }

    pub fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn texts(&self) -> String {
        self.0.iter().filter_map(|part| part["text"].as_str()).collect()
    }

    pub fn without_texts(mut self) -> Self {
        self.0.retain(|part| part["type"] != "text");
        self
    }

    /// A message that says this. Texts alone become one, since not every server takes parts.
    pub fn into_message(self, role: impl Into<Cow<'static, str>>) -> PromptMessage {
        if self.0.iter().all(|part| part["type"] == "text") {
            return PromptMessage::text(role, self.texts());
        }
        let mut message = PromptMessage::text(role, "");
        message.set("content", self.0);
        message
    }
}

/// A call of a function in an earlier answer. `arguments` is a JSON document.
pub fn function_call(id: &str, name: &str, arguments: &str) -> Value {
    let function = json!({ "name": name, "arguments": arguments });
    json!({ "id": id, "type": "function", "function": function })
}

/// The arguments of a call. Those that are no JSON object are an error: whoever runs the tool is to see them, by the name that
/// Anthropic advises, and can tell the model.
pub fn arguments(call: &ToolCall) -> Result<Value, Value> {
    let read = serde_json::from_str(&call.arguments).ok().filter(Value::is_object);
    read.ok_or_else(|| json!({ "INVALID_JSON": call.arguments }))
}

/// The `data:` URL of an image in base64, which may have line feeds, without a word of what it is; `None` where it is not base64, or
/// of no known kind.
pub fn data_url(image: &str) -> Option<String> {
    // How files of these kinds begin, in base64.
    const KINDS: [(&str, &str); 4] =
        [("iVBORw0KGgo", "png"), ("/9j/", "jpeg"), ("UklGR", "webp"), ("R0lGOD", "gif")];
    let (_, kind) = KINDS.iter().find(|(start, _)| image.starts_with(start))?;
    is_base64(image)
        .then(|| format!("data:image/{kind};base64,{}", image.replace(['\r', '\n'], "")))
}

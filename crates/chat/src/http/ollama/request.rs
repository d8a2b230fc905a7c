//! What Ollama's clients send, and its translation.

use common::errors::ApiError;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::{
    domain::{Options, Think, options::stop_texts},
    http::{
        inference::{
            checks::check,
            content::{Content, data_url, function_call},
            members::Members,
        },
        ollama::any_case::AnyCase,
        validation::Checks,
    },
    llm::PromptMessage,
};

/// A conversation (`/api/chat`) or a prompt (`/api/generate`) to be answered; none: the model is said to be loaded. Members
/// may be named in any case; those that are not known here are ignored.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[schema(example = json!({"model": "gemma3:1b", "messages": [{"role": "user", "content": "Hello!"}]}))]
pub struct GenerateRequest {
    pub(super) model: Option<String>,
    /// Oldest first.
    #[schema(value_type = Option<Vec<MessageInput>>)]
    pub(super) messages: Option<Vec<AnyCase<MessageInput>>>,
    pub(super) prompt: Option<String>,
    pub(super) system: Option<String>,
    /// In base64.
    pub(super) images: Option<Vec<String>>,
    /// Functions that the model may call.
    pub(super) tools: Option<Vec<Value>>,
    /// Whether the answer is streamed, a line of JSON a part: true unless said otherwise.
    pub(super) stream: Option<bool>,
    /// `"json"`, or a JSON schema.
    pub(super) format: Option<Value>,
    /// Ignored by a model that does not think.
    pub(super) think: Option<Think>,
    /// Whether the oldest messages are left out where the conversation does not fit the window (true, as Ollama does it),
    /// or it is refused.
    pub(super) truncate: Option<bool>,
    /// Without effect: models are kept and unloaded as the operator wants.
    pub(super) keep_alive: Option<Value>,
    #[schema(value_type = Option<SamplingInput>)]
    pub(super) options: Option<AnyCase<SamplingInput>>,
    /// Refused where they say anything, for the answer would be to another prompt than the caller thinks; no answer holds a `context`.
    raw: Option<Value>,
    suffix: Option<Value>,
    template: Option<Value>,
    context: Option<Value>,
}

#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct MessageInput {
    /// `system`, `user`, `assistant` or `tool`, in any case.
    role: Option<String>,
    content: Option<String>,
    /// The thoughts of an earlier answer.
    thinking: Option<String>,
    /// In base64.
    images: Option<Vec<String>>,
    #[schema(value_type = Option<Vec<Object>>)]
    tool_calls: Option<Vec<AnyCase<ToolCallInput>>>,
    /// Of a `tool` message: what was called.
    tool_name: Option<String>,
    tool_call_id: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct ToolCallInput {
    id: Option<String>,
    function: Option<AnyCase<FunctionInput>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct FunctionInput {
    name: Option<String>,
    arguments: Option<Value>,
}

/// How the answer is sampled. Members that are not named here are ignored, also `num_ctx`: the window is the operator's
/// choice, since another one makes an Ollama load the model anew for everybody.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct SamplingInput {
    /// Longest answer in tokens; 0 and below: as long as the window has room.
    num_predict: Option<f64>,
    /// 0 to 2.
    temperature: Option<f64>,
    top_k: Option<f64>,
    top_p: Option<f64>,
    seed: Option<i64>,
    /// A text that ends the answer, or several.
    #[serde(default, deserialize_with = "stop_texts")]
    #[schema(value_type = Option<Value>)]
    stop: Option<Vec<String>>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
}

impl GenerateRequest {
    /// Refuses what would be dropped from a prompt.
    pub(super) fn check_prompt(&self) -> Result<(), ApiError> {
        let (raw, context) = (("raw", &self.raw), ("context", &self.context));
        for (name, value) in [raw, ("suffix", &self.suffix), ("template", &self.template), context]
        {
            let nothing = [json!(false), json!(""), json!([])];
            let is_nothing = value.as_ref().is_none_or(|value| nothing.contains(value));
            let detail = "This is not supported here; send a conversation to /api/chat.";
            check(is_nothing, &format!("/{name}"), detail)?;
        }
        Ok(())
    }

    /// The messages of a conversation, or of a prompt.
    pub(super) fn take_messages(&mut self, is_chat: bool) -> Result<Vec<PromptMessage>, ApiError> {
        let mut messages = self.messages.take().filter(|_| is_chat).unwrap_or_default();
        let prompt = self.prompt.take().filter(|prompt| !prompt.is_empty());
        if !is_chat && (prompt.is_some() || self.images.is_some()) {
            let said = |role: &str, content, images| {
                let role = Some(role.to_owned());
                AnyCase(MessageInput { role, content, images, ..MessageInput::default() })
            };
            let system = self.system.take().filter(|system| !system.is_empty());
            messages.extend(system.map(|system| said("system", Some(system), None)));
            messages.push(said("user", prompt, self.images.take()));
        }
        let mut translator = Translator::default();
        let messages = messages.into_iter().enumerate();
        messages.map(|(index, message)| translator.translate(index, message.0)).collect()
    }

    /// What is passed through to servers that have it.
    pub(super) fn members(&self) -> Result<Members, ApiError> {
        let mut members = Members::default();
        let is_tool = |tool: &Value| tool.pointer("/function/name").is_some();
        let detail = "This must be a list of `{type: \"function\", function: {name, ...}}`.";
        check(self.tools.iter().flatten().all(is_tool), "/tools", detail)?;
        match self.format.as_ref().filter(|format| **format != "") {
            Some(word) if word == "json" => {
                members.set("response_format", Some(json!({ "type": "json_object" })));
            }
            Some(schema @ Value::Object(_)) => {
                members.set_schema(json!({ "name": "answer", "schema": schema }));
            }
            Some(_) => {
                let detail = "This must be \"json\" or a JSON schema.";
                return Err(ApiError::invalid("/format", detail));
            }
            None => {}
        }
        // In this form an effort is ignored where the model does not think.
        let effort = self.think.and_then(Think::effort);
        let options = self.options.as_ref().map(|options| &options.0);
        members.set_tools(self.tools.clone().unwrap_or_default(), None, None);
        members.set("reasoning_effort", effort.map(|effort| json!(effort)));
        members.set("presence_penalty", options.and_then(|all| all.presence_penalty));
        members.set("frequency_penalty", options.and_then(|all| all.frequency_penalty));
        Ok(members)
    }

    /// How the answer is sampled; `thinks`: whether the model may think.
    pub(super) fn options(&self, model: &str, thinks: bool) -> Result<Options, ApiError> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float cast saturates; numbers below 1 are left out"
        )]
        let positive = |number: f64, most: f64| (number >= 1.0).then(|| number.min(most) as u32);
        let AnyCase(asked) = self.options.clone().unwrap_or_default();
        let options = Options {
            temperature: asked.temperature,
            top_p: asked.top_p.filter(|top_p| *top_p != 0.0),
            top_k: asked.top_k.and_then(|top_k| positive(top_k, 1000.0)),
            max_tokens: asked.num_predict.and_then(|most| positive(most, 1e6)),
            seed: asked.seed,
            stop: asked.stop,
            think: self.think.filter(|think| thinks && think.effort().is_none()),
        };
        let mut checks = Checks::default();
        checks.model(Some(model));
        checks.options(Some(&options));
        checks.finish()?;
        Ok(options)
    }

    /// Whether `keep_alive` asks for unloading at once: 0, or a duration of nothing.
    pub(super) fn unloads(&self) -> bool {
        match &self.keep_alive {
            Some(Value::Number(seconds)) => seconds.as_f64() == Some(0.0),
            Some(Value::String(duration)) => {
                let number = duration.trim_end_matches(|c: char| c.is_ascii_alphabetic());
                number.parse::<f64>() == Ok(0.0)
            }
            _ => false,
        }
    }
}

/// The model that was named; an empty name is none.
pub(in crate::http) fn named(model: Option<String>) -> Option<String> {
    model.filter(|model| !model.is_empty())
}

/// Translates the messages of a conversation, whose tool calls need not have ids.
#[derive(Default)]
struct Translator {
    /// Calls that no message has answered yet: their ids and names.
    open_calls: Vec<(String, String)>,
    calls: usize,
}

impl Translator {
    fn translate(
        &mut self,
        index: usize,
        message: MessageInput,
    ) -> Result<PromptMessage, ApiError> {
        let at = |member: &str| format!("/messages/{index}/{member}");
        let role = message.role.unwrap_or_default().to_ascii_lowercase();
        let is_role = ["system", "user", "assistant", "tool"].contains(&role.as_str());
        check(is_role, &at("role"), "This must be system, user, assistant or tool.")?;
        let mut content = Content::default();
        if let Some(text) = message.content.filter(|text| !text.is_empty()) {
            content.add_text(&text);
        }
        for image in message.images.iter().flatten() {
            let detail = "Images are PNG, JPEG, WebP or GIF files in base64.";
            let url = data_url(image).ok_or_else(|| ApiError::invalid(at("images"), detail))?;
            content.add_image(url);
        }
        let mut translated = content.into_message(role.clone());
        if let Some(thoughts) = message.thinking.filter(|thoughts| !thoughts.is_empty()) {
            translated.set("reasoning_content", thoughts);
        }
        let calls = message.tool_calls.filter(|calls| role == "assistant" && !calls.is_empty());
        if let Some(calls) = calls {
            let calls: Vec<_> = calls.into_iter().map(|call| self.call(call.0)).collect();
            translated.set("tool_calls", calls);
        }
        if role == "tool" {
            let (id, name) = self.answered(message.tool_call_id, message.tool_name);
            translated.set("tool_call_id", id);
            translated.set("name", name);
        }
        Ok(translated)
    }

    fn call(&mut self, call: ToolCallInput) -> Value {
        self.calls += 1;
        let id = call.id.filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| format!("call_{}", self.calls));
        let AnyCase(function) = call.function.unwrap_or_default();
        let name = function.name.unwrap_or_default();
        let arguments = match function.arguments {
            None => "{}".to_owned(),
            Some(Value::String(text)) => text,
            Some(object) => object.to_string(),
        };
        let called = function_call(&id, &name, &arguments);
        self.open_calls.push((id, name));
        called
    }

    /// Which call a tool's message answers: the one that it names by id or by name, else the first that is open.
    fn answered(&mut self, id: Option<String>, name: Option<String>) -> (String, String) {
        let said = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let place = self.open_calls.iter().position(|(called, function)| {
            if said(&id) {
                id.as_ref() == Some(called)
            } else {
                !said(&name) || name.as_ref() == Some(function)
            }
        });
        match place.map(|place| self.open_calls.remove(place)) {
            Some(call) => call,
            None => (id.unwrap_or_default(), name.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests;

//! What clients send for a response: read tolerantly, since agents send members of their own.

use common::errors::{ApiError, Code};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::{
    domain::{Options, options::unlimited_below_zero},
    generation::stateless::CompletionRequest,
    http::{
        error::about,
        inference::{
            checks::{check, check_choice, check_model, checked_options},
            members::{Members, chosen_function, functions},
        },
        openai::responses::input,
    },
};

/// A conversation to be answered. Members that are not known here are ignored.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(example = json!({"input": "Hello!", "store": false}))]
pub struct CreateResponse {
    /// The model; the default one where none is named.
    pub(super) model: Option<String>,
    /// A text, or the items of the conversation, oldest first.
    pub(super) input: Option<Value>,
    /// A system prompt before the input.
    pub(super) instructions: Option<String>,
    /// Whether the answer is streamed.
    pub(super) stream: Option<bool>,
    /// Longest answer in tokens; -1 is the same as leaving it out.
    #[serde(deserialize_with = "unlimited_below_zero")]
    #[schema(value_type = Option<i64>)]
    pub(super) max_output_tokens: Option<u32>,
    /// 0 to 2.
    pub(super) temperature: Option<f64>,
    /// 0 to 1.
    pub(super) top_p: Option<f64>,
    /// Function tools are passed to the model; tools that OpenAI runs itself are not there.
    pub(super) tools: Option<Vec<Value>>,
    pub(super) tool_choice: Option<Value>,
    pub(super) parallel_tool_calls: Option<bool>,
    /// `effort`: how much a thinking model thinks.
    pub(super) reasoning: Option<Map<String, Value>>,
    /// `format`: `{type: "text"}`, `{type: "json_object"}` or `{type: "json_schema", name, schema}`.
    pub(super) text: Option<Map<String, Value>>,
    /// `auto` leaves out the oldest items where the conversation does not fit the window; `disabled` refuses it.
    pub(super) truncation: Option<String>,
    /// `reasoning.encrypted_content` adds the thoughts in the form in which they can be sent again.
    pub(super) include: Option<Vec<String>>,
    /// Up to 16 texts, given back as they came.
    pub(super) metadata: Option<Map<String, Value>>,
    pub(super) previous_response_id: Option<String>,
    pub(super) conversation: Option<Value>,
    pub(super) background: Option<bool>,
    pub(super) prompt_cache_key: Option<String>,
    pub(super) safety_identifier: Option<String>,
    pub(super) user: Option<String>,
}

impl CreateResponse {
    /// The completion that it asks for.
    ///
    /// # Errors
    /// The first wrong value is named, with what is allowed.
    pub(super) fn checked(self) -> Result<CompletionRequest, ApiError> {
        self.check_state()?;
        check_model(self.model.as_deref())?;
        let options = self.options()?;
        let extra = self.members()?.0;
        let truncates = match self.truncation.as_deref() {
            None | Some("disabled") => false,
            Some("auto") => true,
            Some(_) => {
                return Err(ApiError::invalid("/truncation", "This must be auto or disabled."));
            }
        };
        let detail = "There must be an input: a text or a list of items.";
        let input = self.input.ok_or_else(|| ApiError::invalid("/input", detail))?;
        Ok(CompletionRequest {
            model: self.model,
            messages: input::messages(self.instructions, input)?,
            options,
            extra,
            truncates,
        })
    }

    fn check_state(&self) -> Result<(), ApiError> {
        const STORED: &str = "Responses are not stored here: send the whole conversation as `input`, and `store: false`.";
        const CONVERSATION: &str = "Conversations are not stored here: send the whole conversation as `input`, or use POST /chat/message with a session_id.";
        const BACKGROUND: &str = "Responses do not run in the background here: stream the response, or use POST /chat/message with on_disconnect \"continue\".";
        if self.previous_response_id.is_some() {
            let (pointer, code) = ("/previous_response_id", Code::PreviousResponseNotFound);
            return Err(about(Some(pointer), code, STORED.to_owned()));
        }
        check(self.conversation.is_none(), "/conversation", CONVERSATION)?;
        check(self.background != Some(true), "/background", BACKGROUND)
    }

    fn options(&self) -> Result<Options, ApiError> {
        let options = Options {
            temperature: self.temperature,
            top_p: self.top_p.filter(|p| *p != 0.0),
            max_tokens: self.max_output_tokens,
            ..Options::default()
        };
        checked_options(options, &[("max_tokens", "max_output_tokens")])
    }

    /// The members of a chat completion that say the same.
    fn members(&self) -> Result<Members, ApiError> {
        let mut members = Members::default();
        let tools = self.tools.as_deref().unwrap_or_default();
        let mut tools = functions(tools, &["function"], "parameters")?;
        let choice = match &self.tool_choice {
            Some(Value::String(word)) => Some(word.as_str().into()),
            Some(Value::Object(choice)) => chosen(choice, &mut tools),
            _ => None,
        };
        members.set_tools(tools, choice, self.parallel_tool_calls);
        check_choice(&members.0)?;
        let member = |map: &'_ Option<Map<String, Value>>, name: &str| {
            map.as_ref()?.get(name).filter(|value| !value.is_null()).cloned()
        };
        if let Some(effort) = member(&self.reasoning, "effort") {
            check(effort.is_string(), "/reasoning/effort", "This must be a word.")?;
            members.set("reasoning_effort", Some(effort));
        }
        if let Some(format) = member(&self.text, "format") {
            set_format(&format, &mut members)?;
        }
        Ok(members)
    }
}

fn chosen(choice: &Map<String, Value>, tools: &mut Vec<Value>) -> Option<Value> {
    match choice.get("type").and_then(Value::as_str)? {
        "function" => choice.get("name").map(chosen_function),
        "allowed_tools" => {
            let allowed = choice.get("tools")?.as_array()?;
            tools.retain(|tool| {
                let name = &tool["function"]["name"];
                allowed.iter().any(|tool| tool.get("name") == Some(name))
            });
            choice.get("mode").cloned()
        }
        _ => None,
    }
}

/// Sets a text format as chat completions name it; plain text is no format.
fn set_format(format: &Value, members: &mut Members) -> Result<(), ApiError> {
    match format.get("type").and_then(Value::as_str) {
        Some("text") => {}
        Some("json_object") => {
            members.set("response_format", Some(json!({ "type": "json_object" })));
        }
        Some("json_schema") => {
            let is_schema = format.get("schema").is_some_and(Value::is_object);
            check(is_schema, "/text/format/schema", "This must be a JSON schema.")?;
            let mut schema = Members::default();
            for name in ["name", "description", "schema", "strict"] {
                schema.set(name, format.get(name).filter(|value| !value.is_null()).cloned());
            }
            members.set_schema(schema.0.into());
        }
        _ => {
            let detail = "This must be text, json_object or json_schema.";
            return Err(ApiError::invalid("/text/format/type", detail));
        }
    }
    Ok(())
}

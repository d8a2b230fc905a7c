//! Translates a request of this API into a completion.

use common::errors::ApiError;
use serde_json::{Value, json};

use crate::{
    domain::{Options, Think},
    generation::stateless::CompletionRequest,
    http::{
        anthropic::{conversation::prompt, request::CreateMessage},
        inference::{
            checks::{check, check_model, checked_options},
            members::{Members, chosen_function, functions},
        },
    },
};

/// Larger limits are lowered to these.
const MAX_TOKENS: u32 = 1_000_000;
const MAX_TOP_K: u32 = 1000;

impl CreateMessage {
    /// The completion that it asks for.
    ///
    /// # Errors
    /// The first wrong value is named, with what is allowed.
    pub(super) fn checked(self) -> Result<CompletionRequest, ApiError> {
        check_model(self.model.as_deref())?;
        Ok(CompletionRequest {
            options: self.options()?,
            extra: self.members()?.0,
            model: self.model,
            messages: prompt(self.system, self.messages)?,
            truncates: false,
        })
    }

    /// The members of a chat completion that say the same.
    fn members(&self) -> Result<Members, ApiError> {
        let mut members = Members::default();
        // Tools of other types have no schema: Anthropic's own servers run them, or its models know them.
        let tools = self.tools.as_deref().unwrap_or_default();
        let tools = functions(tools, &["", "custom", "function"], "input_schema")?;
        let choice = self.tool_choice.as_ref().filter(|_| !tools.is_empty());
        let chosen = choice.map(|choice| tool_choice(choice, &tools)).transpose()?;
        let disabled = choice.and_then(|choice| choice["disable_parallel_tool_use"].as_bool());
        members.set_tools(tools, chosen, disabled.map(|disabled| !disabled));
        if let Some(format) = self.output("format").or(self.output_format.as_ref()) {
            let schema = format.get("schema").filter(|schema| schema.is_object());
            let is_schema = schema.is_some() && format["type"] == "json_schema";
            let detail = "This must be `{type: \"json_schema\", schema}`.";
            check(is_schema, "/output_config/format", detail)?;
            members.set_schema(json!({ "name": "answer", "strict": true, "schema": schema }));
        }
        members.set("reasoning_effort", self.effort());
        Ok(members)
    }

    fn options(&self) -> Result<Options, ApiError> {
        let options = Options {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k.map(|k| k.min(MAX_TOP_K)),
            max_tokens: self.max_tokens.map(|most| most.min(MAX_TOKENS)),
            seed: None,
            stop: self.stop_sequences.clone(),
            think: self.is_not_to_think().then_some(Think::Enabled(false)),
        };
        checked_options(options, &[("stop", "stop_sequences")])
    }

    fn output(&self, member: &str) -> Option<&Value> {
        self.output_config.as_ref()?.get(member).filter(|value| !value.is_null())
    }

    fn is_not_to_think(&self) -> bool {
        let thinking = self.thinking.as_ref();
        thinking.is_some_and(|thinking| thinking["type"] == "disabled")
    }

    /// How much a model that thinks is to think, where the request wants thoughts and says how much.
    fn effort(&self) -> Option<&'static str> {
        if self.thinking.is_none() || self.is_not_to_think() {
            return None;
        }
        match self.output("effort")?.as_str()? {
            "low" => Some("low"),
            "medium" => Some("medium"),
            "high" | "xhigh" | "max" => Some("high"),
            _ => None,
        }
    }
}

fn tool_choice(choice: &Value, tools: &[Value]) -> Result<Value, ApiError> {
    match choice["type"].as_str() {
        Some("auto") => Ok("auto".into()),
        Some("any") => Ok("required".into()),
        Some("none") => Ok("none".into()),
        Some("tool") => {
            let name = &choice["name"];
            let is_known = tools.iter().any(|tool| tool["function"]["name"] == *name);
            let detail = "This must be the name of one of the tools.";
            check(is_known, "/tool_choice/name", detail)?;
            Ok(chosen_function(name))
        }
        _ => Err(ApiError::invalid("/tool_choice/type", "This must be auto, any, tool or none.")),
    }
}

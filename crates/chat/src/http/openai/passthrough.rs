//! What of a request goes to the model server as it came.

use common::errors::ApiError;
use serde_json::{Map, Value};

use crate::http::openai::{
    checks::{ValueCheck, check},
    request::CreateChatCompletion,
};

/// What is passed through to servers that have it.
///
/// # Errors
/// The first wrong value is named.
pub(super) fn members(asked: &CreateChatCompletion) -> Result<Map<String, Value>, ApiError> {
    let typed: ValueCheck = |value| value.get("type").is_some_and(Value::is_string);
    let word_or_object: ValueCheck = |value| value.is_string() || value.is_object();
    let functions: ValueCheck = |value| {
        let is_tool = |tool: &Value| {
            tool.get("type").is_some_and(Value::is_string)
                && tool.pointer("/function/name").is_none_or(Value::is_string)
        };
        value
            .as_array()
            .is_some_and(|tools| tools.iter().all(is_tool))
    };
    let penalty: ValueCheck = |value| value.as_f64().is_some_and(|v| (-2.0..=2.0).contains(&v));
    let members: [(&str, &Option<Value>, ValueCheck, &str); 10] = [
        (
            "presence_penalty",
            &asked.presence_penalty,
            penalty,
            "a number from -2 to 2",
        ),
        (
            "frequency_penalty",
            &asked.frequency_penalty,
            penalty,
            "a number from -2 to 2",
        ),
        (
            "logit_bias",
            &asked.logit_bias,
            Value::is_object,
            "an object",
        ),
        (
            "response_format",
            &asked.response_format,
            typed,
            "an object with a `type`",
        ),
        (
            "tools",
            &asked.tools,
            functions,
            "a list of `{type: \"function\", function: {name, …}}`",
        ),
        (
            "tool_choice",
            &asked.tool_choice,
            word_or_object,
            "a word or an object",
        ),
        (
            "parallel_tool_calls",
            &asked.parallel_tool_calls,
            Value::is_boolean,
            "true or false",
        ),
        (
            "reasoning_effort",
            &asked.reasoning_effort,
            Value::is_string,
            "a word",
        ),
        ("verbosity", &asked.verbosity, Value::is_string, "a word"),
        (
            "prediction",
            &asked.prediction,
            Value::is_object,
            "an object",
        ),
    ];
    let mut extra = Map::new();
    for (name, value, fits, wanted) in members {
        let Some(value) = value else { continue };
        check(
            fits(value),
            &format!("/{name}"),
            &format!("This must be {wanted}."),
        )?;
        // An empty list says nothing, and some servers refuse it.
        if value.as_array().is_none_or(|list| !list.is_empty()) {
            extra.insert(name.to_owned(), value.clone());
        }
    }
    Ok(extra)
}

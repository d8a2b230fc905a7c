//! What of a request goes to the model server as it came.

use common::errors::ApiError;
use serde_json::{Map, Value};

use crate::http::{
    inference::checks::{ValueCheck, check, check_choice},
    openai::request::CreateChatCompletion,
};

/// A member that is passed through: its name, its value in the request, what fits, and that in words.
struct Member(&'static str, fn(&CreateChatCompletion) -> &Option<Value>, ValueCheck, &'static str);

const MEMBERS: [Member; 12] = [
    Member("presence_penalty", |r| &r.presence_penalty, is_penalty, PENALTY),
    Member("frequency_penalty", |r| &r.frequency_penalty, is_penalty, PENALTY),
    Member("logit_bias", |r| &r.logit_bias, Value::is_object, "an object"),
    Member("response_format", |r| &r.response_format, has_type, "an object with a `type`"),
    Member("tools", |r| &r.tools, are_tools, TOOLS),
    Member("tool_choice", |r| &r.tool_choice, is_choice, "a word or an object"),
    Member("functions", |r| &r.functions, are_functions, "a list of `{name, …}`"),
    Member("function_call", |r| &r.function_call, is_choice, "a word or an object"),
    Member("parallel_tool_calls", |r| &r.parallel_tool_calls, Value::is_boolean, "true or false"),
    Member("reasoning_effort", |r| &r.reasoning_effort, Value::is_string, "a word"),
    Member("verbosity", |r| &r.verbosity, Value::is_string, "a word"),
    Member("prediction", |r| &r.prediction, Value::is_object, "an object"),
];

const PENALTY: &str = "a number from -2 to 2";
const TOOLS: &str = "a list of `{type: \"function\", function: {name, …}}`";

/// llama-server's name for the longest answer, which would undo the limit that a quota sets.
const LIMIT: &str = "n_predict";

/// What is passed through to servers that have it, members that are not known here among it.
///
/// # Errors
/// The first wrong value is named.
pub(super) fn members(request: &mut CreateChatCompletion) -> Result<Map<String, Value>, ApiError> {
    let mut extra = std::mem::take(&mut request.unknown);
    extra.remove(LIMIT);
    for Member(name, value, fits, wanted) in MEMBERS {
        let Some(value) = value(request) else { continue };
        let wanted = format!("This must be {wanted}.");
        check(fits(value), &format!("/{name}"), &wanted)?;
        // An empty list says nothing, and some servers refuse it.
        if value.as_array().is_none_or(|list| !list.is_empty()) {
            extra.insert(name.to_owned(), value.clone());
        }
    }
    check_choice(&extra)?;
    Ok(extra)
}

fn is_penalty(value: &Value) -> bool {
    value.as_f64().is_some_and(|v| (-2.0..=2.0).contains(&v))
}

fn has_type(value: &Value) -> bool {
    value.get("type").is_some_and(Value::is_string)
}

fn is_choice(value: &Value) -> bool {
    value.is_string() || value.is_object()
}

fn are_tools(value: &Value) -> bool {
    let is_tool = |tool: &Value| {
        has_type(tool) && tool.pointer("/function/name").is_none_or(Value::is_string)
    };
    value.as_array().is_some_and(|tools| tools.iter().all(is_tool))
}

fn are_functions(value: &Value) -> bool {
    let has_name = |function: &Value| function.get("name").is_some_and(Value::is_string);
    value.as_array().is_some_and(|functions| functions.iter().all(has_name))
}

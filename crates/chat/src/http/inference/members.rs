//! Members of a chat completion that are passed through to servers that have them, made from what other APIs call otherwise.

use common::errors::ApiError;
use serde_json::{Map, Value, json};

use crate::http::inference::checks::{ValueCheck, check};

#[derive(Debug, Default)]
pub struct Members(pub Map<String, Value>);

impl Members {
    /// Sets a member where there is a value for it.
    pub fn set(&mut self, name: &str, value: Option<impl Into<Value>>) {
        self.0.extend(value.map(|value| (name.to_owned(), value.into())));
    }

    /// Sets the tools, and how the model chooses among them. Without tools nothing is set: some servers refuse an empty list.
    pub fn set_tools(&mut self, tools: Vec<Value>, choice: Option<Value>, parallel: Option<bool>) {
        if !tools.is_empty() {
            self.set("tools", Some(tools));
            self.set("tool_choice", choice);
            self.set("parallel_tool_calls", parallel);
        }
    }

    /// Sets the JSON schema that the answer must have.
    pub fn set_schema(&mut self, schema: Value) {
        let format = json!({ "type": "json_schema", "json_schema": schema });
        self.set("response_format", Some(format));
    }
}

/// The functions among tools that are named by members of their own, of which `parameters` is the JSON schema of the arguments.
/// Tools whose type is none of `kinds` are left out: agents always send some that only the maker of their API runs.
///
/// # Errors
/// The first wrong member is named.
pub fn functions(
    tools: &[Value],
    kinds: &[&str],
    parameters: &str,
) -> Result<Vec<Value>, ApiError> {
    let members: [(&str, &str, ValueCheck, &str); 4] = [
        ("name", "name", Value::is_string, "A tool needs a name."),
        ("description", "description", Value::is_string, "This must be a text."),
        (parameters, "parameters", Value::is_object, "This must be a JSON schema."),
        ("strict", "strict", Value::is_boolean, "This must be true or false."),
    ];
    let is_function = |tool: &&Value| {
        let kind = tool.get("type").and_then(Value::as_str);
        kinds.contains(&kind.unwrap_or_default())
    };
    let numbered = tools.iter().enumerate();
    let functions = numbered.filter(|(_, tool)| is_function(tool)).map(|(i, tool)| {
        let mut function = Map::new();
        for (theirs, ours, fits, wanted) in members {
            let value = tool.get(theirs).filter(|value| !value.is_null());
            let is_right = value.map_or(ours != "name", fits);
            check(is_right, &format!("/tools/{i}/{theirs}"), wanted)?;
            function.extend(value.map(|value| (ours.to_owned(), value.clone())));
        }
        Ok(json!({ "type": "function", "function": function }))
    });
    functions.collect()
}

pub fn chosen_function(name: &Value) -> Value {
    json!({ "type": "function", "function": { "name": name } })
}

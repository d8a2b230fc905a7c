//! Checks of what several APIs have in common.

use common::errors::ApiError;
use serde_json::{Map, Value};

use crate::{domain::Options, http::validation::Checks};

/// Whether a value is acceptable for its member.
pub type ValueCheck = fn(&Value) -> bool;

/// Refuses a request whose member at `pointer` is wrong.
///
/// # Errors
/// `validation_failed` at that pointer.
pub fn check(holds: bool, pointer: &str, detail: &str) -> Result<(), ApiError> {
    if holds { Ok(()) } else { Err(ApiError::invalid(pointer, detail)) }
}

/// Refuses what cannot be the name of a model.
///
/// # Errors
/// `validation_failed` at `/model`.
pub fn check_model(model: Option<&str>) -> Result<(), ApiError> {
    let mut checks = Checks::default();
    checks.model(model);
    checks.finish()
}

/// Refuses a choice among tools that is no word for one, or a function that is none of them.
///
/// # Errors
/// `validation_failed` at `/tool_choice`, or at `/function_call`, its older form.
pub fn check_choice(members: &Map<String, Value>) -> Result<(), ApiError> {
    for (member, list, at) in
        [("tool_choice", "tools", "/function/name"), ("function_call", "functions", "/name")]
    {
        let Some(choice) = members.get(member) else { continue };
        let name = |tool: &Value| tool.pointer(at).cloned();
        let mut tools = members.get(list).and_then(Value::as_array).into_iter().flatten();
        let is_known = match (choice.as_str(), name(choice)) {
            (Some(word), _) => ["auto", "none", "required"].contains(&word),
            (None, None) => true,
            (None, chosen) => !members.contains_key(list) || tools.any(|tool| name(tool) == chosen),
        };
        let detail = format!("This must be auto, none, required, or one of the {list}.");
        check(is_known, &format!("/{member}"), &detail)?;
    }
    Ok(())
}

/// The options, none of them out of range. `names` are the members that this API calls otherwise than [`Options`].
///
/// # Errors
/// The first wrong one is named.
pub fn checked_options(options: Options, names: &[(&str, &str)]) -> Result<Options, ApiError> {
    let Some((name, detail)) = options.faults().into_iter().next() else { return Ok(options) };
    let theirs = names.iter().find(|(ours, _)| *ours == name).map_or(name, |(_, theirs)| theirs);
    Err(ApiError::invalid(format!("/{theirs}"), detail))
}

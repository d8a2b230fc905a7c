//! Checks of what several APIs have in common.

use common::errors::ApiError;
use serde_json::Value;

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

/// Refuses options out of range. `names` are the members that this API calls otherwise than [`Options`].
///
/// # Errors
/// The first wrong one is named.
pub fn check_options(options: &Options, names: &[(&str, &str)]) -> Result<(), ApiError> {
    let Some((name, detail)) = options.faults().into_iter().next() else {
        return Ok(());
    };
    let theirs = names.iter().find(|(ours, _)| *ours == name).map_or(name, |(_, theirs)| theirs);
    Err(ApiError::invalid(format!("/{theirs}"), detail))
}

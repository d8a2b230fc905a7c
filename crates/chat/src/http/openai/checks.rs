//! Checks of members that are passed through as they came.

use common::errors::ApiError;
use serde_json::Value;

/// Whether a value is acceptable for its member.
pub(super) type ValueCheck = fn(&Value) -> bool;

/// Refuses a request whose member at `pointer` is wrong.
pub(super) fn check(holds: bool, pointer: &str, detail: &str) -> Result<(), ApiError> {
    if holds {
        Ok(())
    } else {
        Err(ApiError::invalid(pointer, detail))
    }
}

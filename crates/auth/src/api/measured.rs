//! What this service measures beside its requests. Results are the codes that callers are told: a closed list.

use common::errors::ApiError;
use metrics::{counter, describe_counter, describe_histogram};

use crate::service::AuthError;

/// Says what each measurement means.
pub(crate) fn describe() {
    describe_counter!(
        "auth_logins_total",
        "Logins by way (open, password) and result: ok, or the code of the refusal"
    );
    describe_counter!(
        "auth_refreshes_total",
        "Refreshes by result: ok, or the code of the refusal; token_reused ends a login"
    );
    describe_counter!(
        "auth_registrations_total",
        "Registrations by result: ok, or the code of the refusal"
    );
    describe_counter!(
        "auth_revocations_total",
        "What was revoked, by kind: login, logins (all of an account), key, account"
    );
    describe_histogram!(
        "auth_password_wait_seconds",
        "How long a password waited for a place to be hashed in, in seconds"
    );
    describe_histogram!(
        "auth_password_hash_seconds",
        "How long hashing a password took, in seconds"
    );
}

/// The result, counted under that name.
pub(super) fn counted<T>(name: &'static str, result: Result<T, AuthError>) -> Result<T, ApiError> {
    let result = result.map_err(ApiError::from);
    counter!(name, "result" => outcome(&result)).increment(1);
    result
}

/// The result of a login of that way, counted.
pub(super) fn counted_login<T>(
    way: &'static str,
    result: Result<T, AuthError>,
) -> Result<T, ApiError> {
    let result = result.map_err(ApiError::from);
    counter!("auth_logins_total", "way" => way, "result" => outcome(&result)).increment(1);
    result
}

fn outcome<T>(result: &Result<T, ApiError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(error) => error.code.as_str(),
    }
}

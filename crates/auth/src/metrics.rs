//! The service's own metrics. A `result` is `ok` or the code of the error: a closed list.

use metrics::{counter, describe_counter, describe_histogram};

pub fn describe() {
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
        "How long a password waited for a thread that hashes it, in seconds"
    );
    describe_histogram!(
        "auth_password_hash_seconds",
        "How long hashing a password took, in seconds"
    );
}

pub fn count_revocation(kind: &'static str) {
    counter!("auth_revocations_total", "kind" => kind).increment(1);
}

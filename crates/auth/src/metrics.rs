//! The service's own metrics. A `result` is `ok` or the code of the error: a closed list.

use common::describe_metrics;
use metrics::counter;

pub fn describe() {
    describe_metrics! {
        counter "auth_logins_total" => "Logins by way (open, password) and result: ok, or the code of the refusal",
        counter "auth_refreshes_total" => "Refreshes by result: ok, or the code of the refusal; token_reused ends a login",
        counter "auth_registrations_total" => "Registrations by result: ok, or the code of the refusal",
        counter "auth_revocations_total" => "What was revoked, by kind: login, logins (all of an account), key, account",
        histogram "auth_password_wait_seconds" => "How long a password waited for a thread that hashes it, in seconds",
        histogram "auth_password_hash_seconds" => "How long hashing a password took, in seconds",
    }
}

pub fn count_revocation(kind: &'static str) {
    counter!("auth_revocations_total", "kind" => kind).increment(1);
}

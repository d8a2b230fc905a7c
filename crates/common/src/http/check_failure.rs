//! Why a health check failed: in public words for `/readyz`, with the reason for the log.

use crate::store::StoreError;

/// The public words name no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckFailure {
    pub(super) shown: String,
    pub(super) reason: String,
}

impl<T: Into<String>> From<T> for CheckFailure {
    fn from(shown: T) -> Self {
        let shown = shown.into();
        Self {
            reason: shown.clone(),
            shown,
        }
    }
}

impl CheckFailure {
    /// A store that does not answer. What Redis says of a connection that it refuses is told apart, since each needs
    /// something else of the operator.
    pub fn of_store(error: &StoreError) -> Self {
        let reason = error.to_string();
        let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
        let shown = if says(&[
            "WRONGPASS",
            "NOAUTH",
            "AuthenticationFailed",
            "Password authentication",
        ]) {
            "it refuses our user name or password"
        } else if says(&["NOPERM"]) {
            "it does not permit our user what is needed"
        } else if says(&["DB index", "database number"]) {
            "it has no database of that number"
        } else if says(&[
            "certificate",
            "UnknownIssuer",
            "InvalidContentType",
            "tls",
            "TLS",
        ]) {
            "the TLS connection fails"
        } else if says(&["READONLY"]) {
            "it is a replica and takes no writes"
        } else if says(&["LOADING"]) {
            "it is loading its data"
        } else {
            "it cannot be reached"
        };
        Self {
            shown: shown.to_owned(),
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::CheckFailure;
    use crate::store::StoreError;

    #[test]
    fn a_store_that_refuses_us_says_so_without_an_address() {
        for (said, shown) in [
            ("WRONGPASS invalid username-password pair", "password"),
            (
                "An error was signalled by the server: DB index is out of range",
                "database",
            ),
            ("invalid peer certificate: UnknownIssuer", "TLS"),
            ("Connection refused 10.0.0.1:6379", "cannot be reached"),
        ] {
            let failure = CheckFailure::of_store(&StoreError::Unavailable(said.to_owned()));
            assert!(failure.shown.contains(shown), "{failure:?}");
            assert!(failure.reason.contains(said) && !failure.shown.contains("10."));
        }
    }
}

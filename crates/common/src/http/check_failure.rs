//! Why a health check failed: in public words for `/readyz`, with the reason for the log.

use std::time::{Duration, Instant};

use crate::store::{Store, StoreError, StoreHealth, fsync_problem};

/// Less than a check may take, so that the reason is told.
const STORE_TIMEOUT: Duration = Duration::from_millis(400);

/// What a store's error says, one or the other, and what it is called in public: a line each. The first that fits holds.
const REFUSALS: &str = "\
WRONGPASS|NOAUTH|AuthenticationFailed|Password authentication => it refuses our user name or password
NOPERM => it does not permit our user what is needed
DB index|database number => it has no database of that number
certificate|UnknownIssuer|InvalidContentType|tls|TLS => the TLS connection fails
READONLY => it is a replica and takes no writes
LOADING => it is loading its data
use redis+cluster:// => it is a node of a Redis Cluster: store.url must begin with redis+cluster://
use redis+sentinel:// => it is a Sentinel: store.url must be redis+sentinel://host:port/SERVICE/DB
use redis:// => it is a single server: store.url must begin with redis://
No such master => the Sentinels know no service of that name
no replica is connected => no replica is connected, and store.durability is \"replicated\"
CLUSTERDOWN => the Redis Cluster is down";

/// The public words name no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckFailure {
    pub shown: String,
    pub(super) reason: String,
    /// It works, if not as it should: the service is ready all the same.
    pub(super) is_partial: bool,
}

impl<T: Into<String>> From<T> for CheckFailure {
    fn from(shown: T) -> Self {
        let shown = shown.into();
        Self { reason: shown.clone(), shown, is_partial: false }
    }
}

impl CheckFailure {
    /// A store that does not answer. What Redis says of a connection that it refuses is told apart, since each needs
    /// something else of the operator.
    pub fn of_store(error: &StoreError) -> Self {
        let reason = error.to_string();
        let says = |words: &str| words.split('|').any(|word| reason.contains(word));
        let mut refusals = REFUSALS.lines().filter_map(|line| line.split_once(" => "));
        let known = refusals.find(|(words, _)| says(words));
        let shown = known.map_or("it cannot be reached", |(_, shown)| shown);
        Self { shown: shown.to_owned(), reason, is_partial: false }
    }

    fn degraded(reason: String) -> Self {
        Self { shown: "degraded".to_owned(), reason, is_partial: true }
    }
}

/// The check that every service makes of its store.
///
/// # Errors
/// Where no node answers, or only some do.
pub async fn check_store(store: Store) -> Result<(), CheckFailure> {
    let store = store.by(Instant::now() + STORE_TIMEOUT);
    match store.ping().await {
        Ok(StoreHealth::Whole) => Ok(()),
        Ok(StoreHealth::Degraded(reason)) => Err(CheckFailure::degraded(reason)),
        Err(error) => Err(CheckFailure::of_store(&error)),
    }
}

/// Whether each server writes to its disk before it answers, where `store.durability` needs it.
///
/// # Errors
/// Which does not, or does not tell.
pub async fn check_durability(store: Store) -> Result<(), CheckFailure> {
    let store = store.by(Instant::now() + STORE_TIMEOUT);
    match fsync_problem(&store).await {
        Ok(Some((node, shown))) => {
            Err(CheckFailure { reason: format!("{node}: {shown}"), shown, is_partial: true })
        }
        Ok(None) => Ok(()),
        // Why is said by the store's own check.
        Err(_) => Err("unknown: the store does not answer".into()),
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
            ("An error was signalled by the server: DB index is out of range", "database"),
            ("invalid peer certificate: UnknownIssuer", "TLS"),
            ("Connection refused 10.0.0.1:6379", "cannot be reached"),
            (
                "it is a node of a Redis Cluster: use redis+cluster://host:port",
                "must begin with redis+cluster://",
            ),
            ("it is a Sentinel: use redis+sentinel://host:port/SERVICE/DB", "redis+sentinel://"),
            ("it is a single server: use redis://host:port/DB", "must begin with redis://"),
        ] {
            let failure = CheckFailure::of_store(&StoreError::Unavailable(said.to_owned()));
            assert!(failure.shown.contains(shown), "{failure:?}");
            assert!(failure.reason.contains(said) && !failure.shown.contains("10."));
        }
    }
}

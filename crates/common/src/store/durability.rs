//! Whether acknowledged writes survive the server that took them.

use super::{Backend, Store, StoreError, call::call};

/// A server of the store that does not write to its disk before it answers, though replicated durability needs it: which, and
/// what is wrong.
///
/// # Errors
/// [`StoreError::Unavailable`].
pub async fn fsync_problem(store: &Store) -> Result<Option<(String, String)>, StoreError> {
    let end = store.end();
    match &store.backend {
        Backend::Redis(redis) => call("config", end, Box::pin(redis.fsync_problem(end))).await,
        Backend::Embedded(..) => Ok(None),
    }
}

//! Work that would hold up the other tasks of its thread.

use tokio::task::JoinError;

/// From this size on, encoding and decoding go to a blocking thread: below, they take less than moving them would.
const LARGE: usize = 64 * 1024;

/// Does work on that many bytes of JSON: large work on a blocking thread, so that no stream of this thread waits for it.
///
/// # Errors
/// Where the work panicked on the other thread.
pub(crate) async fn by_size<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if bytes < LARGE {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}

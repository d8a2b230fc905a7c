//! Waiting for something with an end to the patience: nothing in a test sleeps for luck.

use std::{
    future::Future,
    time::{Duration, Instant},
};

/// How long a test waits for what should take milliseconds; generous because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks again and again until there is an answer, and gives it back.
///
/// # Panics
/// When `limit` is over, saying `what` was waited for.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    limit: Duration,
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < end, "waited {limit:?} in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for that future.
///
/// # Panics
/// When `limit` is over, saying `what` was waited for.
pub async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    let Ok(done) = tokio::time::timeout(limit, future).await else {
        panic!("waited {limit:?} in vain for: {what}");
    };
    done
}

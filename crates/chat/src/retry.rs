//! Repeats a step of the store in the background.

use std::time::Duration;

use common::{shutdown::Shutdown, store::StoreError};
use futures_util::future::BoxFuture;
use tokio::time::sleep;

/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(250);

/// Repeats a step that is safe to repeat until the store has taken it, or the service stops.
pub(crate) fn in_background(
    shutdown: &Shutdown,
    step: impl Fn() -> BoxFuture<'static, Result<(), StoreError>> + Send + 'static,
) {
    let stopping = shutdown.clone();
    shutdown.spawn(async move {
        while let Err(error) = step().await {
            tracing::debug!(%error, "a step of the store is repeated");
            tokio::select! {
                () = stopping.stopping() => return,
                () = sleep(PAUSE) => {}
            }
        }
    });
}

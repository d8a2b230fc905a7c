//! Repeats a step of the store in the background.

use std::time::Duration;

use common::{identity::Owner, shutdown::Shutdown, store::StoreError};
use futures_util::future::BoxFuture;
use tokio::time::sleep;

use crate::store::ChatStore;

const PAUSE: Duration = Duration::from_millis(250);

/// Repeats a step that is safe to repeat until the store has taken it, or the service stops.
pub(crate) fn in_background<T: Clone + Send + Sync + 'static>(
    shutdown: &Shutdown,
    store: &ChatStore,
    owner: &Owner,
    record: &T,
    step: for<'a> fn(&'a ChatStore, &'a Owner, &'a T) -> BoxFuture<'a, Result<(), StoreError>>,
) {
    let (store, owner, record) = (store.clone(), owner.clone(), record.clone());
    let stopping = shutdown.clone();
    shutdown.spawn(async move {
        while let Err(error) = step(&store, &owner, &record).await {
            tracing::debug!(%error, "a step of the store is repeated");
            tokio::select! {
                () = stopping.stopping() => return,
                () = sleep(PAUSE) => {}
            }
        }
    });
}

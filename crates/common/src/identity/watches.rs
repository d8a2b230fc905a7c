//! Identities that something which is running depends on: streams, sockets, requests that wait.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Identity, error::IdentityError};

#[derive(Default)]
pub(super) struct Watches(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    last_id: u64,
    by_id: HashMap<u64, Watch>,
}

struct Watch {
    identity: Identity,
    ended: oneshot::Sender<IdentityError>,
}

/// Removes the watch of a future that is dropped.
struct WatchGuard<'a> {
    watches: &'a Watches,
    id: u64,
}

impl Drop for WatchGuard<'_> {
    fn drop(&mut self) {
        self.watches.0.lock().by_id.remove(&self.id);
    }
}

impl Watches {
    /// Resolves once [`Self::end`] is called for that identity.
    pub async fn wait(&self, identity: &Identity) -> IdentityError {
        let (ended, receiver) = oneshot::channel();
        let watch = Watch { identity: identity.clone(), ended };
        let registration = {
            let mut entries = self.0.lock();
            entries.last_id += 1;
            let id = entries.last_id;
            entries.by_id.insert(id, watch);
            WatchGuard { watches: self, id }
        };
        let error = receiver.await;
        drop(registration);
        match error {
            Ok(error) => error,
            Err(_) => std::future::pending().await,
        }
    }

    pub fn all(&self) -> Vec<(u64, Identity)> {
        let entries = self.0.lock();
        entries.by_id.iter().map(|(id, watch)| (*id, watch.identity.clone())).collect()
    }

    /// The identity was checked again and still holds.
    pub fn renew(&self, id: u64, identity: Identity) {
        if let Some(watch) = self.0.lock().by_id.get_mut(&id) {
            watch.identity = identity;
        }
    }

    pub fn end(&self, id: u64, error: IdentityError) {
        let watch = self.0.lock().by_id.remove(&id);
        if let Some(watch) = watch {
            // Fails only where nobody waits any more.
            let _ = watch.ended.send(error);
        }
    }
}

//! Identities that something which is running depends on: streams, sockets, requests that wait.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Identity, UserId, error::IdentityError};

#[derive(Default)]
pub(super) struct Watches(Mutex<Entries>);

/// A watch's user, and its number among all.
pub(super) type WatchKey = (UserId, u64);

#[derive(Default)]
struct Entries {
    last_id: u64,
    by_user: BTreeMap<WatchKey, Watch>,
}

struct Watch {
    identity: Identity,
    ended: oneshot::Sender<IdentityError>,
}

/// Removes the watch of a future that is dropped.
struct WatchGuard<'a> {
    watches: &'a Watches,
    key: WatchKey,
}

impl Drop for WatchGuard<'_> {
    fn drop(&mut self) {
        self.watches.0.lock().by_user.remove(&self.key);
    }
}

impl Watches {
    /// Resolves once [`Self::end`] is called for that identity.
    pub async fn wait(&self, identity: &Identity) -> IdentityError {
        let (ended, receiver) = oneshot::channel();
        let watch = Watch { identity: identity.clone(), ended };
        let _guard = {
            let mut entries = self.0.lock();
            entries.last_id += 1;
            let key = (identity.user().clone(), entries.last_id);
            entries.by_user.insert(key.clone(), watch);
            WatchGuard { watches: self, key }
        };
        match receiver.await {
            Ok(error) => error,
            Err(_) => std::future::pending().await,
        }
    }

    /// Each user once.
    pub fn users(&self) -> Vec<UserId> {
        let entries = self.0.lock();
        let mut users: Vec<_> = entries.by_user.keys().map(|(user, _)| user).collect();
        users.dedup();
        users.into_iter().cloned().collect()
    }

    /// The identities of a user that were checked at another revision of the account's state.
    pub fn outdated(&self, user: &UserId, revision: u64) -> Vec<(WatchKey, Identity)> {
        let entries = self.0.lock();
        let own = entries.by_user.range((user.clone(), 0)..=(user.clone(), u64::MAX));
        let outdated = own.filter(|(_, watch)| watch.identity.revision != revision);
        outdated.map(|(key, watch)| (key.clone(), watch.identity.clone())).collect()
    }

    /// The identity was checked again and still holds.
    pub fn renew(&self, key: &WatchKey, identity: Identity) {
        if let Some(watch) = self.0.lock().by_user.get_mut(key) {
            watch.identity = identity;
        }
    }

    pub fn end(&self, key: &WatchKey, error: IdentityError) {
        if let Some(watch) = self.0.lock().by_user.remove(key) {
            // Fails only where nobody waits any more.
            let _ = watch.ended.send(error);
        }
    }
}

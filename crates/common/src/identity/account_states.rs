//! Reads the states of accounts, and caches them for as long as a caller allows.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quick_cache::sync::Cache;

use super::{
    Credential, Owner, UserId,
    account::{self, AccountState},
};
use crate::{
    clock::Clock,
    store::{Found, Read, Store, StoreError, counter},
};

const CACHED_ACCOUNTS: usize = 20_000;
/// States that are read in one pipeline: no small call waits long behind it.
const BATCH: usize = 256;

pub(super) struct AccountStates {
    store: Store,
    cache: Cache<UserId, (Instant, Arc<AccountState>)>,
}

pub(super) struct StateSnapshot {
    pub(super) state: Arc<AccountState>,
    /// What decides on the credential beside the state.
    pub(super) evidence: Option<Bytes>,
    /// Unix seconds, by the store's clock.
    pub(super) now: i64,
}

impl AccountStates {
    pub(super) fn new(store: Store) -> Self {
        Self { store, cache: Cache::new(CACHED_ACCOUNTS) }
    }

    pub(super) fn clock(&self) -> &Clock {
        self.store.clock()
    }

    /// The state, if it was read within that time.
    pub(super) fn cached(&self, user: &UserId, max_age: Duration) -> Option<Arc<AccountState>> {
        let (read_at, state) = self.cache.get(user)?;
        (read_at.elapsed() < max_age).then_some(state)
    }

    /// The revisions of these users' states, as far as they can be read now, in one round trip to each node for many of them. A
    /// cached state of that revision is as good as new.
    pub(super) async fn revisions(&self, users: Vec<UserId>) -> Vec<(UserId, u64)> {
        let mut revisions = Vec::with_capacity(users.len());
        for batch in users.chunks(BATCH) {
            let reads = batch.iter().map(account::revision).collect();
            let read_at = Instant::now();
            let found = self.store.read_each(reads).await.unwrap_or_default();
            for (user, found) in batch.iter().zip(found) {
                let Ok(Found::Value(revision)) = found else { continue };
                let revision = counter(revision.as_ref());
                let cached = self.cache.get(user).filter(|(_, state)| state.revision == revision);
                if let Some((_, state)) = cached {
                    self.keep(user, read_at, state);
                }
                revisions.push((user.clone(), revision));
            }
        }
        revisions
    }

    /// The account's state and what else decides on the credential, at one moment.
    pub(super) async fn read(
        &self,
        owner: &Owner,
        credential: &Credential,
        deadline: Instant,
    ) -> Result<StateSnapshot, StoreError> {
        let mut reads = vec![Read::Fields(account::state(&owner.user))];
        reads.extend(account::evidence(owner, credential));
        // The age counts from before the read: what is changed while it runs may be missing in it.
        let read_at = Instant::now();
        let mut snapshot = self.store.by(deadline).read(reads).await?;
        let state = Arc::new(AccountState::read(&snapshot.fields(0)));
        self.keep(&owner.user, read_at, Arc::clone(&state));
        Ok(StateSnapshot { state, evidence: snapshot.value(1), now: snapshot.now.div_euclid(1000) })
    }

    fn keep(&self, user: &UserId, read_at: Instant, state: Arc<AccountState>) {
        // Of two reads that overlap, the one that began later stays.
        let cached = self.cache.get(user);
        if cached.is_none_or(|(at, _)| at <= read_at) {
            self.cache.insert(user.clone(), (read_at, state));
        }
    }
}

//! Background work on the indexes: withdraws the announcements of erasures whose deletion never happened, and removes accounts
//! that hold nothing.

use std::time::Duration;

use common::{config::LoginMode, identity::UserId, shutdown::Shutdown, store::StoreError};

use super::logins::IDLE_MARGIN_MS;
use crate::store::{AccountStore, Change};

const INTERVAL: Duration = Duration::from_secs(30);
/// An announcement this old, of an account that still exists, was abandoned: milliseconds.
const ABANDONED_MS: i64 = 60_000;
/// Entries of one slot that are looked at in one round.
const BATCH: usize = 200;

/// Cleans up. Every instance does it: it can be repeated.
pub struct Cleanup {
    login: LoginMode,
    store: AccountStore,
}

impl Cleanup {
    pub fn new(login: LoginMode, store: AccountStore) -> Self {
        Self { login, store }
    }

    /// Runs until the second stage of the shutdown.
    pub fn spawn(self, shutdown: &Shutdown) {
        shutdown.spawn_until_stop(async move {
            loop {
                if let Err(error) = self.run().await {
                    tracing::debug!(%error, "accounts not cleaned up");
                }
                tokio::time::sleep(INTERVAL).await;
            }
        });
    }

    pub async fn run(&self) -> Result<(), StoreError> {
        for owner in self.store.erasures(ABANDONED_MS, BATCH).await? {
            let current = self.store.load(&owner.user).await?;
            if current.state.generation <= owner.generation {
                self.store.withdraw_erasure(&owner).await?;
            }
        }
        // Where login is not open, nobody could get such an account back: it stays its owner's.
        if self.login == LoginMode::Open {
            for user in self.store.idle_accounts(BATCH).await? {
                self.expire(&user).await?;
            }
        }
        Ok(())
    }

    /// Removes an account that only open logins have used, once its logins are over and it has no API keys.
    async fn expire(&self, user: &UserId) -> Result<(), StoreError> {
        let owned = self.store.load_with_keys(user).await?;
        let (current, owner) = (&owned.current, owned.current.owner());
        let Some(account) = &current.account else { return self.store.remove_account(user).await };
        if account.password.is_some() {
            return self.store.check_again(user, None).await;
        }
        let mut check_at = account.logins_end_at.saturating_add(IDLE_MARGIN_MS);
        if check_at <= current.now {
            let keys = self.store.api_keys(&owner, &owned.key_ids).await?;
            let change = Change::of(current).expire(&owner, account);
            if keys.is_empty() && self.store.commit(change).await? {
                return self.store.remove_account(user).await;
            }
            check_at = current.now.saturating_add(IDLE_MARGIN_MS);
        }
        self.store.check_again(user, Some(check_at)).await
    }
}

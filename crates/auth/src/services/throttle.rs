//! Limits guessing: an attempt is counted before its password is hashed, and taken back when the password was right.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use common::identity::UserId;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{ROUNDS, error::AuthError};
use crate::store::AttemptStore;

/// Attempts on one account that one process makes at a time. Fewer than the free ones, so that right passwords sent at
/// once follow one another and are not taken for guesses.
const CONCURRENT_ATTEMPTS: usize = 2;
const PERMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Above so many accounts, those without an attempt are forgotten.
const SWEEP_AT: usize = 1024;

/// Decides who may try a password, by account and by address.
pub struct LoginThrottle {
    store: AttemptStore,
    running: Mutex<HashMap<UserId, Arc<Semaphore>>>,
}

/// An attempt that was counted and may go on.
pub struct Attempt {
    from: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl LoginThrottle {
    pub fn new(store: AttemptStore) -> Self {
        Self { store, running: Mutex::default() }
    }

    /// Counts an attempt on an account, which need not exist, from an address.
    ///
    /// # Errors
    /// [`AuthError::TooManyAttempts`] while either must wait; nothing is counted then.
    pub async fn begin(&self, user: &UserId, from: IpAddr) -> Result<Attempt, AuthError> {
        if let Some(wait) = self.store.load(user).await?.wait() {
            return Err(AuthError::TooManyAttempts(wait));
        }
        let permit = self.permit(user).await?;
        let address = self.store.admit_failure(from).await?;
        if !address.allowed {
            return Err(AuthError::TooManyAttempts(address.retry_after));
        }
        if let Err(error) = self.count(user).await {
            self.store.refund_failure(from).await?;
            return Err(error);
        }
        Ok(Attempt { from, _permit: permit })
    }

    /// Takes back what the attempt cost its address: the password was right. The account's count goes with the change that the
    /// attempt was made for.
    pub async fn succeed(&self, attempt: Attempt) {
        if let Err(error) = self.store.refund_failure(attempt.from).await {
            tracing::warn!(%error, "a successful attempt still counts as failed for its address");
        }
    }

    /// Counts a registration from an address.
    ///
    /// # Errors
    /// [`AuthError::TooManyAttempts`].
    pub async fn register(&self, from: IpAddr) -> Result<(), AuthError> {
        let address = self.store.admit_registration(from).await?;
        if !address.allowed {
            return Err(AuthError::TooManyAttempts(address.retry_after));
        }
        Ok(())
    }

    async fn permit(&self, user: &UserId) -> Result<OwnedSemaphorePermit, AuthError> {
        let semaphore = {
            let mut running = self.running.lock();
            if running.len() > SWEEP_AT {
                running.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
            }
            let new = || Arc::new(Semaphore::new(CONCURRENT_ATTEMPTS));
            running.entry(user.clone()).or_insert_with(new).clone()
        };
        match tokio::time::timeout(PERMIT_TIMEOUT, semaphore.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(AuthError::Overloaded),
        }
    }

    async fn count(&self, user: &UserId) -> Result<(), AuthError> {
        for _ in 0..ROUNDS {
            let seen = self.store.load(user).await?;
            if let Some(wait) = seen.wait() {
                return Err(AuthError::TooManyAttempts(wait));
            }
            if self.store.count(user, &seen).await? {
                return Ok(());
            }
        }
        Err(AuthError::Contended)
    }
}

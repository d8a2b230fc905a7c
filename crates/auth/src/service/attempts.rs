//! Guessing is made slow: an attempt is counted before its password is hashed, and given back when it was right.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use common::identity::UserId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Accounts, AuthError, ROUNDS};

/// Attempts that may fail before the first wait.
const FREE: u32 = 5;
/// The longest wait between two attempts.
const LONGEST: Duration = Duration::from_secs(60);
/// Attempts on one account that one process makes at a time. Fewer than [`FREE`], so that right passwords sent all at
/// once follow one another instead of being taken for guesses.
const AT_ONCE: usize = 2;
/// Longest wait for one's turn.
const PATIENCE: Duration = Duration::from_secs(10);
/// Past so many accounts, those that nobody tries now are forgotten.
const MANY: usize = 1024;

/// The turns of the accounts that are being tried.
#[derive(Default)]
pub struct LoginThrottle {
    lanes: Mutex<HashMap<UserId, Arc<Semaphore>>>,
}

impl LoginThrottle {
    async fn turn(&self, user: &UserId) -> Result<OwnedSemaphorePermit, AuthError> {
        let lane = {
            let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            if lanes.len() > MANY {
                lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
            }
            lanes
                .entry(user.clone())
                .or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE)))
                .clone()
        };
        match tokio::time::timeout(PATIENCE, lane.acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(AuthError::Overloaded),
        }
    }
}

/// An attempt that was counted and may go on.
pub(crate) struct Attempt {
    from: IpAddr,
    _turn: OwnedSemaphorePermit,
}

/// How long the next attempt waits after `failed` of them have.
fn wait_after(failed: u32) -> Duration {
    match failed.checked_sub(FREE) {
        None => Duration::ZERO,
        Some(more) => Duration::from_secs(1 << more.min(6)).min(LONGEST),
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

impl Accounts {
    /// Counts an attempt on an account, which need not exist, from an address.
    ///
    /// # Errors
    /// [`AuthError::TooManyAttempts`] while either must wait; nothing is counted then.
    pub(crate) async fn begin_attempt(
        &self,
        user: &UserId,
        from: IpAddr,
    ) -> Result<Attempt, AuthError> {
        self.may_try(user).await?;
        let turn = self.guard.turn(user).await?;
        let address = self.repository.admit_attempt(from).await?;
        if !address.allowed {
            return Err(AuthError::TooManyAttempts(address.retry_after));
        }
        let counted = self.count(user).await;
        if counted.is_err() {
            self.repository.refund_attempt(from).await?;
        }
        counted.map(|()| Attempt { from, _turn: turn })
    }

    /// The attempt was right: it costs the address nothing. The account's count is forgotten by the caller.
    pub(crate) async fn succeed(&self, attempt: Attempt) {
        if let Err(error) = self.repository.refund_attempt(attempt.from).await {
            tracing::warn!(error = %error, "attempt not given back");
        }
    }

    async fn may_try(&self, user: &UserId) -> Result<(), AuthError> {
        let seen = self.repository.attempts(user).await?;
        match u64::try_from(seen.until - seen.now) {
            Ok(left) if left > 0 => Err(AuthError::TooManyAttempts(Duration::from_millis(left))),
            _ => Ok(()),
        }
    }

    async fn count(&self, user: &UserId) -> Result<(), AuthError> {
        for _ in 0..ROUNDS {
            let seen = self.repository.attempts(user).await?;
            if seen.until > seen.now {
                let left = u64::try_from(seen.until - seen.now).unwrap_or(0);
                return Err(AuthError::TooManyAttempts(Duration::from_millis(left)));
            }
            let until = seen.now + millis(wait_after(seen.failed.saturating_add(1)));
            if self.repository.count_attempt(user, &seen, until).await? {
                return Ok(());
            }
        }
        Err(AuthError::Contended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_are_free_then_waits_double_up_to_a_minute() {
        let waits: Vec<u64> = (1..=13)
            .map(|failed| wait_after(failed).as_secs())
            .collect();
        assert_eq!(waits, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(wait_after(u32::MAX), LONGEST);
    }
}

//! The reservation of a running completion: made before the model is asked, renewed while it runs, settled once.

use std::time::{Duration, Instant};

use common::{identity::Owner, shutdown::Shutdown, store::StoreError};
use tokio::time::{sleep, timeout};

use crate::{
    domain::Usage,
    error::ChatError,
    retry,
    store::{ChatStore, reservations::Reservation},
};

/// How long settling is repeated for a store that does not take it.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often it is tried again.
const SETTLE_PAUSE: Duration = Duration::from_millis(100);

/// A completion's reservation.
pub(super) struct HeldReservation {
    store: ChatStore,
    owner: Owner,
    reservation: Reservation,
    quota: Option<u64>,
    shutdown: Shutdown,
}

impl HeldReservation {
    pub(super) fn new(
        store: ChatStore,
        owner: Owner,
        reservation: Reservation,
        quota: Option<u64>,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            store,
            owner,
            reservation,
            quota,
            shutdown,
        }
    }

    /// Holds the tokens, by the deadline; where the outcome stays unknown, withdraws the reservation in the background.
    pub(super) async fn reserve(&self, deadline: Instant) -> Result<(), ChatError> {
        let store = self.store.by(deadline);
        match store
            .reservations()
            .reserve(&self.owner, &self.reservation, self.quota)
            .await
        {
            Ok(true) => Ok(()),
            Ok(false) => Err(ChatError::QuotaExceeded {
                tokens_per_day: self.quota.unwrap_or_default(),
            }),
            Err(error) => {
                if matches!(error, StoreError::Unavailable(_)) {
                    self.withdraw_later();
                }
                Err(error.into())
            }
        }
    }

    fn withdraw_later(&self) {
        let (store, owner) = (self.store.clone(), self.owner.clone());
        let reservation = self.reservation.clone();
        retry::in_background(&self.shutdown, move || {
            let (store, owner) = (store.clone(), owner.clone());
            let reservation = reservation.clone();
            Box::pin(async move { store.reservations().withdraw(&owner, &reservation).await })
        });
    }

    /// Renews the lease until it is dropped, so that no other process takes this one for dead.
    pub(super) async fn renew(&self) {
        loop {
            sleep(self.store.lease() / 3).await;
            let renewed = self
                .store
                .reservations()
                .renew(&self.owner, &self.reservation)
                .await;
            if let Err(error) = renewed {
                tracing::debug!(%error, "a completion's lease was not renewed");
            }
        }
    }

    /// Stores what was used, until the store takes it.
    ///
    /// # Errors
    /// After 30 s.
    pub(super) async fn settle(&self, usage: Usage) -> Result<(), tokio::time::error::Elapsed> {
        let settled = async {
            loop {
                match self
                    .store
                    .reservations()
                    .settle(&self.owner, &self.reservation, usage)
                    .await
                {
                    Ok(()) | Err(StoreError::Corrupt(_)) => return,
                    Err(_) => sleep(SETTLE_PAUSE).await,
                }
            }
        };
        timeout(SETTLE_TIMEOUT, settled).await
    }
}

//! The reservation of a running completion: made before the model is asked, renewed while it runs, settled once.

use std::time::{Duration, Instant};

use common::{
    clock,
    identity::{Authenticator, Identity},
    shutdown::Shutdown,
    store::StoreError,
};
use tokio::{
    sync::mpsc,
    time::{error::Elapsed, sleep, timeout},
};

use crate::{
    domain::{Usage, random_text},
    error::ChatError,
    generation::stateless::{CompletionService, READER_TIMEOUT},
    retry,
    store::{
        ChatStore,
        reservation::Reservation,
        reservations::{QuotaExceeded, Reserved},
    },
};

/// How long a complete answer's end waits for its usage to be stored; after that it is stored later.
const SETTLE_WAIT: Duration = Duration::from_secs(1);

/// How long settling is repeated for a store that does not take it.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);

const SETTLE_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct HeldReservation {
    store: ChatStore,
    authenticator: Authenticator,
    identity: Identity,
    reservation: Reservation,
    quota: Option<u64>,
    shutdown: Shutdown,
}

impl HeldReservation {
    /// A reservation to be made: of that many tokens where there is a quota, of which so many are the prompt's.
    pub(super) fn new(
        service: &CompletionService,
        identity: Identity,
        tokens: u64,
        prompt: u64,
    ) -> Self {
        let CompletionService { store, authenticator, tokens_per_day: quota, shutdown, .. } =
            service.clone();
        let reservation = Reservation {
            id: random_text(24),
            day: clock::utc_day(clock::now_ms()),
            tokens: quota.map_or(0, |_| tokens),
            prompt,
        };
        Self { store, authenticator, identity, reservation, quota, shutdown }
    }

    /// Holds the tokens, by the deadline; where the outcome stays unknown, withdraws the reservation in the background. Returns
    /// the most tokens that the answer may have, where less is left of the quota than it could take.
    pub(super) async fn reserve(&mut self, deadline: Instant) -> Result<Option<u64>, ChatError> {
        let (store, asked) = (self.store.by(deadline), self.reservation.tokens);
        let store = store.reservations();
        loop {
            match store.reserve(&self.identity, &mut self.reservation, self.quota).await {
                Ok(Reserved::Yes) => {
                    let Reservation { tokens, prompt, .. } = self.reservation;
                    return Ok((tokens < asked).then(|| tokens.saturating_sub(prompt)));
                }
                Ok(Reserved::QuotaExceeded(QuotaExceeded { is_held })) => {
                    let tokens_per_day = self.quota.unwrap_or_default();
                    return Err(ChatError::QuotaExceeded { tokens_per_day, is_held });
                }
                Ok(Reserved::AccountChanged) => {
                    self.identity = self.authenticator.recheck(&self.identity, deadline).await?;
                }
                Err(error) => {
                    if matches!(error, StoreError::Unavailable(_)) {
                        self.withdraw_later();
                    }
                    return Err(error.into());
                }
            }
        }
    }

    fn withdraw_later(&self) {
        let (owner, held) = (&self.identity.owner, &self.reservation);
        retry::in_background(&self.shutdown, &self.store, owner, held, |store, owner, held| {
            Box::pin(async move { store.reservations().withdraw(owner, held).await })
        });
    }

    /// Renews the lease until it is dropped, so that no other process takes this one for dead.
    pub(super) async fn renew(&self) {
        loop {
            sleep(self.store.lease() / 3).await;
            let renewed =
                self.store.reservations().renew(&self.identity.owner, &self.reservation).await;
            if let Err(error) = renewed {
                tracing::debug!(%error, "a completion's lease was not renewed");
            }
        }
    }

    /// Stores what was used, until the store takes it, and sends the last result. A client that was answered finds it in its
    /// usage; a failure waits for nothing.
    ///
    /// # Errors
    /// Where the store did not take it for 30 s.
    pub(super) async fn settle<T>(
        &self,
        usage: Usage,
        results: &mpsc::Sender<Result<T, ChatError>>,
        last: Result<T, ChatError>,
    ) -> Result<(), Elapsed> {
        let wait = if last.is_ok() { SETTLE_WAIT } else { Duration::ZERO };
        let settling = timeout(SETTLE_TIMEOUT, self.store_usage(usage));
        tokio::pin!(settling);
        let first = timeout(wait, &mut settling).await;
        let settled = async {
            match first {
                Ok(settled) => settled,
                Err(_) => settling.await,
            }
        };
        tokio::join!(settled, timeout(READER_TIMEOUT, results.send(last))).0
    }

    async fn store_usage(&self, usage: Usage) {
        let store = self.store.reservations();
        loop {
            match store.settle(&self.identity.owner, &self.reservation, usage).await {
                Ok(()) | Err(StoreError::Corrupt(_)) => return,
                Err(_) => sleep(SETTLE_PAUSE).await,
            }
        }
    }
}

//! What a user has used.

use std::time::Instant;

use common::{clock, identity::Owner};

pub use crate::store::usage::DayUsage;
use crate::{error::ChatError, store::ChatStore};

#[derive(Clone)]
pub struct UsageService(pub ChatStore);

impl UsageService {
    /// What the owner has used since midnight UTC.
    ///
    /// # Errors
    /// [`ChatError::Store`].
    pub async fn today(&self, owner: &Owner, deadline: Instant) -> Result<DayUsage, ChatError> {
        let today = clock::utc_day(clock::now_ms());
        Ok(self.0.by(deadline).reservations().usage(owner, &today).await?)
    }
}

//! The tokens of a user's day.

use common::{
    identity::Owner,
    store::{Read, StoreError, counter},
};

use crate::store::{keys::Keys, reservations::ReservationStore};

/// What a user used in a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DayUsage {
    pub prompt: u64,
    pub completion: u64,
    pub requests: u64,
    /// Tokens that count against the quota: used, or held by what is running.
    pub held: u64,
}

impl ReservationStore<'_> {
    /// What was used on that day (`YYYYMMDD`, UTC). Settles the reservations of dead processes first.
    pub async fn usage(&self, owner: &Owner, day: &str) -> Result<DayUsage, StoreError> {
        let keys = Keys::of(owner);
        let read = vec![Read::Fields(keys.usage(day))];
        let mut fields = self.context.store.read(read.clone()).await?.fields(0);
        if self.settle_dead(&keys, day, &fields).await? > 0 {
            fields = self.context.store.read(read).await?.fields(0);
        }
        // A withdrawn turn may bring one below zero for a moment.
        let number = |name| counter(fields.get(name));
        Ok(DayUsage {
            prompt: number("prompt"),
            completion: number("completion"),
            requests: number("requests"),
            held: number("held"),
        })
    }
}

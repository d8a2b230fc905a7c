//! The tokens of a user's day.

use std::collections::HashMap;

use common::{
    identity::Owner,
    store::{Bytes, Read, StoreError},
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
        Ok(DayUsage {
            prompt: number(&fields, "prompt"),
            completion: number(&fields, "completion"),
            requests: number(&fields, "requests"),
            held: number(&fields, "held"),
        })
    }
}

/// A counter; one below zero, which a withdrawn turn may cause for a moment, counts as zero.
fn number(fields: &HashMap<String, Bytes>, name: &str) -> u64 {
    let text = fields.get(name).and_then(|value| std::str::from_utf8(value).ok());
    let number: i64 = text.and_then(|text| text.parse().ok()).unwrap_or_default();
    u64::try_from(number).unwrap_or_default()
}

//! The tokens of a day.

use std::collections::HashMap;

use common::{
    identity::Owner,
    store::{Bytes, Read, StoreError},
};

use super::{Repository, keys::Keys};

/// What a user used in a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DayUsage {
    /// Tokens read.
    pub prompt: u64,
    /// Tokens written.
    pub completion: u64,
    /// Turns.
    pub requests: u64,
    /// What counts against the quota: what was spent, and what running turns reserved.
    pub held: u64,
}

impl Repository {
    /// What was used on that day (`YYYYMMDD`, UTC). Settles what processes that died had set aside.
    pub async fn usage(&self, owner: &Owner, day: &str) -> Result<DayUsage, StoreError> {
        let keys = Keys::of(owner);
        let read = vec![
            Read::Fields(keys.usage(day)),
            Read::Fields(keys.completions()),
        ];
        let mut found = self.store.read(read.clone()).await?;
        let mut fields = found.fields(0);
        if self.settle_dead_of(&keys, found.fields(1)).await? > 0 {
            fields = self.store.read(read).await?.fields(0);
        }
        Ok(DayUsage {
            prompt: number(&fields, "prompt"),
            completion: number(&fields, "completion"),
            requests: number(&fields, "requests"),
            held: number(&fields, "held"),
        })
    }
}

/// A counter; a withdrawn turn may have taken it below zero for a moment.
fn number(fields: &HashMap<String, Bytes>, name: &str) -> u64 {
    let text = fields
        .get(name)
        .and_then(|value| std::str::from_utf8(value).ok());
    let number: i64 = text.and_then(|text| text.parse().ok()).unwrap_or_default();
    u64::try_from(number).unwrap_or_default()
}

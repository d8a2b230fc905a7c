//! The tokens of a user's day.

use std::{collections::HashMap, time::Duration};

use common::{
    identity::Owner,
    store::{Bytes, Check, Op, Read, StoreError, Txn},
};

use crate::{
    domain::Usage,
    store::{keys::Keys, reservations::ReservationStore, signed},
};

/// How long a day's usage is kept.
const USAGE_TTL: Duration = Duration::from_secs(48 * 3600);

/// What a user used in a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DayUsage {
    /// Tokens read.
    pub prompt: u64,
    /// Tokens generated.
    pub completion: u64,
    /// Turns and completions that have ended.
    pub requests: u64,
    /// Tokens that count against the quota: used, or held by what is running.
    pub held: u64,
}

impl ReservationStore<'_> {
    /// What was used on that day (`YYYYMMDD`, UTC). Settles the reservations of dead processes first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn usage(&self, owner: &Owner, day: &str) -> Result<DayUsage, StoreError> {
        let keys = Keys::of(owner);
        let read = vec![
            Read::Fields(keys.usage(day)),
            Read::Fields(keys.reservations()),
        ];
        let mut found = self.context.store.read(read.clone()).await?;
        let mut fields = found.fields(0);
        if self.settle_dead_of(&keys, found.fields(1)).await? > 0 {
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

/// Holds tokens of the day's quota; returns which check guards it, if there is a quota.
pub(super) fn hold(
    keys: &Keys,
    day: &str,
    tokens: u64,
    quota: Option<u64>,
    txn: &mut Txn,
) -> Option<usize> {
    let (key, tokens) = (keys.usage(day), signed(tokens));
    let check = quota.map(|quota| {
        txn.checks.push(Check::FieldAtMost(
            key.clone(),
            "held".into(),
            signed(quota).saturating_sub(tokens),
        ));
        txn.checks.len() - 1
    });
    txn.ops.extend([
        Op::FieldAdd(key.clone(), "held".into(), tokens),
        Op::Expire(key, Some(USAGE_TTL)),
    ]);
    check
}

/// Gives back what was held for something that did not take place.
pub(super) fn release(keys: &Keys, day: &str, tokens: u64) -> [Op; 2] {
    let key = keys.usage(day);
    [
        Op::FieldAdd(key.clone(), "held".into(), -signed(tokens)),
        Op::Expire(key, Some(USAGE_TTL)),
    ]
}

/// Counts a request that has ended, and replaces what was held for it by what it used.
pub(super) fn count(keys: &Keys, day: &str, held: u64, usage: Usage) -> [Op; 5] {
    let key = keys.usage(day);
    let add = |field: &str, by: i64| Op::FieldAdd(key.clone(), field.into(), by);
    let spent = usage.prompt_tokens.saturating_add(usage.completion_tokens);
    [
        add("requests", 1),
        add("prompt", signed(usage.prompt_tokens)),
        add("completion", signed(usage.completion_tokens)),
        add("held", signed(spent).saturating_sub(signed(held))),
        Op::Expire(key.clone(), Some(USAGE_TTL)),
    ]
}

/// A counter; one below zero, which a withdrawn turn may cause for a moment, counts as zero.
fn number(fields: &HashMap<String, Bytes>, name: &str) -> u64 {
    let text = fields
        .get(name)
        .and_then(|value| std::str::from_utf8(value).ok());
    let number: i64 = text.and_then(|text| text.parse().ok()).unwrap_or_default();
    u64::try_from(number).unwrap_or_default()
}

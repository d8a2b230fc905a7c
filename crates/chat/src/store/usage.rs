//! The tokens of a day: reserved before they are used, settled after.

use std::{collections::HashMap, time::Duration};

use common::{
    identity::Owner,
    store::{Bytes, Check, Op, Read, StoreError, Txn},
};

use crate::{
    domain::Usage,
    store::{Repository, keys::Keys, sessions::signed},
};

/// How long a day's usage is kept.
const USAGE_TTL: Duration = Duration::from_secs(48 * 3600);

/// What a user used in a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DayUsage {
    /// Tokens read.
    pub prompt: u64,
    /// Tokens written.
    pub completion: u64,
    /// Turns and completions that are over.
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

/// Sets tokens aside of the day's quota; returns which check guards it, where there is one.
pub(crate) fn reserve(
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

/// Gives back what was set aside for something that did not take place.
pub(crate) fn release(keys: &Keys, day: &str, reserved: u64) -> Option<Op> {
    (reserved > 0).then(|| Op::FieldAdd(keys.usage(day), "held".into(), -signed(reserved)))
}

/// Counts a request that is over, and puts what it cost in the place of what was reserved for it.
pub(crate) fn settle(keys: &Keys, day: &str, reserved: u64, usage: Usage) -> [Op; 5] {
    let key = keys.usage(day);
    let add = |field: &str, by: i64| Op::FieldAdd(key.clone(), field.into(), by);
    let spent = usage.prompt_tokens.saturating_add(usage.completion_tokens);
    [
        add("requests", 1),
        add("prompt", signed(usage.prompt_tokens)),
        add("completion", signed(usage.completion_tokens)),
        add("held", signed(spent).saturating_sub(signed(reserved))),
        Op::Expire(key.clone(), Some(USAGE_TTL)),
    ]
}

/// A counter; a withdrawn turn may have taken it below zero for a moment.
fn number(fields: &HashMap<String, Bytes>, name: &str) -> u64 {
    let text = fields
        .get(name)
        .and_then(|value| std::str::from_utf8(value).ok());
    let number: i64 = text.and_then(|text| text.parse().ok()).unwrap_or_default();
    u64::try_from(number).unwrap_or_default()
}

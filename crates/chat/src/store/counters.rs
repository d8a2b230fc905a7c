//! The counters of a user's day.

use std::time::Duration;

use common::store::{Check, Op, Txn};

use crate::{
    domain::Usage,
    store::{keys::Keys, signed},
};

/// How long a day's usage is kept after the last request of it has begun.
pub(super) const USAGE_TTL: Duration = Duration::from_secs(48 * 3600);

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
    txn.ops.push(Op::FieldAdd(key, "held".into(), tokens));
    check
}

/// Gives back what was held for something that did not take place.
pub(super) fn release(keys: &Keys, day: &str, tokens: u64) -> [Op; 1] {
    [Op::FieldAdd(keys.usage(day), "held".into(), -signed(tokens))]
}

/// Counts a request that has ended, and replaces what was held for it by what it used.
pub(super) fn count(keys: &Keys, day: &str, held: u64, usage: Usage) -> [Op; 4] {
    let key = keys.usage(day);
    let add = |field: &str, by: i64| Op::FieldAdd(key.clone(), field.into(), by);
    let spent = usage.prompt_tokens.saturating_add(usage.completion_tokens);
    [
        add("requests", 1),
        add("prompt", signed(usage.prompt_tokens)),
        add("completion", signed(usage.completion_tokens)),
        add("held", signed(spent).saturating_sub(signed(held))),
    ]
}

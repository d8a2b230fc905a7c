//! What a piece of work cost: the difference of two looks at the watched processes, divided by what was done.

use std::collections::BTreeMap;

use bench::process::Usage;
use serde_json::{Map, Value, json};

/// CPU time and memory of each group between two looks; `units` is how much was done, in words such as `request`.
pub fn cost(
    before: &BTreeMap<String, Usage>,
    after: &BTreeMap<String, Usage>,
    seconds: f64,
    units: (&str, f64),
) -> Value {
    let (unit, done) = units;
    let of_group = |(name, after): (&String, &Usage)| {
        let before = before.get(name).copied().unwrap_or_default();
        let cpu_us = float(after.cpu_us.saturating_sub(before.cpu_us));
        let cost = json!({
            "cores": round(cpu_us / 1e6 / seconds),
            format!("cpu_us_per_{unit}"): round(cpu_us / done.max(1.0)),
            "rss_kib": after.rss_kib,
            "rss_grown_kib": float(after.rss_kib) - float(before.rss_kib),
        });
        (name.clone(), cost)
    };
    Value::Object(after.iter().map(of_group).collect::<Map<_, _>>())
}

/// A count as a number to divide.
#[expect(clippy::cast_precision_loss, reason = "no count comes near 2^52")]
pub fn float(count: u64) -> f64 {
    count as f64
}

/// To three decimals, for people.
pub fn round(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

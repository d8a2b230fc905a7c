//! WebSockets that are open and say nothing: what each keeps in memory, and whether idle ones cost time.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    account::{cost, float, round},
    target::Target,
};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Sockets.
    #[arg(long, default_value_t = 1000)]
    count: u32,
    /// Seconds that they stay.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<Value> {
    let Arguments { target, count, .. } = &arguments;
    let callers = target.callers(usize::try_from(*count)?).await?;
    let none = target.usage();
    let mut sockets = Vec::new();
    for caller in callers {
        sockets.push(caller.upgrade().await?);
    }
    sleep(Duration::from_millis(500)).await;
    let before = target.usage();
    sleep(Duration::from_secs_f64(arguments.seconds)).await;
    let after = target.usage();
    let open = float(u64::try_from(sockets.len())?);
    let grown: std::collections::BTreeMap<_, _> = after
        .iter()
        .map(|(name, after)| {
            let before = none.get(name).map_or(0, |usage| usage.rss_kib);
            let each = (float(after.rss_kib) - float(before)) / open;
            (name.clone(), round(each))
        })
        .collect();
    Ok(json!({
        "sockets": sockets.len(),
        "rss_kib_per_socket": grown,
        "cost": cost(&before, &after, arguments.seconds, ("socket", open)),
    }))
}

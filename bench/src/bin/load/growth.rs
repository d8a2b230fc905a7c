//! Turns of one user while a session grows, or while the number of sessions does: what a turn then takes.

use std::collections::BTreeMap;

use bench::{
    http::Connection,
    plan::Plan,
    stamp::{self, Scanner},
};
use clap::Args;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::target::{Form, Target};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Turns in all.
    #[arg(long, default_value_t = 2000)]
    turns: u64,
    /// Begin a session with every turn.
    #[arg(long)]
    sessions: bool,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<Value> {
    let mut callers = arguments.target.callers(1).await?;
    let caller = callers.pop().ok_or_else(|| anyhow::anyhow!("there is no caller"))?;
    let mut connection = Connection::open(&caller.address).await?;
    let plan = Plan::default();
    let mut seen = BTreeMap::new();
    for turn in 0..arguments.turns {
        let session = caller.session(if arguments.sessions { turn } else { 0 });
        let request = caller.request_in(Form::Whole, &session, &plan);
        let begun = Instant::now();
        let mut scanner = Scanner::default();
        let status = connection.ask(&request, |bytes| scanner.feed(bytes, |_| {})).await?;
        anyhow::ensure!(status == 200, "turn {turn}: status {status}");
        // 1-10, 11-100, 101-1,000 and so on.
        let place = 10_u64.pow(turn.max(1).ilog10() + 1);
        seen.entry(place)
            .or_insert_with(stamp::histogram)
            .saturating_record(crate::turns::ns(begun.elapsed()));
    }
    let up_to: BTreeMap<_, _> =
        seen.iter().map(|(place, times)| (place.to_string(), stamp::percentiles(times))).collect();
    Ok(json!({ "turns": arguments.turns, "up_to_turn": up_to }))
}

//! Answers one after another on kept-alive connections: closed loop, or at a constant rate whatever the answers take.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bench::{
    http::Connection,
    plan::Plan,
    stamp::{self, Scanner},
};
use clap::Args;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    account::{cost, float, round},
    target::{Caller, Form, Target},
};

/// What is not counted at the beginning: connections, caches, the first prompt of each session.
const WARM_UP: Duration = Duration::from_millis(500);

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    target: Target,
    #[arg(long, value_enum, default_value = "whole")]
    form: Form,
    #[arg(long, default_value_t = 1)]
    connections: usize,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Requests a second over all connections; 0 for as many as are answered. Then a late one counts from when it was due.
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// Tokens of an answer.
    #[arg(long, default_value_t = 16)]
    tokens: u64,
    /// Microseconds between two tokens.
    #[arg(long, default_value_t = 0)]
    gap_us: u64,
}

/// What all callers saw within the time that counts.
struct Seen {
    whole: Histogram<u64>,
    first: Histogram<u64>,
    /// Answers with 503.
    refused: Histogram<u64>,
    failed: u64,
    /// Tokens as they came, also of answers that were not whole in time.
    tokens: u64,
}

struct Loop {
    form: Form,
    plan: Plan,
    every: Option<Duration>,
    counts_from: Instant,
    until: Instant,
    seen: Arc<Mutex<Seen>>,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<Value> {
    let Arguments { target, form, .. } = &arguments;
    let callers = target.callers(arguments.connections).await?;
    let seen = Arc::new(Mutex::new(Seen {
        whole: stamp::histogram(),
        first: stamp::histogram(),
        refused: stamp::histogram(),
        failed: 0,
        tokens: 0,
    }));
    let begin = Instant::now();
    let counts_from = begin + WARM_UP;
    let until = counts_from + Duration::from_secs_f64(arguments.seconds);
    let connections = u32::try_from(arguments.connections).unwrap_or(u32::MAX);
    let every = (arguments.rate > 0.0)
        .then(|| Duration::from_secs_f64(f64::from(connections) / arguments.rate));
    let mut loops = JoinSet::new();
    for (number, caller) in callers.into_iter().enumerate() {
        let number = u32::try_from(number).unwrap_or(0);
        let offset = every.map_or(Duration::ZERO, |every| every * number / connections);
        let this = Loop {
            form: *form,
            plan: Plan {
                tokens: arguments.tokens,
                gap: Duration::from_micros(arguments.gap_us),
                first: Duration::ZERO,
            },
            every,
            counts_from,
            until,
            seen: Arc::clone(&seen),
        };
        loops.spawn(this.run(caller, begin + offset));
    }
    sleep_until(counts_from).await;
    let (before, tokens_before) = (target.usage(), tokens_of(&seen));
    sleep_until(until).await;
    let (after, tokens_after) = (target.usage(), tokens_of(&seen));
    while let Some(ended) = loops.join_next().await {
        ended??;
    }
    let seen = lock(&seen);
    let done = float(seen.whole.len());
    let tokens = tokens_after - tokens_before;
    Ok(json!({
        "requests": seen.whole.len(),
        "failed": seen.failed,
        "refused": seen.refused.len(),
        "refusal": stamp::percentiles(&seen.refused),
        "tokens": tokens,
        "per_second": round(done / arguments.seconds),
        "tokens_per_second": round(float(tokens) / arguments.seconds),
        "whole": stamp::percentiles(&seen.whole),
        "first_token": stamp::percentiles(&seen.first),
        "cost": cost(&before, &after, arguments.seconds, ("request", done)),
        "cost_of_tokens": cost(&before, &after, arguments.seconds, ("token", float(tokens))),
    }))
}

impl Loop {
    async fn run(self, caller: Caller, mut due: Instant) -> anyhow::Result<()> {
        let mut connection = Connection::open(&caller.address).await?;
        for turn in 0.. {
            let request = caller.request(self.form, turn, &self.plan);
            match self.every {
                Some(_) => sleep_until(due).await,
                None => due = Instant::now(),
            }
            if due >= self.until {
                break;
            }
            let sent = Instant::now();
            let (mut scanner, mut first) = (Scanner::default(), None);
            let asked = connection.ask(&request, |bytes| {
                let before = scanner.tokens;
                scanner.feed(bytes, |_| {
                    first.get_or_insert_with(Instant::now);
                });
                lock(&self.seen).tokens += scanner.tokens - before;
            });
            // What is still under way when the time is over counts for its tokens alone.
            let Ok(status) = timeout_at(self.until, asked).await else {
                break;
            };
            let status = status?;
            let ended = Instant::now();
            if due >= self.counts_from && ended <= self.until {
                let mut seen = lock(&self.seen);
                if status == 200 && scanner.tokens == self.plan.tokens {
                    seen.whole.saturating_record(ns(ended - due));
                    seen.first.saturating_record(ns(first.unwrap_or(ended) - due));
                } else if status == 503 {
                    seen.refused.saturating_record(ns(ended - sent));
                } else {
                    seen.failed += 1;
                }
            }
            due += self.every.unwrap_or_default();
        }
        Ok(())
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tokens_of(seen: &Mutex<Seen>) -> u64 {
    lock(seen).tokens
}

/// A duration in nanoseconds.
pub fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

//! Many streams at once, each paced by the model: what arrives, how late, and what the contender spends on it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bench::{
    http::{Connection, Decoder},
    plan::Plan,
    stamp::{self, Scanner},
};
use clap::Args;
use hdrhistogram::Histogram;
use memchr::memmem;
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    account::{cost, float, round},
    target::{Caller, Form, Target},
};

/// What passes between the last stream's opening and the time that counts.
const SETTLE: Duration = Duration::from_millis(500);

/// What a contender gets beyond the model's own time before what is missing counts as lost.
const GRACE: Duration = Duration::from_secs(3);

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    target: Target,
    #[arg(long, value_enum, default_value = "sse")]
    form: Form,
    /// Streams.
    #[arg(long, default_value_t = 1000)]
    count: u32,
    /// Tokens a second of each.
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// Seconds over which they are opened.
    #[arg(long, default_value_t = 2.0)]
    ramp: f64,
    /// Seconds that count, with all of them open.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
}

/// What all streams saw.
struct Seen {
    way: Histogram<u64>,
    tokens: u64,
    opened: u64,
    ended: u64,
}

struct Stream {
    form: Form,
    plan: Plan,
    counts_from_ns: u64,
    seen: Arc<Mutex<Seen>>,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<Value> {
    let Arguments { target, count, .. } = &arguments;
    let callers = target.callers(usize::try_from(*count)?).await?;
    let seen =
        Arc::new(Mutex::new(Seen { way: stamp::histogram(), tokens: 0, opened: 0, ended: 0 }));
    let ramp = Duration::from_secs_f64(arguments.ramp);
    let counted = Duration::from_secs_f64(arguments.seconds);
    let gap = Duration::from_secs_f64(1.0 / arguments.rate);
    let tokens = ((ramp + SETTLE + counted).as_secs_f64() * arguments.rate).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small whole number"
    )]
    let tokens = tokens as u64;
    let plan = Plan { tokens, gap, first: Duration::ZERO };
    let idle = target.usage();
    let begin = Instant::now();
    let begin_ns = stamp::now_ns();
    let deadline = begin + ramp + ramp + SETTLE + counted + GRACE;
    let mut streams = JoinSet::new();
    for (number, caller) in callers.into_iter().enumerate() {
        let at = begin + ramp * u32::try_from(number)? / *count;
        let stream = Stream {
            form: arguments.form,
            plan,
            counts_from_ns: begin_ns + crate::turns::ns(ramp + SETTLE),
            seen: Arc::clone(&seen),
        };
        streams.spawn(async move {
            sleep_until(at).await;
            timeout_at(deadline, stream.run(&caller)).await
        });
    }
    sleep_until(begin + ramp + SETTLE).await;
    let (before, tokens_before) = (target.usage(), tokens_of(&seen));
    sleep_until(begin + ramp + SETTLE + counted).await;
    let (after, tokens_after) = (target.usage(), tokens_of(&seen));
    let mut failures = Vec::new();
    while let Some(ended) = streams.join_next().await {
        match ended? {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failures.push(error.to_string()),
            Err(_) => failures.push("it did not end in time".to_owned()),
        }
    }
    let relayed = float(tokens_after - tokens_before);
    let grown: Vec<_> = after
        .iter()
        .map(|(name, after)| {
            let before = idle.get(name).map_or(0, |usage| usage.rss_kib);
            let each = (float(after.rss_kib) - float(before)) / f64::from(*count);
            (name.clone(), round(each))
        })
        .collect();
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(json!({
        "streams": count, "opened": seen.opened, "ended": seen.ended,
        "failed": failures.len(), "first_failure": failures.first(),
        "delivered": round(float(seen.tokens) / float(tokens * u64::from(*count))),
        "tokens_per_second": round(relayed / arguments.seconds),
        "one_way": stamp::percentiles(&seen.way),
        "rss_kib_per_stream": grown.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        "cost": cost(&before, &after, arguments.seconds, ("token", relayed)),
    }))
}

fn tokens_of(seen: &Mutex<Seen>) -> u64 {
    seen.lock().unwrap_or_else(PoisonError::into_inner).tokens
}

impl Stream {
    async fn run(&self, caller: &Caller) -> anyhow::Result<()> {
        let request = caller.request(self.form, 0, &self.plan);
        let is_socket = self.form == Form::Ws;
        let mut connection = match is_socket {
            true => caller.upgrade().await?,
            false => Connection::open(&caller.address).await?,
        };
        connection.send(&request).await?;
        let (mut scanner, mut ending, mut decoder) =
            (Scanner::default(), Ending::default(), Decoder::default());
        let mut is_open = false;
        loop {
            let bytes = connection.receive().await?;
            let now = stamp::now_ns();
            let mut over = false;
            if is_socket {
                self.take(&mut scanner, bytes, now);
                over = ending.is_in(bytes);
            } else {
                decoder.feed(bytes, |body| self.take(&mut scanner, body, now))?;
            }
            if decoder.status > 200 {
                anyhow::bail!("status {}", decoder.status);
            }
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if !is_open && scanner.tokens > 0 {
                is_open = true;
                seen.opened += 1;
            }
            if over || decoder.is_done() {
                seen.ended += u64::from(scanner.tokens == self.plan.tokens);
                return Ok(());
            }
        }
    }

    fn take(&self, scanner: &mut Scanner, bytes: &[u8], now: u64) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        scanner.feed(bytes, |sent| {
            seen.tokens += 1;
            if sent >= self.counts_from_ns {
                seen.way.saturating_record(now.saturating_sub(sent));
            }
        });
    }
}

/// Finds the end of a turn on a WebSocket, whose connection stays open.
#[derive(Default)]
struct Ending {
    tail: Vec<u8>,
}

impl Ending {
    fn is_in(&mut self, bytes: &[u8]) -> bool {
        const ENDINGS: [&[u8]; 2] = [b"\"is_final\":true", b"\"type\":\"error\""];
        self.tail.extend_from_slice(bytes);
        let found = ENDINGS.iter().any(|ending| memmem::find(&self.tail, ending).is_some());
        let keep = self.tail.len().min(16);
        self.tail.drain(..self.tail.len() - keep);
        found
    }
}

//! Logins with a password, and the bare rate of the hash that they are made of.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use argon2::{Algorithm, Argon2, Params, Version};
use bench::http::{Connection, post};
use clap::Args;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    account::{float, round},
    target::{Target, login},
};

const PASSWORD: &str = "a long enough phrase";

/// Accounts that log in; an address may register 20 a minute.
const ACCOUNTS: usize = 8;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    target: Target,
    #[arg(long, default_value_t = 8)]
    connections: usize,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

#[derive(Args)]
pub struct Hashes {
    #[arg(long, default_value_t = 2)]
    threads: u32,
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<Value> {
    let address = arguments.target.address.first().cloned().unwrap_or_default();
    let mut connection = Connection::open(&address).await?;
    for account in 0..ACCOUNTS {
        let body = json!({ "user_id": name(account), "password": PASSWORD }).to_string();
        // From an earlier run it is there already.
        connection.ask(&post("/auth/register", "", &body), |_| {}).await?;
    }
    let done = Arc::new(AtomicU64::new(0));
    let begin = Instant::now();
    let until = begin + Duration::from_secs_f64(arguments.seconds);
    let mut loops = JoinSet::new();
    for number in 0..arguments.connections {
        let (done, address) = (Arc::clone(&done), address.clone());
        loops.spawn(async move {
            let mut connection = Connection::open(&address).await?;
            while Instant::now() < until {
                login(&mut connection, &name(number % ACCOUNTS), Some(PASSWORD)).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = loops.join_next().await {
        ended??;
    }
    let logins = float(done.load(Ordering::Relaxed));
    Ok(json!({ "per_second": round(logins / begin.elapsed().as_secs_f64()) }))
}

fn name(account: usize) -> String {
    format!("bench-password-{account}")
}

/// Argon2id as the service hashes, on so many threads and nothing else.
pub fn hashes(arguments: &Hashes) -> anyhow::Result<Value> {
    let params = Params::new(19 * 1024, 2, 1, None)
        .map_err(|error| anyhow::anyhow!("the hash's parameters: {error}"))?;
    let done = AtomicU64::new(0);
    let begin = std::time::Instant::now();
    let limit = Duration::from_secs_f64(arguments.seconds);
    thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| {
                let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
                let mut out = [0; 32];
                while begin.elapsed() < limit {
                    let hashed = hasher.hash_password_into(
                        PASSWORD.as_bytes(),
                        b"a salt of sixteen",
                        &mut out,
                    );
                    done.fetch_add(u64::from(hashed.is_ok()), Ordering::Relaxed);
                }
            });
        }
    });
    let hashes = float(done.load(Ordering::Relaxed));
    Ok(json!({ "per_second": round(hashes / begin.elapsed().as_secs_f64()) }))
}

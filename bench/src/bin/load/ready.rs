//! Waits until a path answers 200, looking every millisecond.

use std::time::Duration;

use bench::http::Connection;
use clap::Args;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

#[derive(Args)]
pub struct Arguments {
    #[arg(long, default_value = "127.0.0.1:9002")]
    address: String,
    #[arg(long, default_value = "/readyz")]
    path: String,
    /// Seconds after which it gives up.
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<Value> {
    let begin = Instant::now();
    let limit = Duration::from_secs_f64(arguments.seconds);
    let request = format!("GET {} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", arguments.path);
    while begin.elapsed() < limit {
        if let Ok(mut connection) = Connection::open(&arguments.address).await
            && let Ok(200) = connection.ask(request.as_bytes(), |_| {}).await
        {
            return Ok(json!({ "waited_ms": begin.elapsed().as_secs_f64() * 1000.0 }));
        }
        sleep(Duration::from_millis(1)).await;
    }
    anyhow::bail!("{}{} is not ready", arguments.address, arguments.path)
}

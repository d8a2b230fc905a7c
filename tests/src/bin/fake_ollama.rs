//! A stand-in for Ollama, for demonstrations and for compose runs on machines without a model: it repeats what it is told.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a program for people at a terminal")]

use std::{env, net::SocketAddr, time::Duration};

use tests::models::{Answer, FakeModel, Wire};
use tokio::signal::unix::{SignalKind, signal};

/// `fake-ollama [address]`; otherwise `FAKE_OLLAMA_LISTEN`, otherwise Ollama's own address.
/// `FAKE_OLLAMA_PAUSE_MS` (30) is the pause before each word. A message with `!hang`, `!fail`, `!cut`, `!reset`,
/// `!endless` or `!think` in it gets just that.
#[tokio::main]
async fn main() {
    let address = env::args().nth(1).or_else(|| env::var("FAKE_OLLAMA_LISTEN").ok());
    let address: SocketAddr = address
        .unwrap_or_else(|| "127.0.0.1:11434".to_owned())
        .parse()
        .expect("an address such as 0.0.0.0:11434");
    let pause =
        env::var("FAKE_OLLAMA_PAUSE_MS").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    let pause = Duration::from_millis(pause);
    let model = FakeModel::listen(Wire::Ollama, address).await;
    model.usually(Answer::echo_every(pause));
    model.answer_to("!hang", Answer::partial(["Hold", " on"]).hang());
    model.answer_to("!fail", Answer::partial(["It", " breaks"]).error("the runner has crashed"));
    model.answer_to("!cut", Answer::partial(["It", " ends"]).eof());
    model.answer_to("!reset", Answer::partial(["It", " breaks"]).reset());
    model.answer_to("!endless", Answer::endless("more ", pause));
    model.answer_to(
        "!think",
        Answer::new().thinking("Let me see.").token("I have thought.").done("stop"),
    );
    println!("fake-ollama listens on {}", model.address());
    // As the first process of a container it would otherwise ignore the signal.
    let mut stop = signal(SignalKind::terminate()).expect("signals");
    tokio::select! {
        _ = stop.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

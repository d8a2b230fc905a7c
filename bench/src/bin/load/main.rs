//! The load generator: asks a contender as its clients would, times every answer and token, and prints what it saw as JSON.

mod account;
mod growth;
mod logins;
mod ready;
mod sockets;
mod streams;
mod target;
mod turns;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Asks a contender as its clients would and prints what it saw as JSON")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answers one after another on kept-alive connections: closed loop, or a constant rate.
    Turns(turns::Arguments),
    /// Many streams at once, each paced by the model.
    Streams(streams::Arguments),
    /// WebSockets that say nothing.
    Sockets(sockets::Arguments),
    /// Logins with a password.
    Logins(logins::Arguments),
    /// The bare rate of the password hash.
    Hashes(logins::Hashes),
    /// Turns of one user while a session, or the number of sessions, grows.
    Growth(growth::Arguments),
    /// Waits until a path answers 200.
    Ready(ready::Arguments),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let report = match Arguments::parse().command {
        Command::Turns(arguments) => turns::run(arguments).await?,
        Command::Streams(arguments) => streams::run(arguments).await?,
        Command::Sockets(arguments) => sockets::run(arguments).await?,
        Command::Logins(arguments) => logins::run(arguments).await?,
        Command::Hashes(arguments) => logins::hashes(&arguments)?,
        Command::Growth(arguments) => growth::run(arguments).await?,
        Command::Ready(arguments) => ready::run(arguments).await?,
    };
    #[expect(clippy::print_stdout, reason = "the report is what it is for")]
    {
        println!("{report}");
    }
    Ok(())
}

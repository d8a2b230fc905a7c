//! The command line of every binary: reads the environment, starts the process, and ends it.

mod healthcheck;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, Write},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};

use self::healthcheck::healthcheck;
use crate::{
    config::{Binary, Loaded, LogFormat, Settings},
    shutdown::{self, Shutdown, Signals},
    telemetry,
    workers::WorkerPool,
};

/// The exit code for wrong settings: `EX_CONFIG` of sysexits.
const EXIT_CONFIG: u8 = 78;
/// The exit code after a second signal.
const EXIT_INTERRUPTED: u8 = 130;
/// Time for the last tasks to store how they ended, after the stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Parser)]
struct Arguments<X: Subcommand> {
    #[command(subcommand)]
    command: Option<Command<X>>,
}

#[derive(Subcommand)]
enum Command<X: Subcommand> {
    /// Serves until it receives SIGTERM or SIGINT (the default)
    Serve,
    /// Prints the effective settings, secrets masked, or every wrong one
    CheckConfig,
    /// Asks the running service whether it is ready: exit code 0 or 1
    Healthcheck,
    /// Prints the OpenAPI document
    Openapi,
    #[command(flatten)]
    Extra(X),
}

/// The subcommands of a binary that has none of its own.
#[derive(Subcommand)]
enum NoExtra {}

/// Runs a binary that has no subcommands of its own: parses the command line, loads the settings, starts logging and
/// the runtime, and serves until a signal. `serve` returns when its listeners have ended; what it spawned on the
/// [`Shutdown`] is waited for here. Exit code 0 after a stop, 1 with one line on stderr where serving fails, 78 where
/// settings are wrong.
pub fn run(
    binary: Binary,
    openapi: fn() -> String,
    serve: impl AsyncFnOnce(Settings, Shutdown) -> anyhow::Result<()>,
) -> ExitCode {
    run_with(
        binary,
        openapi,
        serve,
        async |command: NoExtra, _| match command {},
    )
}

/// As [`run`], for a binary that has subcommands `X` of its own, which `extra` runs. There a signal ends the process at
/// once, as it does any command.
pub fn run_with<X: Subcommand>(
    binary: Binary,
    openapi: fn() -> String,
    serve: impl AsyncFnOnce(Settings, Shutdown) -> anyhow::Result<()>,
    extra: impl AsyncFnOnce(X, Settings) -> anyhow::Result<()>,
) -> ExitCode {
    let command = match parse::<X>(binary, std::env::args_os()) {
        Ok(command) => command,
        Err(error) => {
            let _ = error.print();
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    if let Command::Openapi = command {
        return print(&openapi());
    }
    let loaded = match Loaded::load(binary, &variables()) {
        Ok(loaded) => loaded,
        Err(problems) => {
            print_error(&problems.to_string());
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match command {
        Command::CheckConfig => print(&loaded.to_string()),
        Command::Openapi => print(&openapi()),
        Command::Healthcheck => finish(binary, healthcheck(binary, &loaded.settings)),
        Command::Serve => with_runtime(binary, loaded.settings, |runtime, settings| {
            run_until_signal(binary, runtime, settings, serve)
        }),
        Command::Extra(command) => with_runtime(binary, loaded.settings, |runtime, settings| {
            finish(binary, runtime.block_on(extra(command, settings)))
        }),
    }
}

/// A listener on this address. The error names the setting that holds it.
pub async fn listen(setting: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow::anyhow!("{setting}: {address} is in use by another process; stop that one or set another address"),
        _ => anyhow::Error::new(error).context(format!("{setting}: cannot listen on {address}")),
    })
}

fn parse<X: Subcommand>(
    binary: Binary,
    arguments: impl Iterator<Item = OsString>,
) -> Result<Command<X>, clap::Error> {
    let program = Arguments::<X>::command()
        .name(binary.as_str())
        .version(env!("CARGO_PKG_VERSION"))
        .about(about(binary));
    let arguments = Arguments::<X>::from_arg_matches(&program.try_get_matches_from(arguments)?)?;
    Ok(arguments.command.unwrap_or(Command::Serve))
}

fn about(binary: Binary) -> &'static str {
    match binary {
        Binary::Auth => "Accounts, tokens and API keys for chat",
        Binary::Chat => "Messages, sessions and streams in front of your own models",
        Binary::Chatbot => "auth and chat in one process",
    }
}

/// The environment of this process. A variable that is not UTF-8 cannot be a setting, but is kept in lossy form so that
/// it can be named.
fn variables() -> BTreeMap<String, String> {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    std::env::vars_os()
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

/// Starts logging and the runtime, then runs.
fn with_runtime(
    binary: Binary,
    settings: Settings,
    run: impl FnOnce(&Runtime, Settings) -> ExitCode,
) -> ExitCode {
    // Fails only where it is installed already.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let runtime = telemetry::init(&settings.telemetry).and_then(|()| {
        Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")
    });
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return finish(binary, Err(error)),
    };
    let code = run(&runtime, settings);
    // Nobody is left who needs the result of work on blocking threads.
    runtime.shutdown_background();
    code
}

/// Serves until the task is done or a signal ends it.
fn run_until_signal(
    binary: Binary,
    runtime: &Runtime,
    settings: Settings,
    task: impl AsyncFnOnce(Settings, Shutdown) -> anyhow::Result<()>,
) -> ExitCode {
    let drain_timeout = settings.server.drain_timeout;
    let log_format = settings.telemetry.log_format;
    let workers = match WorkerPool::start(runtime.handle()) {
        Ok(workers) => workers,
        Err(error) => return finish(binary, Err(error.into())),
    };
    let code = runtime.block_on(async {
        let signals = match Signals::new() {
            Ok(signals) => signals,
            Err(error) => return finish(binary, Err(error.into())),
        };
        let shutdown = Shutdown::with_workers(workers.clone());
        let ended = async {
            task(settings, shutdown.clone()).await?;
            shutdown.stop();
            shutdown.finished().await;
            Ok(())
        };
        let overdue = async {
            shutdown.stopping().await;
            tokio::time::sleep(STOP_TIMEOUT).await;
        };
        tokio::select! {
            biased;
            () = shutdown::on_signals(signals, &shutdown, drain_timeout) => ExitCode::from(EXIT_INTERRUPTED),
            result = ended => match (log_format, result) {
                (LogFormat::Json, Err(error)) => {
                    tracing::error!("{error:#}");
                    ExitCode::FAILURE
                }
                (_, result) => finish(binary, result),
            },
            () = overdue => {
                tracing::warn!("some tasks did not end in time, stopping anyway");
                ExitCode::SUCCESS
            }
        }
    });
    workers.end();
    code
}

fn finish(binary: Binary, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&telemetry::one_line(&format!(
                "{}: {error:#}",
                binary.as_str()
            )));
            ExitCode::FAILURE
        }
    }
}

/// Prints to stdout. A closed pipe is no failure.
fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// Writes to stderr what went wrong before or beside the log.
fn print_error(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use clap::Subcommand;

    use super::{Command, NoExtra};
    use crate::config::Binary;

    #[derive(Subcommand)]
    enum WithUser {
        User { name: String },
    }

    fn parse<X: Subcommand>(arguments: &[&str]) -> Result<Command<X>, clap::Error> {
        let program = ["auth"]
            .iter()
            .chain(arguments)
            .map(|argument| (*argument).into());
        super::parse(Binary::Auth, program.collect::<Vec<_>>().into_iter())
    }

    #[test]
    fn without_a_subcommand_it_serves() {
        assert!(matches!(parse::<NoExtra>(&[]), Ok(Command::Serve)));
        assert!(matches!(
            parse::<NoExtra>(&["check-config"]),
            Ok(Command::CheckConfig)
        ));
    }

    #[test]
    fn a_binary_can_have_subcommands_of_its_own() {
        let parsed = parse::<WithUser>(&["user", "alice"]);
        assert!(matches!(parsed, Ok(Command::Extra(WithUser::User { name })) if name == "alice"));
        assert_eq!(
            parse::<NoExtra>(&["user", "alice"])
                .err()
                .map(|error| error.exit_code()),
            Some(2)
        );
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_its_setting() {
        let first = super::listen("auth.listen", ([127, 0, 0, 1], 0).into())
            .await
            .unwrap();
        let address = first.local_addr().unwrap();
        let error = super::listen("auth.listen", address).await.unwrap_err();
        assert!(
            format!("{error:#}").starts_with(&format!("auth.listen: {address} is in use")),
            "{error:#}"
        );
    }
}

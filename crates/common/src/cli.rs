//! The command line of every binary, and the one place where a process reads its environment, starts and ends.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
};

use crate::{
    config::{Binary, Loaded, LogFormat, Settings},
    shutdown::{self, Shutdown, Signals},
    telemetry,
};

/// Settings are wrong: `EX_CONFIG` of sysexits.
const WRONG_SETTINGS: u8 = 78;
/// A second signal ended the process.
const INTERRUPTED: u8 = 130;
/// How long the last tasks get after the stop to write down how they ended.
const LAST_TASKS: Duration = Duration::from_secs(5);
/// How long `healthcheck` waits.
const HEALTH_LIMIT: Duration = Duration::from_secs(2);
/// Most bytes of a readiness answer that are looked at.
const HEALTH_ANSWER: u64 = 16 * 1024;

#[derive(Parser)]
struct Arguments<X: Subcommand> {
    #[command(subcommand)]
    command: Option<Command<X>>,
}

#[derive(Subcommand)]
enum Command<X: Subcommand> {
    /// Serves until it is told to stop (what it does without a subcommand)
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

/// For a binary without subcommands of its own.
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
        async |command: NoExtra, _, _| match command {},
    )
}

/// As [`run`], for a binary that has subcommands `X` of its own, which `extra` runs.
pub fn run_with<X: Subcommand>(
    binary: Binary,
    openapi: fn() -> String,
    serve: impl AsyncFnOnce(Settings, Shutdown) -> anyhow::Result<()>,
    extra: impl AsyncFnOnce(X, Settings, Shutdown) -> anyhow::Result<()>,
) -> ExitCode {
    let command = match parse::<X>(binary) {
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
            complain(&problems.to_string());
            return ExitCode::from(WRONG_SETTINGS);
        }
    };
    match command {
        Command::CheckConfig => print(&loaded.to_string()),
        Command::Openapi => print(&openapi()),
        Command::Healthcheck => finish(binary, healthcheck(binary, &loaded.settings)),
        Command::Serve => started(binary, loaded.settings, serve),
        Command::Extra(command) => started(binary, loaded.settings, async |settings, shutdown| {
            extra(command, settings, shutdown).await
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

fn parse<X: Subcommand>(binary: Binary) -> Result<Command<X>, clap::Error> {
    let program = Arguments::<X>::command()
        .name(binary.as_str())
        .version(env!("CARGO_PKG_VERSION"))
        .about(about(binary));
    let arguments = Arguments::<X>::from_arg_matches(&program.try_get_matches()?)?;
    Ok(arguments.command.unwrap_or(Command::Serve))
}

fn about(binary: Binary) -> &'static str {
    match binary {
        Binary::Auth => "Accounts, tokens and API keys for chat",
        Binary::Chat => "Messages, sessions and streams in front of your own models",
        Binary::Chatbot => "auth and chat in one process",
    }
}

/// The environment of this process. What is not UTF-8 cannot be a setting of ours but is kept, garbled, to be named.
fn variables() -> BTreeMap<String, String> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os()
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

/// Starts what a running process needs, and runs until done or told to end.
fn started(
    binary: Binary,
    settings: Settings,
    task: impl AsyncFnOnce(Settings, Shutdown) -> anyhow::Result<()>,
) -> ExitCode {
    // It is installed where another part of the process was quicker; it is the same one.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let runtime = telemetry::init(&settings.telemetry).and_then(|()| {
        Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")
    });
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return finish(binary, Err(error)),
    };
    let code = until_told(binary, &runtime, settings, task);
    // Work on blocking threads is not worth waiting for: whoever needed it has ended.
    runtime.shutdown_background();
    code
}

fn until_told(
    binary: Binary,
    runtime: &Runtime,
    settings: Settings,
    task: impl AsyncFnOnce(Settings, Shutdown) -> anyhow::Result<()>,
) -> ExitCode {
    let drain_timeout = settings.server.drain_timeout;
    let log_format = settings.telemetry.log_format;
    runtime.block_on(async {
        let signals = match Signals::new() {
            Ok(signals) => signals,
            Err(error) => return finish(binary, Err(error.into())),
        };
        let shutdown = Shutdown::new();
        let ended = async {
            task(settings, shutdown.clone()).await?;
            shutdown.stop();
            shutdown.finished().await;
            Ok(())
        };
        let overdue = async {
            shutdown.stopping().await;
            tokio::time::sleep(LAST_TASKS).await;
        };
        tokio::select! {
            biased;
            () = shutdown::on_signals(signals, &shutdown, drain_timeout) => ExitCode::from(INTERRUPTED),
            result = ended => match (log_format, result) {
                (LogFormat::Json, Err(error)) => {
                    tracing::error!("{error:#}");
                    ExitCode::FAILURE
                }
                (_, result) => finish(binary, result),
            },
            () = overdue => {
                tracing::warn!("some tasks did not end in time after the stop");
                ExitCode::SUCCESS
            }
        }
    })
}

/// Asks `/readyz` of every service in this binary, on the admin listener, over loopback where it listens everywhere.
fn healthcheck(binary: Binary, settings: &Settings) -> anyhow::Result<()> {
    let mut listeners = Vec::new();
    if binary != Binary::Chat {
        listeners.push(settings.auth.admin_listen);
    }
    if binary != Binary::Auth {
        listeners.push(settings.chat.admin_listen);
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let all = async {
            for listener in listeners {
                ready(reachable(listener)).await?;
            }
            Ok(())
        };
        tokio::time::timeout(HEALTH_LIMIT, all)
            .await
            .context("no answer within 2 s")?
    })
}

async fn ready(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("cannot connect to {address}"))?;
    let request = format!(
        "GET /readyz HTTP/1.1\r\nHost: {address}\r\nUser-Agent: healthcheck\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(HEALTH_ANSWER).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    let body = answer
        .split_once("\r\n\r\n")
        .map_or("", |(_, body)| body)
        .trim();
    anyhow::bail!("{address} is not ready: {status} {body}")
}

/// Where a listener that listens everywhere is reached from its own machine.
fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listener.port())
}

fn finish(binary: Binary, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&telemetry::one_line(&format!(
                "{}: {error:#}",
                binary.as_str()
            )));
            ExitCode::FAILURE
        }
    }
}

/// What the caller asked to see. A reader that has left is no failure.
fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// What went wrong before or beside the log.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

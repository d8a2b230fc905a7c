//! The command line of every binary: reads the environment, starts the process, and ends it.

mod arguments;
mod connect;
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
use clap::Subcommand;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};

pub use self::{arguments::NoExtra, connect::Finding};
use self::{
    arguments::{Command, parse},
    healthcheck::healthcheck,
};
use crate::{
    config::{Binary, Loaded, LogFormat, Settings},
    otel,
    shutdown::{self, Shutdown, Signals},
    store::FormatError,
    telemetry,
    workers::WorkerPool,
};

const PROVIDERS: &str = "CHATBOT__LLM__PROVIDERS";
/// The exit code for wrong settings: `EX_CONFIG` of sysexits.
const EXIT_CONFIG: u8 = 78;
/// The exit code after a second signal.
const EXIT_INTERRUPTED: u8 = 130;
/// Time for the last tasks to store how they ended, after the stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A binary: what it serves, and what it asks for `check-config --connect` beside its ports and the store.
pub struct Program<S, C> {
    pub binary: Binary,
    pub openapi: fn() -> String,
    pub serve: S,
    pub connect: C,
}

/// Runs a binary: parses the command line, loads the settings, starts logging and the runtime, and serves until a signal.
/// `serve` returns when its listeners have ended; what it spawned on the [`Shutdown`] is waited for here. Exit code 0 after a
/// stop, 1 with one line on stderr where serving fails, 78 where settings are wrong, or the store is of another format.
///
/// `extra` runs the binary's own subcommands `X`, or [`NoExtra`]. There a signal ends the process at once, as it does any command.
pub fn run<X, S, C>(
    program: Program<S, C>,
    extra: impl AsyncFnOnce(X, Settings) -> anyhow::Result<()>,
) -> ExitCode
where
    X: Subcommand,
    S: AsyncFnOnce(Settings, Shutdown) -> anyhow::Result<()>,
    C: AsyncFnOnce(&Settings, &Shutdown) -> Vec<Finding>,
{
    let Program { binary, openapi, serve, connect } = program;
    let (command, demo) = match parse::<X>(binary, std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(error) => {
            let _ = error.print();
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    if let Command::Openapi = command {
        return print(&openapi());
    }
    let mut variables = variables();
    if demo {
        variables.remove(&format!("{PROVIDERS}_FILE"));
        variables.insert(PROVIDERS.to_owned(), "demo".to_owned());
    }
    let loaded = match Loaded::load(binary, &variables) {
        Ok(loaded) => loaded,
        Err(problems) => {
            print_error(&problems.to_string());
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let done = match command {
        Command::CheckConfig { connect: false } => Ok(print(&loaded.to_string())),
        Command::CheckConfig { connect: true } => {
            print(&loaded.to_string());
            with_runtime(loaded, |runtime, settings| {
                let found = runtime.block_on(check_connections(binary, &settings, connect));
                let (text, is_well) = connect::report(&found);
                print(&text);
                Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            })
        }
        Command::Openapi => Ok(print(&openapi())),
        Command::Healthcheck => healthcheck(binary, &loaded.settings).map(|()| ExitCode::SUCCESS),
        Command::Serve => with_runtime(loaded, |runtime, settings| {
            run_until_signal(binary, runtime, settings, serve)
        }),
        Command::Extra(command) => with_runtime(loaded, |runtime, settings| {
            runtime.block_on(extra(command, settings)).map(|()| ExitCode::SUCCESS)
        }),
    };
    done.unwrap_or_else(|error| {
        print_error(&telemetry::one_line(&format!("{}: {error:#}", binary.as_str())));
        exit_code(&error)
    })
}

async fn check_connections(
    binary: Binary,
    settings: &Settings,
    own: impl AsyncFnOnce(&Settings, &Shutdown) -> Vec<Finding>,
) -> Vec<Finding> {
    let shutdown = Shutdown::new();
    let mut found = connect::check(binary, settings, &shutdown).await;
    found.extend(own(settings, &shutdown).await);
    shutdown.stop();
    found
}

/// The public and the admin listener of a service. An error names the setting of the address.
pub async fn listen(
    service: &str,
    public: SocketAddr,
    admin: SocketAddr,
) -> anyhow::Result<(TcpListener, TcpListener)> {
    let public = bind(&format!("{service}.listen"), public).await?;
    Ok((public, bind(&format!("{service}.admin_listen"), admin).await?))
}

async fn bind(setting: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow::anyhow!("{setting}: {address} is in use by another process; stop that one or set another address"),
        _ => anyhow::Error::new(error).context(format!("{setting}: cannot listen on {address}")),
    })
}

/// The environment of this process. A variable that is not UTF-8 cannot be a setting, but is kept in lossy form so that
/// it can be named.
fn variables() -> BTreeMap<String, String> {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}

fn with_runtime(
    loaded: Loaded,
    run: impl FnOnce(&Runtime, Settings) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    let Loaded { settings, overridden, .. } = loaded;
    // Fails only where it is installed already.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    // The log is flushed when this is dropped.
    let _log = telemetry::init(&settings.telemetry)?;
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    for (unused, used) in overridden {
        tracing::warn!(unused, used, "a variable is not used: another one sets the same setting");
    }
    let code = run(&runtime, settings);
    // Nobody is left who needs the result of work on blocking threads.
    runtime.shutdown_background();
    code
}

fn run_until_signal(
    binary: Binary,
    runtime: &Runtime,
    settings: Settings,
    task: impl AsyncFnOnce(Settings, Shutdown) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let drain_timeout = settings.server.drain_timeout;
    otel::start(binary, &settings, runtime.handle())?;
    let log_format = settings.telemetry.log_format;
    let workers = WorkerPool::start(runtime.handle())?;
    let code = runtime.block_on(async {
        let signals = Signals::new()?;
        let shutdown = Shutdown::with_workers(workers.clone());
        let ended = async {
            task(settings, shutdown.clone()).await?;
            shutdown.stop();
            shutdown.finished().await;
            otel::finish().await;
            shutdown.take_failure().map_or(Ok(()), Err)
        };
        let overdue = async {
            shutdown.stopping().await;
            tokio::time::sleep(STOP_TIMEOUT).await;
        };
        tokio::select! {
            biased;
            () = shutdown::on_signals(signals, &shutdown, drain_timeout) => Ok(ExitCode::from(EXIT_INTERRUPTED)),
            result = ended => match (log_format, result) {
                (LogFormat::Json, Err(error)) => {
                    tracing::error!("{error:#}");
                    Ok(exit_code(&error))
                }
                (_, result) => result.map(|()| ExitCode::SUCCESS),
            },
            () = overdue => {
                tracing::warn!("some tasks did not end in time, stopping anyway");
                Ok(ExitCode::SUCCESS)
            }
        }
    });
    workers.end();
    code
}

/// A store of another format is a wrong setting: starting again cannot help.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<FormatError>() { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
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
    #[tokio::test]
    async fn a_port_in_use_is_named_with_its_setting() {
        let first = super::bind("auth.listen", ([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = first.local_addr().unwrap();
        let error = super::bind("auth.listen", address).await.unwrap_err();
        assert!(
            format!("{error:#}").starts_with(&format!("auth.listen: {address} is in use")),
            "{error:#}"
        );
    }
}

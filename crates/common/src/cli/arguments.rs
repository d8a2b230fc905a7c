//! The command line: subcommands and flags.

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::Binary;

#[derive(Parser)]
struct Arguments<X: Subcommand> {
    /// Answers with the built-in demo alone: no model server is needed
    #[arg(long)]
    demo: bool,
    #[command(subcommand)]
    command: Option<Command<X>>,
}

#[derive(Subcommand)]
pub(super) enum Command<X: Subcommand> {
    /// Serves until it receives SIGTERM or SIGINT (the default)
    Serve,
    /// Prints the effective settings, secrets masked, or every wrong one
    CheckConfig {
        /// Also asks model servers, store, ports and clocks, and says what to do: exit code 0 or 1
        #[arg(long)]
        connect: bool,
    },
    /// Asks the running service whether it is ready: exit code 0 or 1
    Healthcheck,
    /// Prints the OpenAPI document as JSON
    Openapi,
    #[command(flatten)]
    Extra(X),
}

/// The subcommands of a binary that has none of its own.
#[derive(Subcommand)]
pub enum NoExtra {}

/// The command, and whether the demo alone is to answer.
pub(super) fn parse<X: Subcommand>(
    binary: Binary,
    arguments: impl Iterator<Item = OsString>,
) -> Result<(Command<X>, bool), clap::Error> {
    let has_models = binary != Binary::Auth;
    let mut program = Arguments::<X>::command()
        .name(binary.as_str())
        .version(env!("CARGO_PKG_VERSION"))
        .about(about(binary))
        .mut_arg("demo", |demo| demo.hide(!has_models));
    let arguments = program.try_get_matches_from_mut(arguments)?;
    let Arguments { command, demo } = Arguments::<X>::from_arg_matches(&arguments)?;
    if demo && !has_models {
        let text = "--demo is for chat and chatbot: auth asks no models";
        return Err(program.error(clap::error::ErrorKind::UnknownArgument, text));
    }
    Ok((command.unwrap_or(Command::Serve), demo))
}

fn about(binary: Binary) -> &'static str {
    match binary {
        Binary::Auth => "Accounts, tokens and API keys for chat",
        Binary::Chat => "Messages, sessions and streams in front of your own models",
        Binary::Chatbot => "auth and chat in one process",
    }
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
        let program = ["auth"].iter().chain(arguments).map(|argument| (*argument).into());
        let program: Vec<_> = program.collect();
        super::parse(Binary::Auth, program.into_iter()).map(|(command, _)| command)
    }

    #[test]
    fn the_demo_is_for_those_who_ask_models() {
        let parse = |binary, arguments: &[&str]| {
            let program = ["program"].iter().chain(arguments).map(|part| (*part).into());
            let program: Vec<_> = program.collect();
            super::parse::<NoExtra>(binary, program.into_iter())
        };
        assert!(matches!(parse(Binary::Chatbot, &["--demo"]), Ok((Command::Serve, true))));
        assert!(matches!(
            parse(Binary::Chat, &["--demo", "check-config", "--connect"]),
            Ok((Command::CheckConfig { connect: true }, true))
        ));
        assert!(parse(Binary::Auth, &["--demo"]).is_err());
    }

    #[test]
    fn without_a_subcommand_it_serves() {
        assert!(matches!(parse::<NoExtra>(&[]), Ok(Command::Serve)));
        assert!(matches!(
            parse::<NoExtra>(&["check-config"]),
            Ok(Command::CheckConfig { connect: false })
        ));
    }

    #[test]
    fn a_binary_can_have_subcommands_of_its_own() {
        let parsed = parse::<WithUser>(&["user", "alice"]);
        assert!(matches!(parsed, Ok(Command::Extra(WithUser::User { name })) if name == "alice"));
        assert_eq!(
            parse::<NoExtra>(&["user", "alice"]).err().map(|error| error.exit_code()),
            Some(2)
        );
    }
}

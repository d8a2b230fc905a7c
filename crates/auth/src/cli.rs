//! The operator's commands: `user add|passwd|delete|list`.

use std::io::{self, IsTerminal, Read, Write};

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Subcommand;
use common::{clock::rfc3339, config::Settings, identity::UserId, shutdown::Shutdown, store};

use crate::services::{error::AuthError, operator::Operator};

/// Longest password that is read, in bytes.
const MAX_INPUT: u64 = 64 * 1024;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Manages accounts from a shell
    #[command(subcommand)]
    User(User),
}

#[derive(Debug, Subcommand)]
pub enum User {
    /// Creates an account; the password comes from standard input, or is generated and printed
    Add {
        /// The user id: 1 to 64 of A-Z a-z 0-9 . _ @ -
        #[arg(value_parser = user_id)]
        user_id: UserId,
    },
    /// Sets a password, which ends every login of the account; it comes from standard input, or is generated and printed
    Passwd {
        #[arg(value_parser = user_id)]
        user_id: UserId,
    },
    /// Deletes an account and everything that belongs to it
    Delete {
        #[arg(value_parser = user_id)]
        user_id: UserId,
    },
    /// Lists every account: user id, when it was made, and how it logs in
    List,
}

fn user_id(text: &str) -> Result<UserId, String> {
    UserId::parse(text).ok_or_else(|| "a user id is 1 to 64 of A-Z a-z 0-9 . _ @ -".to_owned())
}

/// Runs an operator's command.
///
/// # Errors
/// What an operator can act on: the store, the password, the account.
pub async fn run(Command::User(command): Command, settings: Settings) -> anyhow::Result<()> {
    let shutdown = Shutdown::new();
    let store = store::start(&settings.store, store::NewStore::Number, &shutdown).await?;
    let operator = Operator::new(store, settings.auth.password_min);
    let done = user(&operator, command).await;
    drop(operator);
    shutdown.stop();
    shutdown.finished().await;
    done
}

async fn user(operator: &Operator, command: User) -> anyhow::Result<()> {
    match command {
        User::Add { user_id } => {
            let password = password()?;
            match operator.add_user(&user_id, &password.0).await {
                Err(AuthError::UserExists) => bail!(
                    "{user_id} has an account already: `user passwd {user_id}` sets its password"
                ),
                done => done?,
            }
            print_generated(password)
        }
        User::Passwd { user_id } => {
            let password = password()?;
            found(&user_id, operator.set_password(&user_id, &password.0).await)?;
            print_generated(password)
        }
        User::Delete { user_id } => found(&user_id, operator.delete_user(&user_id).await),
        User::List => {
            let mut lines = String::new();
            for (user, account) in operator.list_users().await? {
                let created_at = rfc3339(account.created_at);
                let how = account.password.map_or("open", |_| "password");
                lines.push_str(&format!("{user}\t{created_at}\t{how}\n"));
            }
            print(&lines)
        }
    }
}

fn found(user: &UserId, done: Result<(), AuthError>) -> anyhow::Result<()> {
    match done {
        Err(AuthError::NotFound) => bail!("{user} has no account"),
        done => Ok(done?),
    }
}

/// A password, and whether it was generated, so that the operator does not know it yet: the first line of standard input; at a terminal, or
/// where there is nothing, 144 random bits.
fn password() -> anyhow::Result<(String, bool)> {
    let mut text = String::new();
    if !io::stdin().is_terminal() {
        let read = io::stdin().lock().take(MAX_INPUT).read_to_string(&mut text);
        read.context("the password on standard input")?;
    }
    Ok(match text.lines().next().unwrap_or_default() {
        "" => (URL_SAFE_NO_PAD.encode(rand::random::<[u8; 18]>()), true),
        line => (line.to_owned(), false),
    })
}

fn print_generated((password, is_generated): (String, bool)) -> anyhow::Result<()> {
    if is_generated {
        print(&format!("{password}\n"))?;
    }
    Ok(())
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush())?)
}

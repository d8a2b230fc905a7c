//! The operator's commands: `user add|passwd|delete|list`.

use std::io::{self, IsTerminal, Read, Write};

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Subcommand;
use common::{
    clock::rfc3339,
    config::Settings,
    identity::{Authenticator, TokenRules, UserId},
    shutdown::Shutdown,
    store::Store,
};

use crate::{
    repository::Repository,
    service::{Accounts, AuthError, KeyRing},
};

/// Longest password that is read, in bytes.
const MAX_INPUT: u64 = 64 * 1024;

/// What the operator can do beside serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Looks after accounts
    #[command(subcommand)]
    User(User),
}

/// What can be done with accounts.
#[derive(Debug, Subcommand)]
pub enum User {
    /// Makes an account; the password comes from standard input, or is made up and printed
    Add {
        /// The user id: 1 to 64 of A-Z a-z 0-9 . _ @ -
        #[arg(value_parser = user_id)]
        user_id: UserId,
    },
    /// Sets a password, which ends every login of the account; it comes from standard input, or is made up and printed
    Passwd {
        /// The user id
        #[arg(value_parser = user_id)]
        user_id: UserId,
    },
    /// Deletes an account and everything of it
    Delete {
        /// The user id
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
    let store = Store::open(&settings.store.url, &shutdown)?;
    // Commands sign nothing: they need no key, and make none.
    let ring = KeyRing::closed(settings.auth.login);
    let rules = TokenRules {
        issuer: settings.auth.issuer.clone(),
        audience: settings.auth.audience.clone(),
    };
    let authenticator = Authenticator::start(rules, ring.key_set(), store.clone(), &shutdown);
    let accounts = Accounts::new(Repository::new(store), settings.auth, ring, authenticator);
    let done = user(&accounts, command).await;
    drop(accounts);
    shutdown.stop();
    shutdown.finished().await;
    done
}

async fn user(accounts: &Accounts, command: User) -> anyhow::Result<()> {
    match command {
        User::Add { user_id } => {
            let password = password()?;
            match accounts.add_user(&user_id, password.text()).await {
                Err(AuthError::UserExists) => bail!(
                    "{user_id} has an account already: `user passwd {user_id}` sets its password"
                ),
                done => done?,
            }
            password.tell()
        }
        User::Passwd { user_id } => {
            let password = password()?;
            found(
                &user_id,
                accounts.set_password(&user_id, password.text()).await,
            )?;
            password.tell()
        }
        User::Delete { user_id } => found(&user_id, accounts.delete_user(&user_id).await),
        User::List => {
            let mut lines = String::new();
            for listed in accounts.list_users().await? {
                let how = if listed.has_password {
                    "password"
                } else {
                    "open"
                };
                lines.push_str(&format!(
                    "{}\t{}\t{how}\n",
                    listed.user,
                    rfc3339(listed.created_at)
                ));
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

/// A password for an account, and whether the operator knows it.
enum Password {
    Given(String),
    Made(String),
}

impl Password {
    fn text(&self) -> &str {
        let (Self::Given(text) | Self::Made(text)) = self;
        text
    }

    /// Prints the password where it was made up.
    fn tell(&self) -> anyhow::Result<()> {
        match self {
            Self::Given(_) => Ok(()),
            Self::Made(text) => print(&format!("{text}\n")),
        }
    }
}

/// The first line of standard input; at a terminal, or where there is nothing, a new one of 144 random bits.
fn password() -> anyhow::Result<Password> {
    let mut text = String::new();
    if !io::stdin().is_terminal() {
        io::stdin()
            .lock()
            .take(MAX_INPUT)
            .read_to_string(&mut text)
            .context("the password on standard input")?;
    }
    let line = text.lines().next().unwrap_or_default();
    Ok(match line {
        "" => Password::Made(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 18]>())),
        line => Password::Given(line.to_owned()),
    })
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush())?)
}

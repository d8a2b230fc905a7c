//! An account's first password, and every other that follows: each ends what the one before let in.

use std::net::IpAddr;

use common::identity::{Identity, Revocation, UserId};

use super::{Accounts, AuthError, ROUNDS, accounts::login_of, ending::own_account};
use crate::{
    models::Account,
    repository::{Change, Loaded},
};

impl Accounts {
    /// Makes an account with a password, or gives one without its first.
    pub(crate) async fn first_password(
        &self,
        user: &UserId,
        password: &str,
        claimed: Option<&Identity>,
        kept: Option<&str>,
    ) -> Result<(), AuthError> {
        let hash = self.passwords.hash(password).await?;
        for _ in 0..ROUNDS {
            let (loaded, keys) = self.load_with_keys(user).await?;
            let standing = &loaded.standing;
            let Some(account) = &standing.account else {
                self.repository.enlist(user, loaded.now).await?;
                let account = Account::new(loaded.now, Some(hash.clone()));
                if self
                    .repository
                    .commit(Change::of(standing).put(standing, &account))
                    .await?
                {
                    return Ok(());
                }
                continue;
            };
            let own = claimed.is_some_and(|identity| identity.owner == standing.owner());
            if account.password.is_some() || !own {
                return Err(AuthError::UserExists);
            }
            // Whoever logged in as this id while anybody could, and whatever keys they made, are not its owner's.
            let account = Account {
                password: Some(hash.clone()),
                ..account.clone()
            };
            if self.replace_password(&loaded, account, kept, &keys).await? {
                return Ok(());
            }
        }
        Err(AuthError::Contended)
    }

    /// Changes a password: every other login ends, and the API keys too where asked.
    pub async fn change_password(
        &self,
        identity: &Identity,
        (current, new): (&str, &str),
        revoke_keys: bool,
        from: IpAddr,
    ) -> Result<(), AuthError> {
        let login = login_of(identity)?;
        if self.passwords.bounded(current).is_err() {
            return Err(AuthError::InvalidCredentials);
        }
        self.passwords
            .accept(new, identity.user())
            .map_err(AuthError::Password)?;
        self.live(identity).await?;
        let attempt = self.begin_attempt(identity.user(), from).await?;
        let (mut hash, mut verified) = (None, None);
        for _ in 0..ROUNDS {
            let (loaded, keys) = self.load_with_keys(identity.user()).await?;
            let account =
                own_account(&loaded.standing, &identity.owner).ok_or(AuthError::Revoked)?;
            self.verify_once(current, account, &mut verified).await?;
            let hash = match &mut hash {
                Some(hash) => hash,
                none => none.insert(self.passwords.hash(new).await?),
            };
            let account = Account {
                password: Some(hash.clone()),
                ..account.clone()
            };
            let keys = if revoke_keys { keys } else { Vec::new() };
            if self
                .replace_password(&loaded, account, Some(login), &keys)
                .await?
            {
                self.succeed(attempt).await;
                return Ok(());
            }
        }
        Err(AuthError::Contended)
    }

    /// Commits a password change of the account that was read, and makes known what it ended.
    pub(crate) async fn replace_password(
        &self,
        loaded: &Loaded,
        account: Account,
        kept: Option<&str>,
        keys: &[String],
    ) -> Result<bool, AuthError> {
        let (standing, owner) = (&loaded.standing, loaded.standing.owner());
        let kept = kept.map(str::to_owned);
        let account = Account {
            epoch: account.epoch + 1,
            kept: kept.clone(),
            ..account
        };
        let change = Change::of(standing)
            .put(standing, &account)
            .remove_keys(&owner, keys)
            .forget_attempts(&standing.user);
        let mut entries: Vec<_> = keys.iter().cloned().map(Revocation::ApiKey).collect();
        entries.push(Revocation::Logins {
            owner,
            epoch: account.epoch,
            kept,
        });
        self.end(loaded, change, entries).await
    }

    /// Verifies a password against the stored hash, unless it is the one verified before.
    pub(crate) async fn verify_once(
        &self,
        password: &str,
        account: &Account,
        verified: &mut Option<String>,
    ) -> Result<(), AuthError> {
        if account.password.is_some() && *verified == account.password {
            return Ok(());
        }
        if !self
            .passwords
            .verify(password, account.password.as_deref())
            .await?
        {
            return Err(AuthError::InvalidCredentials);
        }
        verified.clone_from(&account.password);
        Ok(())
    }
}

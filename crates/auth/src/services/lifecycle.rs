//! How accounts are created, given passwords and deleted, whoever asks for it.

use common::identity::{Identity, UserId};

use super::{ROUNDS, error::AuthError, login_of};
use crate::{
    domain::account::Account,
    metrics::count_revocation,
    store::{AccountStore, Change, OwnedAccount},
};

/// Creates an account with the password of that hash, or gives one without a password its first: that of `claimed`, whose
/// login alone goes on.
pub(super) async fn create(
    store: &AccountStore,
    user: &UserId,
    hash: &str,
    claimed: Option<&Identity>,
) -> Result<(), AuthError> {
    let kept = claimed.map(login_of).transpose()?;
    for _ in 0..ROUNDS {
        let owned = store.load_with_keys(user).await?;
        let current = &owned.current;
        let done = if let Some(account) = &current.account {
            let own = claimed.is_some_and(|claimed| claimed.owner == current.owner());
            if account.password.is_some() || !own {
                return Err(AuthError::UserExists);
            }
            replace_password(store, &owned, account, (hash, kept, true)).await?
        } else {
            store.add_account(user, current.now, None).await?;
            let account = Account {
                created_at: current.now,
                password: Some(hash.to_owned()),
                logins_end_at: 0,
            };
            store.commit(Change::of(current).put(&account)).await?
        };
        if done {
            return Ok(());
        }
    }
    Err(AuthError::Contended)
}

/// Gives the account that was read the password of that hash; false if it has changed meanwhile. All logins but `kept` end. Every
/// API key ends if `end_keys` says so, or if there was no password: whoever knew the id could have made it.
pub(super) async fn replace_password(
    store: &AccountStore,
    owned: &OwnedAccount,
    account: &Account,
    (hash, kept, end_keys): (&str, Option<&str>, bool),
) -> Result<bool, AuthError> {
    let current = &owned.current;
    let new = Account { password: Some(hash.to_owned()), ..account.clone() };
    let mut change = Change::of(current).forget_attempts().put(&new).end_logins(kept);
    if end_keys || account.password.is_none() {
        change = change.remove_keys(&current.owner(), &owned.key_ids);
    }
    let done = store.commit(change).await?;
    if done {
        count_revocation("logins");
    }
    Ok(done)
}

/// Deletes the account that was read; false if it has changed meanwhile.
pub(super) async fn delete(store: &AccountStore, owned: &OwnedAccount) -> Result<bool, AuthError> {
    let current = &owned.current;
    let owner = current.owner();
    // First: a crash after the deletion must not leave data behind. `chat` waits for the state to say so too.
    store.announce_erasure(&owner, current.now).await?;
    let change = Change::of(current).delete().remove_keys(&owner, &owned.key_ids).forget_attempts();
    if !store.commit(change).await? {
        return Ok(false);
    }
    count_revocation("account");
    // Again: an announcement that seemed to have come to nothing may have been withdrawn meanwhile.
    if let Err(error) = store.announce_erasure(&owner, current.now).await {
        tracing::warn!(%error, "erasure not announced a second time");
    }
    if let Err(error) = store.remove_account(&current.user).await {
        tracing::warn!(%error, "deleted account not removed from the index");
    }
    Ok(true)
}

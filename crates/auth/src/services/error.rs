//! What a call is refused for, or fails with.

use std::time::Duration;

use common::store::StoreError;

use crate::domain::password::PasswordFault;

#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The user id or the password is wrong; the caller is not told which.
    #[error("the user id or the password is wrong")]
    InvalidCredentials,
    #[error("the account has a password, and none was given")]
    PasswordRequired,
    #[error("login is not open, and no password was given")]
    PasswordMissing,
    #[error("registration is closed")]
    RegistrationClosed,
    #[error("the user id is taken")]
    UserExists,
    #[error("the token is another user's")]
    OtherUser,
    /// Too many attempts failed; how long to wait.
    #[error("too many failed attempts")]
    TooManyAttempts(Duration),
    #[error("too many passwords are waiting to be hashed")]
    Overloaded,
    #[error("the password is refused")]
    Password(#[from] PasswordFault),
    /// Not a refresh token of ours, or its login is over.
    #[error("the refresh token is not valid")]
    InvalidRefresh,
    #[error("the refresh token was used before, so its login has ended")]
    Reused,
    #[error("the login, the key or the account has ended")]
    Revoked,
    #[error("an access token is needed, not an API key")]
    TokenNeeded,
    #[error("not found")]
    NotFound,
    #[error("the account has too many keys")]
    TooManyKeys,
    #[error("the account is being changed by others")]
    Contended,
    #[error("a token could not be signed")]
    Signing(#[source] jsonwebtoken::errors::Error),
    #[error("there is no signing key")]
    NoKey,
    #[error("a password could not be hashed: {0}")]
    Hashing(String),
}

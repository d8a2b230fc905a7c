//! Why a credential is refused, or cannot be decided on.

use crate::store::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("the credential has expired")]
    Expired,
    /// Not a credential of ours, or not valid yet: which check failed.
    #[error("the credential is not valid: {0}")]
    Invalid(&'static str),
    /// Its login, its key or its account has ended.
    #[error("the credential has been revoked")]
    Revoked,
    /// A user id alone was given, and the account has a password.
    #[error("the account has a password")]
    PasswordRequired,
    /// A user id alone was given, and login is not open.
    #[error("a user id alone does not log in")]
    LoginNotOpen,
    /// `auth` could not be asked for the key of this token, which may be a good one.
    #[error("the signing keys could not be fetched")]
    NoKeys,
    #[error("the account's state could not be read")]
    Store(#[from] StoreError),
}

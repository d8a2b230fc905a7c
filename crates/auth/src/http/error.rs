//! The one place that turns this service's failures into answers. No catch-all arm: a new cause must be placed.

use common::errors::{ApiError, Code};
use metrics::{Label, counter};

use crate::{domain::password::PasswordFault, services::error::AuthError};

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        let new = |code: Code, detail: &str| ApiError::new(code, detail);
        match error {
            AuthError::Store(error) => error.into(),
            AuthError::InvalidCredentials => {
                new(Code::InvalidCredentials, "User id or password is wrong.")
            }
            AuthError::PasswordRequired => {
                new(Code::PasswordRequired, "This account has a password: send it too.")
            }
            AuthError::PasswordMissing => ApiError::invalid("/password", "A password is needed."),
            AuthError::RegistrationClosed => new(
                Code::RegistrationClosed,
                "Only the operator of this service makes accounts: ask them.",
            ),
            AuthError::UserExists => {
                new(Code::UserExists, "The user id is taken: choose another, or log in.")
            }
            AuthError::OtherUser => new(
                Code::UserMismatch,
                "The token is another user's: send none to register this one.",
            ),
            AuthError::TooManyAttempts(wait) => {
                new(Code::TooManyAttempts, "Too many attempts: wait as long as Retry-After says.")
                    .retry_after(wait)
            }
            AuthError::Overloaded => {
                new(Code::Overloaded, "Too many logins at once; try again in a moment.")
            }
            AuthError::Contended => new(
                Code::Overloaded,
                "The account is being changed by others; try again in a moment.",
            ),
            AuthError::Password(fault) => refused_password("/password", fault),
            AuthError::InvalidRefresh => {
                new(Code::InvalidToken, "The refresh token is not valid any more: log in again.")
            }
            AuthError::Reused => new(
                Code::TokenReused,
                "The refresh token was used before, so this login has ended: log in again.",
            ),
            AuthError::Revoked => {
                new(Code::TokenRevoked, "The token has been revoked: log in again.")
            }
            AuthError::TokenNeeded => {
                new(Code::Forbidden, "An API key cannot do that: send an access token.")
            }
            AuthError::NotFound => new(Code::NotFound, "There is no such key."),
            AuthError::TooManyKeys => {
                ApiError::invalid("", "The account has 100 keys: revoke one first.")
            }
            AuthError::NoKey | AuthError::Signing(_) | AuthError::Hashing(_) => {
                ApiError::internal(error)
            }
        }
    }
}

/// The refusal of a password that stands in that member of the body.
pub fn refused_password(pointer: &str, fault: PasswordFault) -> ApiError {
    ApiError::invalid(pointer, format!("The password is refused: {fault}."))
}

/// Converts a result, and counts it: by its code and, for logins, by their way.
pub fn counted<T>(
    name: &'static str,
    way: Option<&'static str>,
    result: Result<T, AuthError>,
) -> Result<T, ApiError> {
    let result = result.map_err(ApiError::from);
    let code = result.as_ref().map_or_else(|error| error.code.as_str(), |_| "ok");
    let mut labels = vec![Label::new("result", code)];
    labels.extend(way.map(|way| Label::new("way", way)));
    counter!(name, labels).increment(1);
    result
}

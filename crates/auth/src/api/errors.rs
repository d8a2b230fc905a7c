//! Turns what the service refuses into what callers are told.

use common::errors::{ApiError, Code};

use crate::service::AuthError;

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        let told = |code: Code, detail: &str| ApiError::new(code, detail);
        match error {
            AuthError::Store(error) => error.into(),
            AuthError::InvalidCredentials => {
                told(Code::InvalidCredentials, "User id or password is wrong.")
            }
            AuthError::PasswordRequired => told(
                Code::PasswordRequired,
                "This account has a password: send it too.",
            ),
            AuthError::PasswordMissing => ApiError::invalid("/password", "A password is needed."),
            AuthError::RegistrationClosed => told(
                Code::RegistrationClosed,
                "Only the operator of this service makes accounts: ask them.",
            ),
            AuthError::UserExists => told(
                Code::UserExists,
                "The user id is taken: choose another, or log in.",
            ),
            AuthError::TooManyAttempts(wait) => told(
                Code::TooManyAttempts,
                "Too many attempts: wait as long as Retry-After says.",
            )
            .retry_after(wait),
            AuthError::Overloaded => told(
                Code::Overloaded,
                "Too many logins at once; try again in a moment.",
            ),
            AuthError::Contended => told(
                Code::Overloaded,
                "The account is being changed by others; try again in a moment.",
            ),
            AuthError::Password(fault) => {
                ApiError::invalid("/password", format!("The password is refused: {fault}."))
            }
            AuthError::InvalidRefresh => told(
                Code::InvalidToken,
                "The refresh token is not valid any more: log in again.",
            ),
            AuthError::Reused => told(
                Code::TokenReused,
                "The refresh token was used before, so this login has ended: log in again.",
            ),
            AuthError::Revoked => told(
                Code::TokenRevoked,
                "The token has been revoked: log in again.",
            ),
            AuthError::TokenNeeded => told(
                Code::Forbidden,
                "An API key cannot do that: send an access token.",
            ),
            AuthError::NotFound => told(Code::NotFound, "There is no such key."),
            AuthError::TooManyKeys => {
                ApiError::invalid("", "The account has 100 keys: revoke one first.")
            }
            AuthError::NoKey
            | AuthError::Signing(_)
            | AuthError::Hashing(_)
            | AuthError::KeyFiles(_) => ApiError::internal(error),
        }
    }
}

/// The same refusal, pointing at the member of the body that holds the password.
pub(super) fn at(pointer: &'static str) -> impl Fn(AuthError) -> ApiError {
    move |error| {
        let mut told = ApiError::from(error);
        for field in &mut told.errors {
            if field.pointer == "/password" {
                field.pointer = pointer.to_owned();
            }
        }
        told
    }
}

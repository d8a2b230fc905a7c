//! Passwords: what may be one, and what is kept of it.

use argon2::{CustomizedPasswordHasher, PasswordHash, PasswordVerifier, password_hash::phc::Salt};
use common::identity::UserId;
use unicode_normalization::UnicodeNormalization;

use super::{
    AuthError,
    hash_pool::{HashPool, PooledArgon2, failed},
};

/// Longest password, in characters. It bounds what is hashed; nothing is ever cut.
pub const MAX_LENGTH: usize = 128;
/// The commonest passwords, one a line, lower case.
const COMMON: &str = include_str!("common_passwords.txt");
/// What our own users would think of first.
const PRODUCT: [&str; 4] = ["chatbot", "chat-bot", "chatbot-backend", "chatbotchatbot"];

/// Why a password is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordFault {
    /// Fewer characters than that.
    #[error("it must have at least {0} characters")]
    TooShort(usize),
    /// More characters than [`MAX_LENGTH`].
    #[error("it must have at most 128 characters")]
    TooLong,
    /// It is the user's id.
    #[error("it must not be the user id")]
    IsUserId,
    /// Everybody would try it.
    #[error("it is one of the commonest passwords: choose one that nobody else would")]
    Common,
}

/// The policy, and the threads that hash.
pub struct Passwords {
    min: usize,
    hashers: HashPool,
    /// Sorted, for a binary search.
    common: Vec<&'static str>,
}

/// Two spellings of one text are one password (NFC).
fn normal(password: &str) -> String {
    password.nfc().collect()
}

/// With today's parameters.
fn hashed(password: &str, salt: &[u8]) -> Result<PasswordHash, AuthError> {
    let params = argon2::Params::default();
    PooledArgon2
        .hash_password_with_params(password.as_bytes(), salt, params)
        .map_err(failed)
}

impl Passwords {
    /// A policy with that minimum length, in characters.
    pub fn new(min: usize) -> Self {
        let mut common: Vec<&str> = COMMON.lines().chain(PRODUCT).collect();
        common.sort_unstable();
        Self {
            min,
            hashers: HashPool::new(),
            common,
        }
    }

    /// Whether a text may become a password.
    pub fn accept(&self, password: &str, user: &UserId) -> Result<(), PasswordFault> {
        self.bounded(password)?;
        let password = normal(password);
        let length = password.chars().count();
        if length < self.min {
            return Err(PasswordFault::TooShort(self.min));
        }
        let lower = password.to_lowercase();
        if lower == user.as_str().to_lowercase() {
            return Err(PasswordFault::IsUserId);
        }
        if self.common.binary_search(&lower.as_str()).is_ok() {
            return Err(PasswordFault::Common);
        }
        Ok(())
    }

    /// Whether a text is short enough to be looked at.
    pub fn bounded(&self, password: &str) -> Result<(), PasswordFault> {
        // Composing makes no text longer than four times, so this bound is looked at before any work.
        if password.len() > MAX_LENGTH * 64 || normal(password).chars().count() > MAX_LENGTH {
            return Err(PasswordFault::TooLong);
        }
        Ok(())
    }

    /// The PHC string of a password.
    pub async fn hash(&self, password: &str) -> Result<String, AuthError> {
        let password = normal(password);
        self.hashers
            .run(move || Ok(hashed(&password, &Salt::generate())?.to_string()))
            .await
    }

    /// Whether a password is the one behind `stored`. Where nothing is stored it takes as long, and is not.
    pub async fn verify(&self, password: &str, stored: Option<&str>) -> Result<bool, AuthError> {
        let (password, stored) = (normal(password), stored.map(str::to_owned));
        self.hashers
            .run(move || match stored {
                Some(stored) => {
                    let hash = PasswordHash::new(&stored).map_err(failed)?;
                    Ok(PooledArgon2
                        .verify_password(password.as_bytes(), &hash)
                        .is_ok())
                }
                None => hashed(&password, &[0; 16]).map(|_| false),
            })
            .await
    }

    /// Whether a stored hash was made with other parameters than today's.
    pub fn is_outdated(stored: &str) -> bool {
        let today = argon2::Params::default();
        let Ok(hash) = PasswordHash::new(stored) else {
            return true;
        };
        let params = argon2::Params::try_from(&hash);
        hash.algorithm.as_str() != "argon2id"
            || params.map_or(true, |it| {
                it.m_cost() < today.m_cost() || it.t_cost() < today.t_cost()
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(password: &str) -> Option<PasswordFault> {
        Passwords::new(8)
            .accept(password, &UserId::parse("wonderland.Alice").unwrap())
            .err()
    }

    #[test]
    fn length_is_counted_in_characters_and_nothing_else_is_asked() {
        assert_eq!(fault("žluťouč"), Some(PasswordFault::TooShort(8)));
        for good in [
            "žluťoučký",
            "        ",
            "😀😀😀😀😀😀😀😀",
            "Съешь же ещё",
            &"q7".repeat(64),
        ] {
            assert_eq!(fault(good), None, "{good}");
        }
        assert_eq!(fault(&"é".repeat(129)), Some(PasswordFault::TooLong));
        assert_eq!(
            fault(&"e\u{301}".repeat(128)),
            None,
            "composed, it is 128 characters"
        );
        assert_eq!(fault(&"x".repeat(1 << 20)), Some(PasswordFault::TooLong));
    }

    #[test]
    fn the_commonest_the_user_id_and_the_product_are_refused() {
        for common in [
            "password",
            "Password1",
            "12345678",
            "qwertyuiop",
            "iloveyou",
            "sunshine",
            "trustno1",
            "football",
        ] {
            assert_eq!(fault(common), Some(PasswordFault::Common), "{common}");
        }
        assert_eq!(fault("Wonderland.alice"), Some(PasswordFault::IsUserId));
        assert_eq!(fault("chat-bot"), Some(PasswordFault::Common));
    }

    #[test]
    fn the_list_is_long_sorted_out_and_usable() {
        let lines: Vec<_> = COMMON.lines().collect();
        assert!(lines.len() >= 3000, "{}", lines.len());
        assert!(
            lines.iter().all(|line| !line.is_empty()
                && *line == line.to_lowercase()
                && line.trim() == *line)
        );
    }

    #[tokio::test]
    async fn hashes_are_argon2id_with_their_own_salts_and_forgive_only_unicode_form() {
        let passwords = Passwords::new(8);
        let one = passwords.hash("caf\u{e9} au lait").await.unwrap();
        let two = passwords.hash("caf\u{e9} au lait").await.unwrap();
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$") && one != two);
        assert!(
            passwords
                .verify("cafe\u{301} au lait", Some(&one))
                .await
                .unwrap()
        );
        for other in [
            "caf\u{e9} au lait ",
            "caf\u{e9} au lai",
            "Caf\u{e9} au lait",
            "caf\u{e9} au lait\0",
        ] {
            assert!(
                !passwords.verify(other, Some(&one)).await.unwrap(),
                "{other:?}"
            );
        }
        assert!(!passwords.verify("caf\u{e9} au lait", None).await.unwrap());
        let long = "x".repeat(72);
        let hash = passwords.hash(&format!("{long}a")).await.unwrap();
        assert!(
            !passwords
                .verify(&format!("{long}b"), Some(&hash))
                .await
                .unwrap()
        );
        assert!(!Passwords::is_outdated(&one));
        assert!(Passwords::is_outdated(
            "$argon2id$v=19$m=4096,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g"
        ));
    }
}

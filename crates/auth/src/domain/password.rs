//! What may become a password.

use common::identity::UserId;
use unicode_normalization::UnicodeNormalization;

/// Longest password, in characters. It bounds what is hashed; nothing is ever cut.
const MAX_LENGTH: usize = 128;
/// The most common passwords, one a line, lower case.
const COMMON: &str = include_str!("common_passwords.txt");
/// What our own users would think of first.
const PRODUCT: [&str; 4] = ["chatbot", "chat-bot", "chatbot-backend", "chatbotchatbot"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordFault {
    #[error("it must have at least {0} characters")]
    TooShort(usize),
    #[error("it must have at most 128 characters")]
    TooLong,
    #[error("it must not be the user id")]
    IsUserId,
    #[error("it is one of the most common passwords; choose one that nobody else would")]
    Common,
}

#[derive(Debug)]
pub struct PasswordPolicy {
    /// In characters.
    min: usize,
    common: Vec<&'static str>,
}

/// The form that is hashed: two spellings of one text are one password (NFC).
pub fn normalize(password: &str) -> String {
    password.nfc().collect()
}

/// Refuses a text that is too long to be looked at.
pub fn check_length(password: &str) -> Result<(), PasswordFault> {
    // Composing makes no text longer than four times, so this bound is checked before any work.
    if password.len() > MAX_LENGTH * 64 || normalize(password).chars().count() > MAX_LENGTH {
        return Err(PasswordFault::TooLong);
    }
    Ok(())
}

impl PasswordPolicy {
    pub fn new(min: usize) -> Self {
        let mut common: Vec<&str> = COMMON.lines().chain(PRODUCT).collect();
        common.sort_unstable();
        Self { min, common }
    }

    /// Whether a text may become the password of that user.
    pub fn check(&self, password: &str, user: &UserId) -> Result<(), PasswordFault> {
        check_length(password)?;
        let password = normalize(password);
        if password.chars().count() < self.min {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(password: &str) -> Option<PasswordFault> {
        PasswordPolicy::new(8).check(password, &UserId::parse("wonderland.Alice").unwrap()).err()
    }

    #[test]
    fn length_is_counted_in_characters_and_nothing_else_is_asked() {
        assert_eq!(fault("žluťouč"), Some(PasswordFault::TooShort(8)));
        for good in ["žluťoučký", "        ", "😀😀😀😀😀😀😀😀", "Съешь же ещё", &"q7".repeat(64)]
        {
            assert_eq!(fault(good), None, "{good}");
        }
        assert_eq!(fault(&"é".repeat(129)), Some(PasswordFault::TooLong));
        assert_eq!(fault(&"e\u{301}".repeat(128)), None, "composed, it is 128 characters");
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
}

//! The ids of sessions and messages.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// A session's id within its user's sessions: 1 to 64 of `A-Z a-z 0-9 . _ -`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// Longest id, in characters.
    pub const MAX_LENGTH: usize = 64;

    /// The id, if the text is one.
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        let fits = (1..=Self::MAX_LENGTH).contains(&text.len());
        (fits && text.bytes().all(allowed)).then(|| Self(text.into()))
    }

    /// The session of a message that names none.
    pub fn default_session() -> Self {
        Self("default".into())
    }

    /// A new one, for a session that is created without an id.
    pub fn random() -> Self {
        Self(random_text(16).into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A message's id: `<incarnation of its session>-<position in it>-<random>`.
///
/// It says where the message stands, so that finding it costs the same in a long session as in a short one and needs
/// no index beside the list; the random part tells apart two answers that held the same position one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "Arc<str>")]
pub struct MessageId {
    text: Arc<str>,
    incarnation_end: usize,
    position: u64,
}

impl MessageId {
    /// A new id for the message at that position (0 is the first) of that incarnation of a session.
    pub fn new(incarnation: &str, position: u64) -> Self {
        let text = format!("{incarnation}-{position}-{}", random_text(8)).into();
        Self { incarnation_end: incarnation.len(), position, text }
    }

    /// The id, if the text is one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (incarnation, position, random) = (parts.next()?, parts.next()?, parts.next()?);
        let word = |part: &str, length| {
            part.len() == length && part.bytes().all(|c| ALPHABET.contains(&c))
        };
        let number = !position.is_empty()
            && position.len() <= 12
            && position.bytes().all(|c| c.is_ascii_digit());
        if parts.next().is_some()
            || !number
            || !word(incarnation, INCARNATION_LENGTH)
            || !word(random, 8)
        {
            return None;
        }
        let position = position.parse().ok()?;
        Some(Self { incarnation_end: incarnation.len(), position, text: text.into() })
    }

    /// Which life of its session it belongs to.
    pub fn incarnation(&self) -> &str {
        self.text.get(..self.incarnation_end).unwrap_or_default()
    }

    /// Where it stands in its session; 0 is the first.
    pub fn position(&self) -> u64 {
        self.position
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for MessageId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("not a message id")
    }
}

impl From<MessageId> for Arc<str> {
    fn from(id: MessageId) -> Self {
        id.text
    }
}

/// Characters of an incarnation: 60 bits, so that no two sessions of a user ever share one.
const INCARNATION_LENGTH: usize = 12;

/// Crockford's base 32 in lower case: no letter that reads as a digit.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The name of one life of a session: deleting a session and beginning another of the same id makes a new one.
pub fn new_incarnation() -> String {
    random_text(INCARNATION_LENGTH)
}

/// That many random characters of 5 bits each.
pub fn random_text(length: usize) -> String {
    (0..length).map(|_| char::from(ALPHABET[usize::from(rand::random::<u8>() & 31)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_reads_back_as_it_was_made() {
        let id = MessageId::new(&new_incarnation(), 42);
        assert_eq!(MessageId::parse(id.as_str()), Some(id.clone()));
        assert_eq!(id.position(), 42);
    }

    #[test]
    fn what_is_no_message_id_is_refused() {
        for text in [
            "",
            "a-b-c",
            "h2k9w0qzs1ab-7",
            "h2k9w0qzs1ab--x8d2k0qp",
            "h2k9w0qzs1ab-7-x8d2k0qp-",
            "../etc",
            "*",
        ] {
            assert_eq!(MessageId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_session_id_is_checked_as_a_whole() {
        assert!(SessionId::parse("A-z_0.9").is_some());
        for text in ["", " a", "a b", "a:b", "a{b}", "a/b", "é", &"x".repeat(65)] {
            assert!(SessionId::parse(text).is_none(), "{text}");
        }
    }
}

//! Opaque credentials, API keys and refresh tokens: random secrets that carry where their record is, so that one
//! lookup in one user's slot decides.
//!
//! The text is a prefix and base64url without padding of: version 1, length and user id, generation, length and record
//! id, then the secret. Exactly one text stands for one value: a changed character is another, unknown, secret.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::{Owner, UserId};

const VERSION: u8 = 1;
/// Longest record id inside, in bytes.
const MAX_ID: usize = 64;
/// Longest secret inside, in bytes.
const MAX_SECRET: usize = 128;
/// Longest text worth decoding, in bytes.
const MAX_TEXT: usize = 512;

#[derive(Clone, PartialEq, Eq)]
pub struct Opaque {
    pub owner: Owner,
    pub id: String,
    pub secret: Vec<u8>,
}

impl std::fmt::Debug for Opaque {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opaque")
            .field("owner", &self.owner)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Opaque {
    /// The credential as its holder gets it.
    pub fn encode(&self, prefix: &str) -> String {
        let user = self.owner.user.as_str().as_bytes();
        let mut bytes = Vec::with_capacity(16 + user.len() + self.id.len() + self.secret.len());
        bytes.push(VERSION);
        push_short(&mut bytes, user);
        bytes.extend_from_slice(&self.owner.generation.to_be_bytes());
        push_short(&mut bytes, self.id.as_bytes());
        bytes.extend_from_slice(&self.secret);
        format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The parts of a credential; `None` for whatever this module did not write.
    pub fn decode(prefix: &str, text: &str) -> Option<Self> {
        let encoded = text.strip_prefix(prefix).filter(|_| text.len() <= MAX_TEXT)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).ok()?;
        let (&version, rest) = bytes.split_first()?;
        let (user, rest) = split_short(rest)?;
        let (generation, rest) = rest.split_first_chunk::<8>()?;
        let (id, secret) = split_short(rest)?;
        let fits = version == VERSION
            && (1..=MAX_ID).contains(&id.len())
            && (16..=MAX_SECRET).contains(&secret.len());
        let printable = id.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'));
        if !fits || !printable {
            return None;
        }
        let user = UserId::parse(std::str::from_utf8(user).ok()?)?;
        Some(Self {
            owner: Owner { user, generation: u64::from_be_bytes(*generation) },
            id: String::from_utf8(id.to_vec()).ok()?,
            secret: secret.to_vec(),
        })
    }
}

/// What is stored in a credential's place: the SHA-256 of its text, base64url. The secrets are 32 random bytes, so that
/// a slow hash would add nothing.
pub fn digest(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes()))
}

fn push_short(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(part);
}

fn split_short(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Opaque {
        let owner = Owner { user: UserId::parse("alice@example.org").unwrap(), generation: 3 };
        Opaque { owner, id: "k-1_2".into(), secret: vec![7; 32] }
    }

    #[test]
    fn a_credential_is_read_back_as_it_was_written() {
        let text = sample().encode("cbk_");
        assert_eq!(Opaque::decode("cbk_", &text), Some(sample()));
        assert_eq!(Opaque::decode("cbr_", &text), None);
    }

    #[test]
    fn one_text_stands_for_one_value() {
        let text = sample().encode("cbk_");
        for at in 0..text.len() {
            for other in [b'A', b'z', b'-', b'.', b'='] {
                let mut bytes = text.clone().into_bytes();
                if bytes[at] == other {
                    continue;
                }
                bytes[at] = other;
                let changed = String::from_utf8(bytes).unwrap();
                assert_ne!(Opaque::decode("cbk_", &changed), Some(sample()), "{changed}");
            }
        }
    }

    #[test]
    fn what_was_cut_or_made_up_is_refused() {
        let text = sample().encode("cbk_");
        for end in 0..text.len() - 32 {
            assert_eq!(Opaque::decode("cbk_", &text[..end]), None);
        }
        assert_eq!(Opaque::decode("cbk_", &format!("cbk_{}", "A".repeat(1 << 20))), None);
    }
}

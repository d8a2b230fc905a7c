//! What the store knows of a key, and how it is written.

use crate::store::{Bytes, plan::KeyType};

pub(super) const NEVER: i64 = i64::MAX;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Milliseconds since the Unix epoch; the key is absent from then on.
    pub(super) expires: i64,
    pub(super) held: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Value(Bytes),
    Rows(Rows),
}

/// A hash, a list or an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) kind: KeyType,
    /// Under which its rows stand. A key that is deleted and made again has another, so deleting needs no look at the rows.
    pub(super) id: u64,
    pub(super) count: u64,
}

impl Content {
    pub(super) fn kind(&self) -> KeyType {
        match self {
            Content::Value(_) => KeyType::Value,
            Content::Rows(rows) => rows.kind,
        }
    }
}

impl Entry {
    pub(super) fn encode(&self) -> Vec<u8> {
        let kind = match self.held.kind() {
            KeyType::Value => b'v',
            KeyType::Hash => b'h',
            KeyType::List => b'l',
            KeyType::Index => b'i',
        };
        let mut out = vec![kind];
        out.extend(self.expires.to_le_bytes());
        match &self.held {
            Content::Value(value) => out.extend_from_slice(value),
            Content::Rows(rows) => {
                out.extend(rows.id.to_le_bytes());
                out.extend(rows.count.to_le_bytes());
            }
        }
        out
    }

    /// `None` for what this program never wrote.
    pub(super) fn decode(stored: &[u8]) -> Option<Self> {
        let (kind, rest) = stored.split_first()?;
        let (expires, rest) = rest.split_first_chunk()?;
        let expires = i64::from_le_bytes(*expires);
        let kind = match kind {
            b'v' => {
                return Some(Self { expires, held: Content::Value(Bytes::copy_from_slice(rest)) });
            }
            b'h' => KeyType::Hash,
            b'l' => KeyType::List,
            b'i' => KeyType::Index,
            _ => return None,
        };
        let (id, rest) = rest.split_first_chunk()?;
        let count = rest.first_chunk()?;
        let rows = Rows { kind, id: u64::from_le_bytes(*id), count: u64::from_le_bytes(*count) };
        Some(Self { expires, held: Content::Rows(rows) })
    }
}

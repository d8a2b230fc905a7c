//! The messages of a session as they are stored: a list of records, and beside it a list of their sizes.
//!
//! A record can have any size from 200 bytes to several MiB. The sizes say what a range takes before it is read.

use common::store::{Bytes, Op, StoreError};

use crate::{
    domain::{Message, SessionId},
    store::{codec::encode, keys::Keys, signed},
};

/// Bytes of records that one read returns, unless a single record has more.
pub(super) const READ_SIZE: usize = 512 * 1024;

/// Messages of unknown size that are read at a time.
pub(super) const UNKNOWN_STEP: usize = 8;

/// The first item of a list of sizes: those of the messages follow.
const SIZES_FORMAT: Bytes = Bytes::from_static(b"record text");

/// What a message takes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MessageSize {
    pub(super) record: usize,
    pub(super) text: usize,
}

impl MessageSize {
    /// What is assumed of a message without one.
    pub(super) const UNKNOWN: Self = Self { record: READ_SIZE / UNKNOWN_STEP, text: 0 };

    fn encode(self) -> Bytes {
        format!("{} {}", self.record, self.text).into()
    }

    fn decode(stored: &[u8]) -> Option<Self> {
        let (record, text) = std::str::from_utf8(stored).ok()?.split_once(' ')?;
        Some(Self { record: record.parse().ok()?, text: text.parse().ok()? })
    }
}

/// A message as it is stored, with its size.
pub(super) struct Record {
    bytes: Bytes,
    size: Bytes,
}

impl Record {
    pub(super) fn new(message: &Message) -> Result<Self, StoreError> {
        let bytes = encode(message)?;
        let size = MessageSize { record: bytes.len(), text: message.content.len() };
        Ok(Self { bytes, size: size.encode() })
    }

    pub(super) fn append(self, keys: &Keys, id: &SessionId, count: u64) -> Vec<Op> {
        let sizes = keys.message_sizes(id);
        let mut ops = vec![Op::Push(keys.messages(id), self.bytes)];
        if count == 0 {
            ops.push(Op::Push(sizes.clone(), SIZES_FORMAT));
        }
        ops.push(Op::Push(sizes, self.size));
        ops
    }

    pub(super) fn replace(self, keys: &Keys, id: &SessionId, position: u64) -> [Op; 2] {
        let at = signed(position);
        [
            Op::ItemSet(keys.messages(id), at, self.bytes),
            Op::ItemSet(keys.message_sizes(id), at + 1, self.size),
        ]
    }
}

/// Removes the last message, which leaves so many.
pub(super) fn remove_last(keys: &Keys, id: &SessionId, left: u64) -> [Op; 2] {
    let sizes = keys.message_sizes(id);
    let sizes = if left == 0 { Op::Delete(sizes) } else { Op::Pop(sizes) };
    [Op::Pop(keys.messages(id)), sizes]
}

pub(super) fn delete(keys: &Keys, id: &SessionId) -> [Op; 2] {
    [keys.messages(id), keys.message_sizes(id)].map(Op::Delete)
}

/// How many of these sizes, from the first, add up to at most `bytes`.
pub(super) fn fitting(sizes: impl IntoIterator<Item = usize>, bytes: usize) -> usize {
    let mut sum = 0_usize;
    let fits = |size: &usize| {
        sum = sum.saturating_add(*size);
        sum <= bytes
    };
    sizes.into_iter().take_while(fits).count()
}

/// The sizes; `None` where one cannot be read.
pub(super) fn decode_sizes(items: &[Bytes]) -> Option<Vec<MessageSize>> {
    items.iter().map(|item| MessageSize::decode(item)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_as_it_was_written() {
        let size = MessageSize { record: 12_345_678, text: 0 };
        assert_eq!(MessageSize::decode(&size.encode()), Some(size));
        for other in ["", "1", "1 ", "a 1", "1 2 3"] {
            assert_eq!(MessageSize::decode(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_range_ends_before_its_bytes_are_exceeded() {
        assert_eq!(fitting([4, 4, 4], 8), 2);
        assert_eq!(fitting([4, 4, 4], 100), 3);
        assert_eq!(fitting([9, 1], 8), 0);
    }
}

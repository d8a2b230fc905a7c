//! Records as JSON objects whose first member is their version.

use common::store::{Bytes, StoreError};
use serde::{Serialize, de::DeserializeOwned};

use crate::domain::random_text;

/// The version of new records. Readers skip records of other versions.
const VERSION: &[u8] = b"{\"v\":2,";

/// The beginning of a record that has a revision.
const REVISION: &[u8] = b"{\"v\":2,\"revision\":\"";

/// Encodes a struct with at least one member.
pub(super) fn encode<T: Serialize>(record: &T) -> Result<Bytes, StoreError> {
    encode_after(&[VERSION], record)
}

/// As [`encode`], with a revision at its head that no other record of that key has: see [`head`].
pub(super) fn encode_revised<T: Serialize>(record: &T) -> Result<Bytes, StoreError> {
    encode_after(&[REVISION, random_text(8).as_bytes(), b"\","], record)
}

/// The beginning of a record that tells it apart from all others that its key has held: up to its revision, or, where it has
/// none, all of it.
pub(super) fn head(record: &Bytes) -> Bytes {
    let rest = record.strip_prefix(REVISION);
    let revision = rest.and_then(|rest| rest.iter().position(|byte| *byte == b'"'));
    record.slice(..revision.map_or(record.len(), |end| REVISION.len() + end + 1))
}

fn encode_after<T: Serialize>(start: &[&[u8]], record: &T) -> Result<Bytes, StoreError> {
    let mut json = Vec::with_capacity(512);
    start.iter().for_each(|part| json.extend_from_slice(part));
    json.pop();
    let comma = json.len();
    serde_json::to_writer(&mut json, record)
        .map_err(|error| StoreError::Corrupt(error.to_string()))?;
    // The record's own opening brace becomes the comma behind what stands before it.
    if let Some(brace) = json.get_mut(comma) {
        *brace = b',';
    }
    Ok(json.into())
}

/// The record, if it can be read and is of our version.
pub(super) fn decode<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    json.starts_with(VERSION).then(|| serde_json::from_slice(json).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Record {
        text: String,
    }

    #[test]
    fn a_record_is_decoded_as_it_was_encoded_and_other_versions_are_not() {
        let record = Record { text: "a\"b".into() };
        let json = encode(&record).unwrap();
        assert_eq!(json, br#"{"v":2,"text":"a\"b"}"#.as_slice());
        assert_eq!(decode(&json).as_ref(), Some(&record));
        let (first, second) = (encode_revised(&record).unwrap(), encode_revised(&record).unwrap());
        assert_eq!(decode(&first), Some(record));
        assert!(first.starts_with(&head(&first)) && !second.starts_with(&head(&first)));
        assert_eq!(head(&json), json);
        for other in [br#"{"v":1,"text":"a"}"#.as_slice(), b"", b"{\"v\":2,", b"[]"] {
            assert_eq!(decode::<Record>(other), None);
        }
    }
}

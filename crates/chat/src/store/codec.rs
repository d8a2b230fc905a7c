//! Records as JSON objects whose first member is their version.

use common::store::{Bytes, StoreError};
use serde::{Serialize, de::DeserializeOwned};

/// The version of new records. Readers skip records of other versions.
const VERSION: &[u8] = b"{\"v\":2,";

/// Encodes a struct with at least one member.
pub(super) fn encode<T: Serialize>(record: &T) -> Result<Bytes, StoreError> {
    let start = VERSION.len() - 1;
    let mut json = Vec::with_capacity(256);
    json.extend_from_slice(VERSION.get(..start).unwrap_or_default());
    serde_json::to_writer(&mut json, record)
        .map_err(|error| StoreError::Corrupt(error.to_string()))?;
    // The record's own opening brace becomes the comma behind the version.
    if let Some(brace) = json.get_mut(start) {
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
        assert_eq!(decode(&json), Some(record));
        for other in [br#"{"v":1,"text":"a"}"#.as_slice(), b"", b"{\"v\":2,", b"[]"] {
            assert_eq!(decode::<Record>(other), None);
        }
    }
}

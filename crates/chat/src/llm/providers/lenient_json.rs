//! JSON as servers write it: a member that makes no sense counts as absent, so that it fails no answer.

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Value, error::Category, value::RawValue};

use crate::llm::providers::unicode::RawText;

/// More tokens than any answer has: a count beyond it is none.
const MAX_COUNT: u64 = 1_000_000_000;

/// A member of that type, or none where it is anything else.
#[derive(Default)]
pub(super) struct OrNone<T>(pub(super) Option<T>);

impl<'de, T: DeserializeOwned> Deserialize<'de> for OrNone<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(from)?;
        Ok(Self(serde_json::from_str(raw.get()).ok()))
    }
}

/// The entries of a list, or the one that stands without a list, but for those that make no sense.
pub(super) fn entries<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    let raw = <&'de RawValue>::deserialize(from)?;
    let all: Vec<&RawValue> = serde_json::from_str(raw.get()).unwrap_or_else(|_| vec![raw]);
    Ok(all.into_iter().filter_map(|entry| serde_json::from_str(entry.get()).ok()).collect())
}

/// A text, whatever halves of surrogate pairs are in it.
pub(super) fn lossy_text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<RawText>::deserialize(from)?.and_then(RawText::into_string))
}

/// A number of tokens: a whole number, also where it is written with a point; one that makes no sense is none.
pub(super) fn tokens(number: &Value) -> Option<u64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole, not negative, and compared with the largest count below"
    )]
    let whole = |number: f64| (number >= 0.0 && number.fract() == 0.0).then_some(number as u64);
    number.as_u64().or_else(|| number.as_f64().and_then(whole)).filter(|count| *count <= MAX_COUNT)
}

pub(super) fn tokens_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    Ok(OrNone::deserialize(from)?.0.as_ref().and_then(tokens))
}

/// A place in a list: a whole number, also one that is written as a text.
pub(super) fn index_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let OrNone::<Value>(index) = OrNone::deserialize(from)?;
    Ok(index.and_then(|index| tokens(&index).or_else(|| index.as_str()?.trim().parse().ok())))
}

/// Whether a member says anything: some servers write one that is empty where others leave it out.
pub(super) fn says(member: &RawValue) -> bool {
    !matches!(member.get(), "null" | "false" | "{}" | "[]" | "\"\"")
}

/// What a JSON document is read from: without the byte order mark that some put before it.
pub(super) fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes)
}

/// An object; a list would be taken for one by its members' order.
pub(super) fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, String> {
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err("not an object".to_owned());
    }
    // Without serde's own sentence, which quotes what it read.
    serde_json::from_slice(json).map_err(|error| {
        let what = match error.classify() {
            Category::Data => "a member of an unexpected type",
            Category::Eof => "an incomplete document",
            Category::Syntax | Category::Io => "no JSON",
        };
        format!("{what} at column {}", error.column())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_count_is_whole_and_within_reason() {
        for (written, count) in [
            (json!(7), Some(7)),
            (json!(7.0), Some(7)),
            (json!(0), Some(0)),
            (json!(7.5), None),
            (json!(-1), None),
            (json!("7"), None),
            (json!(null), None),
            (json!(true), None),
            (json!(u64::MAX), None),
            (json!(1e300), None),
        ] {
            assert_eq!(tokens(&written), count, "{written}");
        }
    }
}

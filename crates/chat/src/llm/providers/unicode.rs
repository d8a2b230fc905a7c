//! Text of JSON strings whose emoji were cut in half: JavaScript servers that split strings send half of a surrogate pair
//! in one delta and the other half in the next.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

/// A JSON string as bytes, where a lone surrogate stands as its three bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RawText(pub(super) Vec<u8>);

#[derive(Debug, Default)]
pub(super) struct TextJoiner {
    /// The first half of a pair whose second one has not come.
    high: Option<u16>,
}

impl RawText {
    /// The text alone, each lone surrogate replaced by U+FFFD; `None` where the bytes are no text.
    pub(super) fn into_string(self) -> Option<String> {
        let mut joiner = TextJoiner::default();
        let mut text = joiner.push(self)?;
        text.push_str(joiner.finish());
        Some(text)
    }
}

impl TextJoiner {
    /// The text of the next piece; `None` where its bytes are no text. Half a pair at its end is kept for the next piece.
    pub(super) fn push(&mut self, piece: RawText) -> Option<String> {
        if piece.0.is_empty() {
            return Some(String::new());
        }
        let mut bytes = piece.0;
        if self.high.is_none() {
            match String::from_utf8(bytes) {
                Ok(text) => return Some(text),
                Err(error) => bytes = error.into_bytes(),
            }
        }
        let (mut text, mut rest) = (String::with_capacity(bytes.len()), bytes.as_slice());
        while !rest.is_empty() {
            let (valid, after) = match std::str::from_utf8(rest) {
                Ok(valid) => (valid, &[][..]),
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    (std::str::from_utf8(valid).ok()?, after)
                }
            };
            if !valid.is_empty() {
                text.push_str(self.finish());
                text.push_str(valid);
            }
            rest = match after {
                [] => after,
                [0xED, second @ 0xA0..=0xBF, third @ 0x80..=0xBF, after @ ..] => {
                    self.surrogate(u16::from(*second), u16::from(*third), &mut text);
                    after
                }
                _ => return None,
            };
        }
        Some(text)
    }

    fn surrogate(&mut self, second: u16, third: u16, text: &mut String) {
        let unit = 0xD000 | (second & 0x3F) << 6 | (third & 0x3F);
        if unit < 0xDC00 {
            text.push_str(self.finish());
            self.high = Some(unit);
            return;
        }
        let pair = self.high.take().map(|high| [high, unit]);
        let joined = pair.and_then(|pair| char::decode_utf16(pair).next()?.ok());
        text.push(joined.unwrap_or(char::REPLACEMENT_CHARACTER));
    }

    /// What stands for a half whose other half never came.
    pub(super) fn finish(&mut self) -> &'static str {
        if self.high.take().is_some() { "\u{fffd}" } else { "" }
    }
}

/// A JSON document in which each escaped lone surrogate is replaced by U+FFFD, so that every parser accepts it.
pub(super) fn repair_escapes(json: &str) -> String {
    let unit = |at: usize| {
        let digits = json.get(at..)?.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut repaired, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(found) = json.get(at..).and_then(|rest| rest.find('\\')) {
        at += found;
        let length = match (unit(at), unit(at + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(0xD800..=0xDFFF), _) => {
                repaired.push_str(json.get(copied..at).unwrap_or_default());
                repaired.push_str("\\ufffd");
                copied = at + 6;
                6
            }
            _ => 2,
        };
        at += length;
    }
    repaired.push_str(json.get(copied..).unwrap_or_default());
    repaired
}

impl<'de> Deserialize<'de> for RawText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(RawTextVisitor)
    }
}

struct RawTextVisitor;

impl de::Visitor<'_> for RawTextVisitor {
    type Value = RawText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<RawText, E> {
        Ok(RawText(bytes.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(pieces: &[&str]) -> String {
        let mut joiner = TextJoiner::default();
        let mut text = String::new();
        for piece in pieces {
            let raw: RawText = serde_json::from_str(&format!("\"{piece}\"")).unwrap();
            text.push_str(&joiner.push(raw).unwrap());
        }
        text + joiner.finish()
    }

    #[test]
    fn halves_are_joined_and_lone_ones_replaced() {
        for (pieces, text) in [
            (&["ok ", r"\ud83d", r"\ude00"][..], "ok 😀"),
            (&[r"a\ud83d", r"\ude00b"], "a😀b"),
            (&[r"a\ud83d", "", r"\ude00b"], "a😀b"),
            (&[r"a\ud83d\ude00", "é"], "a😀é"),
            (&[r"a\ud83d", "b"], "a\u{fffd}b"),
            (&[r"\ude00", "b"], "\u{fffd}b"),
            (&[r"\ud83d\ud83d\ude00"], "\u{fffd}😀"),
            (&[r"b\ud83d"], "b\u{fffd}"),
            (&[r"\ud83dé", r"\ude00"], "\u{fffd}é\u{fffd}"),
        ] {
            assert_eq!(joined(pieces), text, "{pieces:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        for bytes in [&b"\xff"[..], b"\xed\xa0", b"a\xc3", b"\xed\xa0\xbd\xff"] {
            assert_eq!(TextJoiner::default().push(RawText(bytes.to_vec())), None);
        }
    }

    #[test]
    fn lone_escapes_in_a_document_are_replaced() {
        for (json, repaired) in [
            (r#"{"a":"\ud83d\ude00 \ud83d"}"#, r#"{"a":"\ud83d\ude00 \ufffd"}"#),
            (r#"{"a":"\\ud83d \uDE00"}"#, r#"{"a":"\\ud83d \ufffd"}"#),
            (r#"{"a":"\n\u00e9"}"#, r#"{"a":"\n\u00e9"}"#),
            (r"\ud83", r"\ud83"),
        ] {
            assert_eq!(repair_escapes(json), repaired);
        }
    }
}

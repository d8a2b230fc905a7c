//! What a deserializer says of a wrong value, kept as data instead of a sentence.

use std::fmt;

use serde::de::{self, Expected, Unexpected};
use serde_path_to_error::{Path, Segment};

use super::{ApiError, Code};

/// Longest text of ours about one wrong value, in characters; a name that the caller sent may be part of it.
const MAX_DETAIL: usize = 300;

/// Why a value is not what was asked for. It never holds the value itself, which may be long, or secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecodeError {
    #[error("This field is missing.")]
    Missing(&'static str),
    #[error("This field is not known here; known: {}.", .0.join(", "))]
    Unknown(&'static [&'static str]),
    #[error("Expected {0}.")]
    Expected(String),
    #[error("A flag is either true or false.")]
    Flag,
    #[error("{0}")]
    Other(String),
}

impl DecodeError {
    /// The refusal of a value at this path below `prefix`.
    pub(super) fn at(&self, prefix: &str, path: &Path) -> ApiError {
        let mut pointer = format!("{prefix}{}", pointer(path));
        if let DecodeError::Flag = self {
            return ApiError::new(Code::InvalidRequest, format!("{path} is either true or false."));
        }
        if let DecodeError::Missing(name) = self {
            push(&mut pointer, name);
        }
        ApiError::invalid(pointer, shorten(&self.to_string()))
    }
}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        DecodeError::Other(message.to_string())
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        DecodeError::Expected(in_words(expected))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let range = match expected.to_string().as_str() {
            "u8" => "from 0 to 255",
            "u16" => "from 0 to 65535",
            "u32" => "from 0 to 4294967295",
            "u64" | "usize" => "from 0 to 18446744073709551615",
            "i64" => "from -9223372036854775808 to 9223372036854775807",
            _ => return DecodeError::Expected(in_words(expected)),
        };
        DecodeError::Expected(format!("a whole number {range}"))
    }

    fn invalid_length(_: usize, expected: &dyn Expected) -> Self {
        DecodeError::Expected(in_words(expected))
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        DecodeError::Expected(known.join(" or "))
    }

    fn unknown_field(_: &str, known: &'static [&'static str]) -> Self {
        DecodeError::Unknown(known)
    }

    fn missing_field(name: &'static str) -> Self {
        DecodeError::Missing(name)
    }
}

/// What is expected, in the words of JSON instead of those of our types.
fn in_words(expected: &dyn Expected) -> String {
    let expected = expected.to_string();
    match expected.as_str() {
        "u8" | "u16" | "u32" | "u64" | "usize" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a sequence" => "a list",
        "a map" => "an object",
        "a boolean" => "true or false",
        other if other.starts_with("struct ") => "an object",
        _ => return expected,
    }
    .to_owned()
}

/// The path as a JSON pointer (RFC 6901).
fn pointer(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => push(&mut pointer, &index.to_string()),
            Segment::Map { key } => push(&mut pointer, key),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

fn push(pointer: &mut String, name: &str) {
    pointer.push('/');
    pointer.push_str(&shorten(name).replace('~', "~0").replace('/', "~1"));
}

pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_DETAIL) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

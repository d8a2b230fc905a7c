//! Parses query strings strictly: each parameter once, flags `true` or `false`, unknown names refused.

use std::borrow::Cow;

use serde::de::{
    DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Unexpected, Visitor,
    value::MapDeserializer,
};

use super::{ApiError, Code, decode_error::DecodeError};

/// The value of a query string (without its `?`).
///
/// # Errors
/// `invalid_request` for what cannot be decoded, a parameter that comes twice, or a flag other than `true` and `false`;
/// `validation_failed` with `/query/<name>` for an unknown or missing parameter or a wrong value.
pub fn parse<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    let pairs = decode(query)?;
    let fields = pairs
        .iter()
        .map(|(name, value)| (name.as_ref(), Value(value.as_ref())));
    let map: MapDeserializer<'_, _, DecodeError> = MapDeserializer::new(fields);
    serde_path_to_error::deserialize(map).map_err(|error| error.inner().at("/query", error.path()))
}

/// A name and its value.
type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

fn decode(query: &str) -> Result<Vec<Pair<'_>>, ApiError> {
    let mut pairs: Vec<Pair<'_>> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(name), Some(value)) = (percent_decode(name), percent_decode(value)) else {
            return Err(ApiError::new(
                Code::InvalidRequest,
                "The query is not percent-encoded UTF-8.",
            ));
        };
        if pairs.iter().any(|(other, _)| *other == name) {
            return Err(ApiError::new(
                Code::InvalidRequest,
                "A query parameter may come once.",
            ));
        }
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// The text, with `+` as a blank; `None` for a broken escape or what is not UTF-8.
fn percent_decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    u8::try_from(char::from(digit).to_digit(16)?).ok()
}

/// One parameter's text, read as whatever is asked for.
#[derive(Clone, Copy)]
struct Value<'a>(&'a str);

impl<'de> IntoDeserializer<'de, DecodeError> for Value<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! numbers {
    ($($method:ident)* => $visit:ident $kind:ty) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            match self.0.parse::<$kind>() {
                Ok(number) => visitor.$visit(number),
                Err(_) => Err(DecodeError::invalid_type(Unexpected::Str(self.0), &visitor)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Value<'de> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.0 {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            _ => Err(DecodeError::Flag),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    numbers! { deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 => visit_u64 u64 }
    numbers! { deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 => visit_i64 i64 }
    numbers! { deserialize_f32 deserialize_f64 => visit_f64 f64 }

    serde::forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Page {
        stream: bool,
        limit: Option<u16>,
        cursor: Option<String>,
    }

    fn code(query: &str) -> Code {
        parse::<Page>(query).unwrap_err().code
    }

    #[test]
    fn parameters_are_read_decoded() {
        let page: Page = parse("stream=true&limit=20&cursor=a%20b%2Bc+d%C3%A4").unwrap();
        assert_eq!(
            page,
            Page {
                stream: true,
                limit: Some(20),
                cursor: Some("a b+c dä".into())
            }
        );
        assert_eq!(parse::<Page>("").unwrap(), Page::default());
        assert_eq!(parse::<Page>("&stream=false&").unwrap(), Page::default());
    }

    #[test]
    fn a_flag_is_true_or_false_and_comes_once() {
        for query in [
            "stream=1",
            "stream=TRUE",
            "stream=yes",
            "stream=",
            "stream",
            "stream=true&stream=false",
        ] {
            assert_eq!(code(query), Code::InvalidRequest, "{query}");
        }
        assert_eq!(code("x=1&x=2"), Code::InvalidRequest);
    }

    #[test]
    fn what_cannot_be_decoded_is_malformed() {
        for query in [
            "cursor=%",
            "cursor=%4",
            "cursor=%zz",
            "cursor=%ff",
            "%ff=1",
            "cursor=%+1",
        ] {
            assert_eq!(code(query), Code::InvalidRequest, "{query}");
        }
    }

    #[test]
    fn a_wrong_or_unknown_parameter_is_pointed_at() {
        for (query, pointer) in [
            ("limit=-1", "/query/limit"),
            ("limit=1e9", "/query/limit"),
            ("limit=x", "/query/limit"),
            ("colour=red", "/query/colour"),
        ] {
            let error = parse::<Page>(query).unwrap_err();
            assert_eq!(
                (error.code, error.errors[0].pointer.as_str()),
                (Code::ValidationFailed, pointer),
                "{query}"
            );
        }
    }
}

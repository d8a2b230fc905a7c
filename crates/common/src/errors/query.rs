//! Parses query strings strictly: each parameter once, flags `true` or `false`, unknown names refused.

use serde::de::{DeserializeOwned, value::MapDeserializer};

use super::{ApiError, Code, decode_error::DecodeError, typed::Typed};

/// The value of a query string (without its `?`).
///
/// # Errors
/// `invalid_request` for what cannot be decoded, a parameter that comes twice, or a flag other than `true` and `false`;
/// `validation_failed` with `/query/<name>` for an unknown or missing parameter or a wrong value.
pub fn parse<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    let parameters = decode(query)?.into_iter().map(|(name, text)| (name, Typed::Parameter(text)));
    let map: MapDeserializer<'_, _, DecodeError> = MapDeserializer::new(parameters);
    serde_path_to_error::deserialize(map).map_err(|error| error.inner().at("/query", error.path()))
}

fn decode(query: &str) -> Result<Vec<(String, String)>, ApiError> {
    let malformed = |detail| ApiError::new(Code::InvalidRequest, detail);
    let mut pairs: Vec<(String, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(name), Some(value)) = (percent_decode(name), percent_decode(value)) else {
            return Err(malformed("The query is not percent-encoded UTF-8."));
        };
        if pairs.iter().any(|(other, _)| *other == name) {
            return Err(malformed("A query parameter may come once."));
        }
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// The text, with `+` as a blank; `None` for a broken escape or what is not UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

fn hex(digit: u8) -> Option<u8> {
    u8::try_from(char::from(digit).to_digit(16)?).ok()
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
        assert_eq!(page, Page { stream: true, limit: Some(20), cursor: Some("a b+c dä".into()) });
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
        for query in ["cursor=%", "cursor=%4", "cursor=%zz", "cursor=%ff", "%ff=1", "cursor=%+1"] {
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

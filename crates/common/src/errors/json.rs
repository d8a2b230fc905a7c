//! Parses JSON bodies: `invalid_json` for what is not JSON, `validation_failed` with a pointer for JSON of another type.

use std::fmt;

use serde::de::{
    self, Deserialize, DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Map, Value};

use super::{ApiError, Code, decode_error::shorten, typed::Typed};

/// The value of a JSON text.
///
/// # Errors
/// `invalid_json` for what is no JSON (also: not UTF-8, anything after the value, nested deeper than 128, a member
/// twice, a lone surrogate); `validation_failed` with a pointer for what is JSON and no `T`.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let invalid = |detail: String| ApiError::new(Code::InvalidJson, detail);
    let text = std::str::from_utf8(bytes).map_err(|_| invalid("The body is not UTF-8.".into()))?;
    let Unique(value) = serde_json::from_str(text).map_err(|error| {
        let reason = shorten(&error.to_string());
        invalid(format!("The body is not valid JSON: {reason}."))
    })?;
    serde_path_to_error::deserialize(Typed::Json(value))
        .map_err(|error| error.inner().at("", error.path()))
}

/// A JSON value whose objects name each member once.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(UniqueVisitor)
    }
}

struct UniqueVisitor;

macro_rules! scalars {
    ($($method:ident($kind:ty))*) => {$(
        fn $method<E: de::Error>(self, value: $kind) -> Result<Unique, E> {
            Ok(Unique(value.into()))
        }
    )*};
}

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    scalars! { visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_f64(f64) visit_str(&str) visit_string(String) }

    fn visit_unit<E: de::Error>(self) -> Result<Unique, E> {
        Ok(Unique(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Unique, A::Error> {
        let mut list = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Unique(list.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Unique, A::Error> {
        let mut object = Map::new();
        while let Some((name, Unique(value))) = members.next_entry::<String, Unique>()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("an object names a member twice"));
            }
        }
        Ok(Unique(object.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::Instant};

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only their parsing is tested")]
    struct Message {
        message: String,
        session_id: Option<String>,
        options: Option<Options>,
        #[serde(default)]
        stop: Vec<String>,
        kind: Option<Kind>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Options {
        temperature: Option<f64>,
        max_tokens: Option<u32>,
        seeds: HashMap<String, i64>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Plain,
        Fancy,
    }

    fn code(text: &str) -> Option<Code> {
        parse::<Message>(text.as_bytes()).err().map(|error| error.code)
    }

    fn wrong(text: &str) -> (String, String) {
        let error = parse::<Message>(text.as_bytes()).unwrap_err();
        assert_eq!(error.code, Code::ValidationFailed, "{text}: {error:?}");
        (error.errors[0].pointer.clone(), error.errors[0].detail.clone())
    }

    #[test]
    fn what_is_no_json_is_told_as_such() {
        let nested =
            |depth: usize| format!(r#"{{"message":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        for text in [
            "",
            " ",
            "{",
            r#"{"message":"a""#,
            r#"{"message":"a"} x"#,
            r#"{"message":"a"}{}"#,
            "nul",
            "'a'",
            r#"{"message":"\ud800"}"#,
            r#"{"message":"\udc00\ud800"}"#,
            r#"{"message":01}"#,
            r#"{"message":NaN}"#,
            r#"{"message":1e400}"#,
            r#"{"message":"a","message":"b"}"#,
            r#"{"message":"a","options":{"max_tokens":1,"max_tokens":2}}"#,
            r#"{"message":5,"x":}"#,
            r#"{"unknown":"\ud800","message":5}"#,
            r#"{"x":1,"x":2}"#,
            &nested(129),
            &nested(100_000),
            &"[".repeat(1_000_000),
            &r#"{"a":"#.repeat(200_000),
        ] {
            assert_eq!(code(text), Some(Code::InvalidJson), "{}", text.get(..60).unwrap_or(text));
        }
        for bytes in [
            &b"{\"message\":\"\x80\"}"[..],
            b"{\"message\":\"\xc0\xaf\"}",
            b"{\"message\":\"\xed\xa0\x80\"}",
            b"{\"message\":\"\xe2\x82",
        ] {
            assert_eq!(parse::<Message>(bytes).unwrap_err().code, Code::InvalidJson);
        }
    }

    #[test]
    fn what_is_json_and_something_else_is_pointed_at() {
        for text in ["null", "[]", r#""x""#, "5", r#"["hello"]"#, r#"["a",null,null,[],null]"#] {
            assert_eq!(wrong(text).0, "", "{text}");
        }
        assert_eq!(wrong("{}"), ("/message".into(), "This field is missing.".into()));
        assert_eq!(wrong(r#"{"message":5}"#), ("/message".into(), "Expected a string.".into()));
        assert_eq!(wrong(r#"{"message":null}"#).0, "/message");
        assert_eq!(
            wrong(r#"{"message":"a","options":{"temperature":"hot"}}"#).0,
            "/options/temperature"
        );
        assert_eq!(wrong(r#"{"message":"a","options":[0.5]}"#).0, "/options");
        let object = ("/options".to_owned(), "Expected an object.".to_owned());
        assert_eq!(wrong(r#"{"message":"a","options":[]}"#), object);
        assert_eq!(wrong(r#"{"message":"a","options":"x"}"#), object);
        assert_eq!(
            wrong(r#"{"message":"a","options":{"seeds":{"a/b~c":"x"}}}"#).0,
            "/options/seeds/a~1b~0c"
        );
        assert_eq!(wrong(r#"{"message":"a","stop":["x",1]}"#).0, "/stop/1");
        assert_eq!(
            wrong(r#"{"message":"a","options":{"max_tokens":-1}}"#),
            (
                "/options/max_tokens".into(),
                "Expected a whole number from 0 to 4294967295.".to_owned()
            )
        );
        assert_eq!(
            wrong(r#"{"message":"a","kind":"odd"}"#),
            ("/kind".into(), "Expected plain or fancy.".into())
        );
        let (pointer, detail) = wrong(r#"{"message":"a","surprise":{"deep":[1]}}"#);
        assert_eq!(pointer, "/surprise");
        assert!(detail.contains("message, session_id, options"), "{detail}");
        let (pointer, _) = wrong(r#"{"message":"a","options":{"top":1}}"#);
        assert_eq!(pointer, "/options/top");
    }

    #[test]
    fn what_is_expected_is_said_in_the_words_of_json() {
        for (text, detail) in [
            ("null", "Expected an object."),
            (r#"{"message":"a","options":7}"#, "Expected an object."),
            (r#"{"message":"a","options":{"seeds":[]}}"#, "Expected an object."),
            (r#"{"message":"a","stop":"x"}"#, "Expected a list."),
            (r#"{"message":"a","options":{"temperature":"hot"}}"#, "Expected a number."),
            (r#"{"message":"a","options":{"seeds":{"x":"y"}}}"#, "Expected a whole number."),
            (
                r#"{"message":"a","options":{"seeds":{"x":9223372036854775808}}}"#,
                "Expected a whole number from -9223372036854775808 to 9223372036854775807.",
            ),
        ] {
            assert_eq!(wrong(text).1, detail, "{text}");
        }
    }

    #[test]
    fn null_for_an_optional_member_is_the_same_as_leaving_it_out() {
        let text = r#"{"message":"a","session_id":null,"options":{"max_tokens":null},"kind":null}"#;
        let parsed = parse::<Message>(text.as_bytes()).unwrap();
        assert!(parsed.session_id.is_none() && parsed.kind.is_none());
        assert_eq!(parsed.options.unwrap().max_tokens, None);
    }

    #[test]
    fn a_wrong_value_is_not_repeated() {
        let secret = "s3cret ".repeat(1000);
        let (_, detail) = wrong(&format!(r#"{{"message":"a","options":"{secret}"}}"#));
        assert!(!detail.contains("s3cret"), "{detail}");
    }

    #[test]
    fn hostile_bodies_are_refused_quickly() {
        let begun = Instant::now();
        let many: String = (0..20_000).map(|i| format!(r#""k{i}":1,"#)).collect();
        assert_eq!(code(&format!(r#"{{{many}"message":"a"}}"#)), Some(Code::ValidationFailed));
        assert_eq!(
            code(&"[".repeat(1_000_000)),
            Some(Code::ValidationFailed).filter(|_| false).or(Some(Code::InvalidJson))
        );
        assert!(begun.elapsed().as_millis() < 2000, "{:?}", begun.elapsed());
    }
}

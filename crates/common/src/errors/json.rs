//! JSON bodies into values: what is no JSON is told apart from JSON that says something else than was asked for.

use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

use super::{ApiError, Code, strict::Strict, valid::Valid};

/// Longest text of ours about one wrong value, in bytes; what the caller sent may be part of it.
const MAX_DETAIL: usize = 300;

/// The value of a JSON text.
///
/// # Errors
/// `invalid_json` for what is no JSON (also: not UTF-8, anything after the value, nested deeper than 128, a member
/// twice, a lone surrogate); `validation_failed` with a pointer for what is JSON and no `T`.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let text = std::str::from_utf8(bytes).map_err(|_| invalid("The body is not UTF-8."))?;
    let mut json = serde_json::Deserializer::from_str(text);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let result = T::deserialize(Strict(tracked));
    match result {
        Ok(value) => json
            .end()
            .map(|()| value)
            .map_err(|_| invalid("There is something after the JSON value.")),
        Err(error) => Err(refuse(text, &track.path(), &error)),
    }
}

fn invalid(detail: impl Into<String>) -> ApiError {
    ApiError::new(Code::InvalidJson, detail)
}

fn refuse(text: &str, path: &Path, error: &serde_json::Error) -> ApiError {
    if !error.is_data() {
        return invalid(format!(
            "The body is not valid JSON: {}.",
            shorten(&error.to_string())
        ));
    }
    // A wrong value may stand before the place where the text stops being JSON; that it is none comes first.
    if let Err(error) = serde_json::from_str::<Valid>(text) {
        return invalid(format!(
            "The body is not valid JSON: {}.",
            shorten(&error.to_string())
        ));
    }
    let message = error.to_string();
    let message = message
        .rsplit_once(" at line ")
        .map_or(message.as_str(), |(message, _position)| message);
    let (pointer, detail) = explain(path, message);
    ApiError::invalid(pointer, detail)
}

/// Where the fault is and what is allowed there. What the caller sent is not repeated: it may be long, or secret.
pub(super) fn explain(path: &Path, message: &str) -> (String, String) {
    let mut pointer = pointer(path);
    if let Some(name) = message
        .strip_prefix("missing field `")
        .and_then(|rest| rest.strip_suffix('`'))
    {
        push(&mut pointer, name);
        return (pointer, "This field is missing.".to_owned());
    }
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let allowed = rest.rsplit_once("`, expected ").map(|(_, allowed)| allowed);
        let detail = allowed.map_or_else(
            || "This field is not known here.".to_owned(),
            |allowed| {
                shorten(&format!(
                    "This field is not known here; known: {}.",
                    listed(allowed)
                ))
            },
        );
        return (pointer, detail);
    }
    let is_serdes = [
        "invalid type: ",
        "invalid value: ",
        "invalid length ",
        "unknown variant `",
    ];
    let expected = is_serdes.iter().any(|start| message.starts_with(start));
    match message.rsplit_once(", expected ") {
        Some((_, wanted)) if expected => {
            (pointer, shorten(&format!("Expected {}.", in_words(wanted))))
        }
        _ => (pointer, shorten(message)),
    }
}

/// What serde expects, without the names that our types have.
fn in_words(wanted: &str) -> String {
    match wanted {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0 up".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "an object".to_owned(),
        "a boolean" => "true or false".to_owned(),
        _ if wanted.starts_with("struct ") => "an object".to_owned(),
        _ => listed(wanted),
    }
}

/// serde's list of names, without its words.
fn listed(names: &str) -> String {
    names.trim_start_matches("one of ").replace('`', "")
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

fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_DETAIL) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
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
        parse::<Message>(text.as_bytes())
            .err()
            .map(|error| error.code)
    }

    fn wrong(text: &str) -> (String, String) {
        let error = parse::<Message>(text.as_bytes()).unwrap_err();
        assert_eq!(error.code, Code::ValidationFailed, "{text}: {error:?}");
        (
            error.errors[0].pointer.clone(),
            error.errors[0].detail.clone(),
        )
    }

    #[test]
    fn what_is_no_json_is_told_as_such() {
        let nested = |depth: usize| {
            format!(
                r#"{{"message":{}{}}}"#,
                "[".repeat(depth),
                "]".repeat(depth)
            )
        };
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
            assert_eq!(
                code(text),
                Some(Code::InvalidJson),
                "{}",
                text.get(..60).unwrap_or(text)
            );
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
        for text in [
            "null",
            "[]",
            r#""x""#,
            "5",
            r#"["hello"]"#,
            r#"["a",null,null,[],null]"#,
        ] {
            assert_eq!(wrong(text).0, "", "{text}");
        }
        assert_eq!(
            wrong("{}"),
            ("/message".into(), "This field is missing.".into())
        );
        assert_eq!(
            wrong(r#"{"message":5}"#),
            ("/message".into(), "Expected a string.".into())
        );
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
                "Expected a whole number from 0 up.".into()
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
            (
                r#"{"message":"a","options":{"seeds":[]}}"#,
                "Expected an object.",
            ),
            (r#"{"message":"a","stop":"x"}"#, "Expected a list."),
            (
                r#"{"message":"a","options":{"temperature":"hot"}}"#,
                "Expected a number.",
            ),
            (
                r#"{"message":"a","options":{"seeds":{"x":"y"}}}"#,
                "Expected a whole number.",
            ),
        ] {
            assert_eq!(wrong(text).1, detail, "{text}");
        }
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
        assert_eq!(
            code(&format!(r#"{{{many}"message":"a"}}"#)),
            Some(Code::ValidationFailed)
        );
        assert_eq!(
            code(&"[".repeat(1_000_000)),
            Some(Code::ValidationFailed)
                .filter(|_| false)
                .or(Some(Code::InvalidJson))
        );
        assert!(begun.elapsed().as_millis() < 2000, "{:?}", begun.elapsed());
    }
}

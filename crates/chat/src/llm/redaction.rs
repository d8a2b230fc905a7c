//! The one place where text of a model server is made fit for a log: one line, bounded, without secrets and without what was sent.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::llm::request::ChatRequest;

const MAX_CHARS: usize = 300;
/// Words in a row that count as quoted from the request.
const QUOTE: usize = 3;
/// From this length on a word of letters and digits is taken for a key.
const KEY_LENGTH: usize = 20;
/// A part of the API key that is this long gives it away.
const KEY_PART: usize = 6;
const MASK: &str = "[...]";

/// Removes secrets from a server's text: the API key, whatever looks like a key, and what the request said.
#[derive(Clone, Copy, Default)]
pub(super) struct Redactor<'a> {
    pub(super) api_key: Option<&'a str>,
    pub(super) request: Option<&'a ChatRequest>,
}

impl Redactor<'_> {
    pub(super) fn redact(&self, text: &str) -> String {
        let message = decoded(&error_message(text));
        let words: Vec<_> = split(&message).collect();
        let follows_scheme = |at: usize| {
            let before = at.checked_sub(1).map_or("", |at| words[at].text);
            ["bearer", "basic"].iter().any(|scheme| before.eq_ignore_ascii_case(scheme))
        };
        let is_hidden = |at: &usize| self.is_secret(words[*at].text) || follows_scheme(*at);
        let mut hidden: HashSet<usize> = (0..words.len()).filter(is_hidden).collect();
        self.hide_quotes(&words, &mut hidden);
        mask(&message, &words, &hidden)
    }

    fn is_secret(&self, word: &str) -> bool {
        let is_key = word.len() >= KEY_LENGTH
            && word.bytes().any(|byte| byte.is_ascii_digit())
            && word.bytes().any(|byte| byte.is_ascii_alphabetic());
        let known_prefix = ["sk-", "hf_", "cbk_", "eyJ", "gsk_"];
        let shows_key = self.api_key.filter(|key| !key.is_empty()).is_some_and(|key| {
            word.contains(key) || (word.len() >= KEY_PART && key.contains(word)) || {
                let is_part = |part: &[u8]| word.as_bytes().windows(KEY_PART).any(|w| w == part);
                key.as_bytes().windows(KEY_PART).any(is_part)
            }
        });
        is_key || shows_key || known_prefix.iter().any(|prefix| word.starts_with(prefix))
    }

    /// Hides what stands in the request: rows of words, and single ones that are rarely said by chance.
    fn hide_quotes(&self, words: &[Word<'_>], hidden: &mut HashSet<usize>) {
        let Some(request) = self.request else { return };
        let lower: Vec<String> = words.iter().map(|word| word.text.to_lowercase()).collect();
        let mut rows: HashMap<&[String], Vec<usize>> = HashMap::new();
        for length in 1..=QUOTE {
            for (at, row) in lower.windows(length).enumerate() {
                rows.entry(row).or_default().push(at);
            }
        }
        each_text(request, &mut |text| {
            let text = decoded(text);
            let sent: Vec<String> = split(&text).map(|word| word.text.to_lowercase()).collect();
            let shortest = sent.len().min(QUOTE);
            for length in 1..=QUOTE {
                for row in sent.windows(length) {
                    let is_rare = || {
                        row.iter().any(|word| {
                            word.chars().count() >= 12
                                || !word.is_ascii()
                                || (word.len() >= 4 && word.bytes().any(|b| b.is_ascii_digit()))
                        })
                    };
                    if length >= shortest.max(1) || is_rare() {
                        for at in rows.get(row).into_iter().flatten() {
                            hidden.extend(*at..*at + length);
                        }
                    }
                }
            }
        });
    }
}

struct Word<'a> {
    start: usize,
    text: &'a str,
}

/// Letters and digits, with the marks that keys and tokens are written with. An escape, such as `\n` or `%20`, is no part of a word.
fn split(text: &str) -> impl Iterator<Item = Word<'_>> {
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut rest = 0;
    std::iter::from_fn(move || {
        let mut from = rest;
        loop {
            let tail = text.get(from..)?;
            match escape_length(tail) {
                0 if tail.starts_with(is_word) => break,
                0 => from += tail.chars().next()?.len_utf8(),
                length => from += length,
            }
        }
        let tail = text.get(from..)?;
        let length = tail.find(|c: char| !is_word(c)).unwrap_or(tail.len());
        rest = from + length;
        Some(Word { start: from, text: text.get(from..rest)?.trim_end_matches('.') })
    })
}

/// Of an escape at the head of a text, however often its backslash was escaped itself.
fn escape_length(text: &str) -> usize {
    match text.as_bytes() {
        [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => 3,
        bytes => {
            let slashes = bytes.iter().take_while(|byte| **byte == b'\\').count();
            let is_letter = |byte| b"abfnrtuvx".contains(byte);
            let has_letter = slashes > 0 && bytes.get(slashes).is_some_and(is_letter);
            slashes + usize::from(has_letter)
        }
    }
}

/// The text with its characters in place of their numbers, as in `M\u00fcller`.
fn decoded(text: &str) -> String {
    let mut parts = text.split("\\u");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..4).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        match code.and_then(char::from_u32).zip(part.get(4..)) {
            Some((letter, rest)) => {
                plain.truncate(plain.trim_end_matches('\\').len());
                plain.push(letter);
                plain.push_str(rest);
            }
            _ => plain.extend(["\\u", part]),
        }
    }
    plain
}

/// The text with the hidden words masked, on one line, of bounded length.
fn mask(text: &str, words: &[Word<'_>], hidden: &HashSet<usize>) -> String {
    let (mut masked, mut copied) = (String::new(), 0);
    let mut at = 0;
    while let Some(word) = words.get(at) {
        if !hidden.contains(&at) {
            at += 1;
            continue;
        }
        masked.push_str(text.get(copied..word.start).unwrap_or_default());
        masked.push_str(MASK);
        while hidden.contains(&at) {
            copied = words.get(at).map_or(copied, |word| word.start + word.text.len());
            at += 1;
        }
    }
    masked.push_str(text.get(copied..).unwrap_or_default());
    masked.chars().take(MAX_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn each_text(request: &ChatRequest, visit: &mut impl FnMut(&str)) {
    fn walk(value: &Value, visit: &mut impl FnMut(&str)) {
        match value {
            Value::String(text) => visit(text),
            Value::Array(values) => values.iter().for_each(|value| walk(value, visit)),
            Value::Object(members) => members.values().for_each(|value| walk(value, visit)),
            _ => {}
        }
    }
    for message in request.messages.iter() {
        visit(&message.content);
        for (name, value) in message.extra.iter().flatten() {
            if name != "role" {
                walk(value, visit);
            }
        }
    }
    request.extra.values().for_each(|value| walk(value, visit));
    request.options.stop.iter().flatten().for_each(|text| visit(text));
}

/// What an error answer says to people: the message of a JSON document, wherever servers put it, else the text itself.
fn error_message(text: &str) -> String {
    fn messages(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::String(text) => match serde_json::from_str::<Value>(text) {
                Ok(nested @ (Value::Object(_) | Value::Array(_))) => messages(&nested, found),
                _ => found.push(text.clone()),
            },
            Value::Array(values) => values.iter().for_each(|value| messages(value, found)),
            Value::Object(members) => {
                for name in ["error", "message", "error_msg", "msg", "detail", "type"] {
                    if let Some(member) = members.get(name) {
                        messages(member, found);
                    }
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    match serde_json::from_str(text) {
        Ok(value @ (Value::Object(_) | Value::Array(_) | Value::String(_))) => {
            messages(&value, &mut found);
            found.join(", ")
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::llm::request::PromptMessage;

    fn request(said: &str) -> ChatRequest {
        let message = PromptMessage { role: "user".into(), content: said.to_owned(), extra: None };
        ChatRequest { messages: vec![message].into(), ..ChatRequest::default() }
    }

    #[test]
    fn keys_are_masked_however_they_are_echoed() {
        let redactor = Redactor { api_key: Some("sesame-opens-it"), request: None };
        for (text, shown) in [
            ("wrong key sesame-opens-it given", "wrong key [...] given"),
            ("wrong key sesame-o*** given", "wrong key [...]*** given"),
            ("Authorization: Bearer abc.def", "Authorization: Bearer [...]"),
            ("key sk-12 and hf_ab", "key [...] and [...]"),
            ("got 0c550705881edf8c95fbc1c19c08", "got [...]"),
            ("no such model", "no such model"),
        ] {
            assert_eq!(redactor.redact(text), shown);
        }
        let body = json!({ "error": { "message": "bad key sesame-opens-it", "param": "sesame" } });
        assert_eq!(redactor.redact(&body.to_string()), "bad key [...]");
    }

    #[test]
    fn what_the_request_said_is_masked() {
        let request = request("My pin is 4711 and I live in\nGraz");
        let redactor = Redactor { api_key: None, request: Some(&request) };
        let body =
            json!({ "detail": [{ "msg": "value is wrong: pin is 4711 and", "input": "Graz" }] });
        assert_eq!(redactor.redact(&body.to_string()), "value is wrong: [...]");
        assert_eq!(redactor.redact("template failed at 4711"), "template failed at [...]");
        assert_eq!(redactor.redact("it is not there"), "it is not there");
        let short = super::tests::request("hunter2");
        let redactor = Redactor { api_key: None, request: Some(&short) };
        assert_eq!(redactor.redact("bad: hunter2"), "bad: [...]");
    }

    #[test]
    fn what_the_request_said_is_masked_however_it_is_escaped() {
        let said = "alpha\nKanari8xq\tKanari9xq M\u{fc}ller";
        let request = request(said);
        let redactor = Redactor { api_key: None, request: Some(&request) };
        let packed = |text: &str| Value::from(text).to_string();
        let body = |text: &str| json!({ "error": { "message": format!("bad: {text}") } });
        let ascii = packed(said).replace('\u{fc}', "\\u00fc");
        for (echo, shown) in [
            (said.to_owned(), "bad: [...]"),
            (packed(said), r#"bad: "[...]""#),
            (packed(&packed(said)), r#"bad: "\"[...]\"""#),
            (ascii.clone(), r#"bad: "[...]""#),
            (packed(&ascii), r#"bad: "\"[...]\"""#),
            (r"'alpha\nKanari8xq\tKanari9xq M\u00fcller'".to_owned(), "bad: '[...]'"),
            ("alpha%0AKanari8xq%09Kanari9xq%20".to_owned(), "bad: [...]%20"),
        ] {
            assert_eq!(redactor.redact(&body(&echo).to_string()), shown, "{echo}");
        }
        let path = super::tests::request(r"read C:\notes\users");
        let redactor = Redactor { api_key: None, request: Some(&path) };
        for echo in [r"no C:\notes\users", r"no C:\\notes\\users"] {
            assert!(!redactor.redact(echo).contains("sers"), "{echo}");
        }
    }

    #[test]
    fn a_text_is_one_bounded_line() {
        let shown = Redactor::default().redact(&"a\nb\u{7}".repeat(1000));
        assert!(shown.chars().count() == MAX_CHARS && !shown.contains(char::is_control));
    }

    #[test]
    fn a_message_within_a_text_within_a_document_is_found() {
        let nested = json!({ "error": "{\"error\":{\"code\":500,\"message\":\"no mmproj\"}}" });
        assert_eq!(Redactor::default().redact(&nested.to_string()), "no mmproj");
    }
}

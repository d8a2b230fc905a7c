//! One frame of an OpenAI-compatible answer, in all the dialects that servers speak.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use serde_json::{Value, value::RawValue};

use crate::{
    domain::Usage,
    llm::providers::lenient_json::{self, or_none},
};

/// A chunk, or a whole answer.
#[derive(Deserialize)]
pub(super) struct Frame<'a> {
    /// What it is; `error` is all that some servers say of one.
    #[serde(default, borrow)]
    object: Option<&'a RawValue>,
    #[serde(default, borrow)]
    pub(super) choices: Option<Vec<Option<Choice<'a>>>>,
    #[serde(default, deserialize_with = "usage")]
    pub(super) usage: Option<Usage>,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
}

impl<'a> Frame<'a> {
    /// Whether it tells of a failure: with what words, where not with all of them.
    pub(super) fn failure(&self) -> Option<Option<&'a str>> {
        match self.error.filter(|error| lenient_json::says(error)) {
            Some(error) => Some(Some(error.get())),
            None => (self.object.map(RawValue::get) == Some("\"error\"")).then_some(None),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Choice<'a> {
    #[serde(default, deserialize_with = "or_none")]
    pub(super) index: Option<u64>,
    #[serde(default, borrow)]
    delta: Option<Delta<'a>>,
    /// Of a whole answer; some servers repeat all that was said in it beside each delta.
    #[serde(default, borrow)]
    message: Option<Delta<'a>>,
    #[serde(default, deserialize_with = "or_none")]
    pub(super) finish_reason: Option<String>,
}

impl<'a> Choice<'a> {
    /// What it adds.
    pub(super) fn added(&mut self) -> Option<Delta<'a>> {
        self.delta.take().or_else(|| self.message.take())
    }
}

#[derive(Deserialize)]
pub(super) struct Delta<'a> {
    #[serde(default)]
    pub(super) content: Text,
    #[serde(default)]
    pub(super) refusal: Text,
    #[serde(default, deserialize_with = "or_none")]
    reasoning: Option<Text>,
    #[serde(default, deserialize_with = "or_none")]
    reasoning_content: Option<Text>,
    /// OpenRouter's, where there is no plain text of them.
    #[serde(default, deserialize_with = "or_none")]
    reasoning_details: Option<Text>,
    #[serde(default, borrow)]
    pub(super) tool_calls: Option<Vec<Option<CallPart<'a>>>>,
}

impl Delta<'_> {
    /// Its thoughts: several dialects at once say the same.
    pub(super) fn thoughts(&mut self) -> String {
        let beside = [
            self.reasoning.take(),
            self.reasoning_content.take(),
            self.reasoning_details.take(),
        ];
        let told = beside
            .into_iter()
            .flatten()
            .map(|text| text.said)
            .find(|text| !text.is_empty());
        told.unwrap_or_else(|| std::mem::take(&mut self.content.thought))
    }
}

/// A part of a tool call.
#[derive(Deserialize)]
pub(super) struct CallPart<'a> {
    #[serde(default, deserialize_with = "or_none")]
    pub(super) index: Option<u64>,
    #[serde(default, deserialize_with = "or_none")]
    pub(super) id: Option<String>,
    #[serde(default, borrow)]
    pub(super) function: Option<FunctionPart<'a>>,
}

#[derive(Deserialize)]
pub(super) struct FunctionPart<'a> {
    #[serde(default)]
    pub(super) name: Option<String>,
    /// Text; some servers send the object itself.
    #[serde(default, borrow)]
    pub(super) arguments: Option<&'a RawValue>,
}

/// Text: a string, null, or parts of which the texts count.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Text {
    pub(super) said: String,
    /// What parts of thoughts say: Mistral's.
    thought: String,
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> de::Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, null, or parts")
    }

    fn visit_unit<E>(self) -> Result<Text, E> {
        Ok(Text::default())
    }

    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text {
            said: text.to_owned(),
            thought: String::new(),
        })
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut parts: A) -> Result<Text, A::Error> {
        let mut text = Text::default();
        while let Some(part) = parts.next_element::<Value>()? {
            if let Some(thoughts) = part.get("thinking") {
                text.thought.push_str(&words(thoughts));
            } else if let Some(words) = part.get("text").or_else(|| part.get("summary")) {
                text.said.push_str(words.as_str().unwrap_or_default());
            }
        }
        Ok(text)
    }
}

/// What thoughts say: a text, or parts that have one.
fn words(thoughts: &Value) -> String {
    match thoughts {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect(),
        _ => String::new(),
    }
}

/// Counts, where both make sense; else we count ourselves.
fn usage<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Usage>, D::Error> {
    let counts: Option<Value> = or_none(deserializer)?;
    let count = |name: &str| lenient_json::tokens(counts.as_ref()?.get(name)?);
    Ok(count("prompt_tokens").zip(count("completion_tokens")).map(
        |(prompt_tokens, completion_tokens)| Usage {
            prompt_tokens,
            completion_tokens,
        },
    ))
}

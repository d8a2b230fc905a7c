//! One frame of an OpenAI-compatible answer, in all the dialects that servers speak.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use serde_json::{Value, value::RawValue};

use crate::models::Usage;

/// A chunk, or a whole answer.
#[derive(Deserialize)]
pub(super) struct Frame<'a> {
    #[serde(default, borrow)]
    pub(super) choices: Option<Vec<Choice<'a>>>,
    #[serde(default, deserialize_with = "usage")]
    pub(super) usage: Option<Usage>,
    #[serde(default, borrow)]
    pub(super) error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Choice<'a> {
    #[serde(default)]
    pub(super) index: Option<u64>,
    /// Of a chunk, or `message` of a whole answer.
    #[serde(default, borrow, alias = "message")]
    pub(super) delta: Option<Delta<'a>>,
    #[serde(default)]
    pub(super) finish_reason: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Delta<'a> {
    #[serde(default)]
    pub(super) content: Text,
    #[serde(default)]
    pub(super) refusal: Text,
    #[serde(default)]
    pub(super) reasoning: Text,
    #[serde(default)]
    pub(super) reasoning_content: Text,
    #[serde(default, borrow)]
    pub(super) tool_calls: Option<Vec<CallPart<'a>>>,
}

/// A part of a tool call.
#[derive(Deserialize)]
pub(super) struct CallPart<'a> {
    #[serde(default)]
    pub(super) index: Option<u64>,
    #[serde(default)]
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
pub(super) struct Text(pub(super) String);

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
        Ok(Text(text.to_owned()))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut parts: A) -> Result<Text, A::Error> {
        let mut text = String::new();
        while let Some(part) = parts.next_element::<Value>()? {
            text.push_str(part.get("text").and_then(Value::as_str).unwrap_or_default());
        }
        Ok(Text(text))
    }
}

/// Counts, where they make sense.
fn usage<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Usage>, D::Error> {
    #[derive(Deserialize)]
    struct Counts {
        #[serde(default)]
        prompt_tokens: Value,
        #[serde(default)]
        completion_tokens: Value,
    }
    let counts = Option::<Counts>::deserialize(deserializer)?;
    Ok(counts.and_then(|counts| {
        let (prompt, completion) = (
            counts.prompt_tokens.as_u64(),
            counts.completion_tokens.as_u64(),
        );
        (prompt.is_some() || completion.is_some()).then(|| Usage {
            prompt_tokens: prompt.unwrap_or(0),
            completion_tokens: completion.unwrap_or(0),
        })
    }))
}

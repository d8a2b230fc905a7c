//! One frame of an OpenAI-compatible answer, in all the dialects that servers speak.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, de};
use serde_json::{Value, value::RawValue};

use crate::{
    domain::Usage,
    llm::{
        chunk::UsageDetails,
        providers::{
            lenient_json::{self, OrNone, entries, index_or_none, lossy_text},
            unicode::{RawText, repair_escapes},
        },
    },
};

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct ChunkFrame<'a> {
    /// What it is; `error` is all that some servers say of one.
    object: Option<&'a RawValue>,
    pub(super) choices: Option<Vec<Option<UpstreamChoice<'a>>>>,
    pub(super) usage: Counts,
    error: Option<&'a RawValue>,
    errors: Option<&'a RawValue>,
    /// llama-server's, where it is asked for.
    #[serde(rename = "__verbose")]
    pub(super) verbose: OrNone<Value>,
}

impl<'a> ChunkFrame<'a> {
    /// The words of an error frame: those of its error, or all of them.
    pub(super) fn failure(&self, json: &'a [u8]) -> Option<Cow<'a, str>> {
        let says = |error: &&RawValue| lenient_json::says(error);
        if let Some(error) = self.error.filter(says).or(self.errors.filter(says)) {
            return Some(error.get().into());
        }
        let is_error = self.object.map(RawValue::get) == Some("\"error\"");
        (is_error || self.choices.is_none() && tells_error(json))
            .then(|| String::from_utf8_lossy(json))
    }
}

/// Whether a frame without choices tells an error in members of its own.
fn tells_error(json: &[u8]) -> bool {
    let frame: BTreeMap<String, &RawValue> = serde_json::from_slice(json).unwrap_or_default();
    let says = |name| frame.get(name).is_some_and(|member| lenient_json::says(member));
    let is_good = frame.get("code").is_some_and(|code| matches!(code.get(), "0" | "200"));
    let mut words = ["detail", "message", "msg", "error_msg", "code"].into_iter();
    !is_good && !says("usage") && words.any(says)
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct UpstreamChoice<'a> {
    #[serde(deserialize_with = "index_or_none")]
    pub(super) index: Option<u64>,
    delta: Option<ChoiceDelta<'a>>,
    /// Of a whole answer; some servers repeat all that was said in it beside each delta.
    message: Option<ChoiceDelta<'a>>,
    pub(super) finish_reason: OrNone<Value>,
    pub(super) error: Option<&'a RawValue>,
    /// vLLM's word for the stop sequence that ended the answer; a token's number where none did.
    pub(super) stop_reason: OrNone<String>,
    /// SGLang's word for the same.
    pub(super) matched_stop: OrNone<String>,
}

impl<'a> UpstreamChoice<'a> {
    pub(super) fn added(&mut self) -> Option<ChoiceDelta<'a>> {
        self.delta.take().or_else(|| self.message.take())
    }
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct ChoiceDelta<'a> {
    pub(super) content: Option<Text>,
    pub(super) refusal: OrNone<Text>,
    reasoning: OrNone<Text>,
    reasoning_content: OrNone<Text>,
    /// OpenRouter's, where there is no plain text of them.
    reasoning_details: OrNone<Text>,
    #[serde(deserialize_with = "entries")]
    pub(super) tool_calls: Vec<CallPart<'a>>,
    /// The older form, for one call.
    #[serde(deserialize_with = "entries")]
    pub(super) function_call: Vec<FunctionPart<'a>>,
}

impl ChoiceDelta<'_> {
    /// Its thoughts: several dialects at once say the same.
    pub(super) fn take_thoughts(&mut self) -> RawText {
        let beside =
            [&mut self.reasoning, &mut self.reasoning_content, &mut self.reasoning_details];
        let mut given = beside.into_iter().filter_map(|text| Some(text.0.take()?.text));
        let given = given.find(|text| !text.0.is_empty());
        let within = || self.content.as_mut().map(|content| std::mem::take(&mut content.thoughts));
        given.or_else(within).unwrap_or_default()
    }
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct CallPart<'a> {
    #[serde(deserialize_with = "index_or_none")]
    pub(super) index: Option<u64>,
    pub(super) id: OrNone<String>,
    pub(super) function: Option<FunctionPart<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub(super) struct FunctionPart<'a> {
    #[serde(deserialize_with = "lossy_text")]
    pub(super) name: Option<String>,
    pub(super) arguments: Option<&'a RawValue>,
}

/// A string, or parts of which the texts count.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Text {
    pub(super) text: RawText,
    thoughts: RawText,
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> de::Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or parts")
    }

    fn visit_bytes<E>(self, text: &[u8]) -> Result<Text, E> {
        Ok(Text { text: RawText(text.to_vec()), thoughts: RawText::default() })
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut parts: A) -> Result<Text, A::Error> {
        let mut text = Text::default();
        while let Some(part) = parts.next_element::<&RawValue>()? {
            let part: Value = serde_json::from_str(&repair_escapes(part.get())).unwrap_or_default();
            if let Some(thoughts) = part.get("thinking") {
                text.thoughts.0.extend_from_slice(thoughts_text(thoughts).as_bytes());
            } else if let Some(words) = part.get("text").or_else(|| part.get("summary")) {
                text.text.0.extend_from_slice(words.as_str().unwrap_or_default().as_bytes());
            }
        }
        Ok(text)
    }
}

/// What thoughts say: a text, or parts that have one.
fn thoughts_text(thoughts: &Value) -> String {
    match thoughts {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

/// What a server counted; nothing where its numbers make no sense, and we count ourselves.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) usage: Option<Usage>,
    pub(super) details: UsageDetails,
}

impl<'de> Deserialize<'de> for Counts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let OrNone::<Value>(counts) = OrNone::deserialize(deserializer)?;
        let count = |pointer: &str| lenient_json::tokens(counts.as_ref()?.pointer(pointer)?);
        let usage = count("/prompt_tokens").zip(count("/completion_tokens"));
        Ok(Self {
            usage: usage.map(|(prompt_tokens, completion_tokens)| Usage {
                prompt_tokens,
                completion_tokens,
            }),
            details: UsageDetails {
                cached_tokens: count("/prompt_tokens_details/cached_tokens").unwrap_or_default(),
                reasoning_tokens: count("/completion_tokens_details/reasoning_tokens"),
                ..UsageDetails::default()
            },
        })
    }
}

//! Sampling options, with the values by which clients of other servers say "no limit" or "off".

use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;

use crate::domain::text_or_list::text_or_list;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// 0 to 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 2)]
    pub temperature: Option<f64>,
    /// Above 0, up to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub top_p: Option<f64>,
    /// 1 to 1000; 0 and -1 are the same as leaving it out.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "off_below_one")]
    #[schema(value_type = Option<i64>, minimum = -1, maximum = 1000)]
    pub top_k: Option<u32>,
    /// Longest answer in tokens, at least 1; -1 is the same as leaving it out.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "unlimited_below_zero"
    )]
    #[schema(value_type = Option<i64>, minimum = -1, maximum = 1_000_000)]
    pub max_tokens: Option<u32>,
    /// Makes sampling repeatable where the server can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// A text that ends the answer, or at most 16 of them, each of at most 256 characters; empty ones end nothing.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "stop_texts")]
    #[schema(schema_with = stop_schema)]
    pub stop: Option<Vec<String>>,
    /// Whether a thinking model thinks, or how much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub think: Option<Think>,
}

impl Options {
    /// The members whose values are out of range, each with what is allowed.
    pub fn faults(&self) -> Vec<(&'static str, &'static str)> {
        let within = |value: Option<f64>, most| value.is_none_or(|v| (0.0..=most).contains(&v));
        let count = |value: Option<u32>, most| value.is_none_or(|v| (1..=most).contains(&v));
        let is_stop = |text: &String| text.chars().nth(256).is_none();
        let stops = self.stop.iter().flatten();
        let rules = [
            (within(self.temperature, 2.0), "temperature", "This must be from 0 to 2."),
            (within(self.top_p, 1.0), "top_p", "This must be from 0 to 1."),
            (
                count(self.top_k, 1000),
                "top_k",
                "This must be from 1 to 1000; 0 and -1 turn it off.",
            ),
            (
                count(self.max_tokens, 1_000_000),
                "max_tokens",
                "This must be from 1 to 1000000; -1 sets no limit.",
            ),
            (
                stops.clone().count() <= 16 && stops.clone().all(is_stop),
                "stop",
                "This must be at most 16 texts of at most 256 characters.",
            ),
        ];
        rules.into_iter().filter(|(holds, ..)| !holds).map(|(_, name, why)| (name, why)).collect()
    }

    /// The same, with an answer of at most that many tokens.
    pub fn limited(&self, answer: Option<u32>) -> Self {
        let max_tokens = [self.max_tokens, answer].into_iter().flatten().min();
        Self { max_tokens, ..self.clone() }
    }
}

/// Reads a limit of tokens: -1, with which llama.cpp, LM Studio and Ollama say "no limit", is none.
pub fn unlimited_below_zero<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    without(&[-1.0], from)
}

/// Reads `top_k`: -1 (vLLM) and 0 (llama.cpp) say that it is off.
pub fn off_below_one<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    without(&[-1.0, 0.0], from)
}

/// A number outside the type becomes 0 or its largest number: whoever checks the range refuses that, and says what is allowed.
fn without<'de, D: Deserializer<'de>>(unset: &[f64], from: D) -> Result<Option<u32>, D::Error> {
    let Some(number) = Option::<f64>::deserialize(from)? else { return Ok(None) };
    if number.fract() != 0.0 {
        return Err(de::Error::invalid_type(de::Unexpected::Float(number), &"a whole number"));
    }
    Ok(Some(number as u32).filter(|_| !unset.contains(&number)))
}

/// Reads `stop`: one text or a list of them. Empty texts, with which forms say "none", are left out.
pub fn stop_texts<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    let mut texts: Vec<String> = text_or_list(from, "a text or a list of texts")?;
    texts.retain(|text| !text.is_empty());
    Ok(Some(texts).filter(|texts| !texts.is_empty()))
}

pub fn stop_schema() -> utoipa::openapi::Schema {
    use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Type};
    let text = || ObjectBuilder::new().schema_type(Type::String).max_length(Some(256));
    let list = ArrayBuilder::new().items(text()).max_items(Some(16));
    OneOfBuilder::new()
        .item(text())
        .item(list)
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .into()
}

/// `true`, `false`, or an effort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "This must be true, false, low, medium or high.")]
pub enum Think {
    Enabled(bool),
    Effort(Effort),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    Low,
    Medium,
    #[serde(alias = "max")]
    High,
}

impl Think {
    pub fn is_enabled(self) -> bool {
        !matches!(self, Self::Enabled(false))
    }

    pub fn effort(self) -> Option<Effort> {
        match self {
            Self::Enabled(_) => None,
            Self::Effort(effort) => Some(effort),
        }
    }
}

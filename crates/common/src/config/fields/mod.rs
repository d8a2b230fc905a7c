//! Parsers for the values of settings: what is allowed, in code and in words.

mod otel;
mod places;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use bytesize::ByteSize;
use config::{Value, ValueKind};
use secrecy::SecretString;
use serde::{
    Deserialize,
    de::{IntoDeserializer, value::Error as NotAChoice},
};

pub(super) use self::{
    otel::check_otel,
    places::{address, hosts, http_url, mask_url, networks, origins, own_service, store_url},
};
use super::ProviderKind;
use crate::model_name::is_model_name;

pub(super) const MASK: &str = "********";
/// A longer duration is a mistake, and would overflow when added to a point in time.
const LONGEST: Duration = Duration::from_secs(3650 * 86_400);
pub(super) const MOST: u64 = 1_000_000_000;

pub(super) enum ParseError {
    NotAllowed,
    Unset,
    Because(&'static str),
}

type Parsed<T> = Result<T, ParseError>;
type ParseFn<T> = Box<dyn Fn(&ValueKind) -> Parsed<T>>;

/// How the text or value of one setting becomes a `T`.
pub(super) struct FieldParser<T> {
    allowed: String,
    parse: ParseFn<T>,
    /// Hides the secret in a text. A setting without one is printed, and quoted when it is wrong, as it is.
    mask: Option<fn(&str) -> String>,
}

impl<T: 'static> FieldParser<T> {
    fn of_text(allowed: impl Into<String>, parse: impl Fn(&str) -> Parsed<T> + 'static) -> Self {
        Self::of_any_text(allowed, move |text| match leftover(text) {
            Some(wrong) => Err(ParseError::Because(wrong)),
            None => parse(text),
        })
    }

    fn of_any_text(
        allowed: impl Into<String>,
        parse: impl Fn(&str) -> Parsed<T> + 'static,
    ) -> Self {
        Self::of_value(allowed, move |value| match value {
            ValueKind::String(text) => parse(text),
            _ => Err(ParseError::NotAllowed),
        })
    }

    /// `parse` sees no empty text.
    fn of_value(
        allowed: impl Into<String>,
        parse: impl Fn(&ValueKind) -> Parsed<T> + 'static,
    ) -> Self {
        let parse: ParseFn<T> = Box::new(move |value| match value {
            ValueKind::String(text) if text.trim().is_empty() => Err(ParseError::Unset),
            value => parse(value),
        });
        Self { allowed: allowed.into(), parse, mask: None }
    }

    fn masked(self, mask: fn(&str) -> String) -> Self {
        Self { mask: Some(mask), ..self }
    }

    /// Adds a condition, and what to say where it does not hold.
    pub(super) fn and(self, wrong: &'static str, holds: fn(&T) -> bool) -> Self {
        let parse = self.parse;
        Self {
            parse: Box::new(move |value| match parse(value)? {
                value if holds(&value) => Ok(value),
                _ => Err(ParseError::Because(wrong)),
            }),
            ..self
        }
    }

    fn map<U: 'static>(self, map: impl Fn(Parsed<T>) -> Parsed<U> + 'static) -> FieldParser<U> {
        let parse = self.parse;
        FieldParser {
            allowed: self.allowed,
            parse: Box::new(move |value| map(parse(value))),
            mask: self.mask,
        }
    }

    /// Takes an empty text as "not set".
    pub(super) fn or_none(mut self) -> FieldParser<Option<T>> {
        self.allowed.push_str(", or empty for none");
        self.map(|parsed| match parsed {
            Err(ParseError::Unset) => Ok(None),
            other => other.map(Some),
        })
    }

    /// A list in a file, comma-separated in a variable.
    fn list(self) -> FieldParser<Vec<T>> {
        let parse = self.parse;
        FieldParser {
            allowed: format!("a list, each item {}", self.allowed),
            parse: Box::new(move |value| match value {
                ValueKind::String(text) => {
                    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                    items.map(|item| parse(&item.into())).collect()
                }
                ValueKind::Array(items) => items.iter().map(|item| parse(&item.kind)).collect(),
                _ => Err(ParseError::NotAllowed),
            }),
            mask: self.mask,
        }
    }

    /// The value, or what is wrong with it and what is allowed instead. A value that may be secret is not quoted, and
    /// neither is one that came from a file of a single value.
    pub(super) fn parse(&self, value: Option<&Value>) -> Result<T, String> {
        let nothing = ValueKind::String(String::new());
        let kind = value.map_or(&nothing, |value| &value.kind);
        let origin = value.and_then(Value::origin);
        let from_file = origin.is_some_and(|origin| origin.ends_with("_FILE"));
        (self.parse)(kind).map_err(|error| {
            let wrong = match error {
                ParseError::Unset => "it must be set".to_owned(),
                ParseError::Because(why) => why.to_owned(),
                ParseError::NotAllowed if self.mask.is_none() && !from_file => {
                    format!("{} is not allowed", quoted(kind))
                }
                ParseError::NotAllowed => "its value is not allowed".to_owned(),
            };
            format!("{wrong}; allowed: {}", self.allowed)
        })
    }

    pub(super) fn show(&self, value: Option<&Value>) -> String {
        let masked = |text: &str| match self.mask {
            Some(mask) if !text.is_empty() => mask(text),
            _ => text.to_owned(),
        };
        let show = |text: &str| toml::Value::from(masked(text)).to_string();
        value.map_or_else(|| show(""), |value| written(&value.kind, &show))
    }
}

/// A value as TOML, with each text as `text` writes it.
fn written(value: &ValueKind, text: &dyn Fn(&str) -> String) -> String {
    let each = |value: &Value| written(&value.kind, text);
    match value {
        ValueKind::String(value) => text(value),
        ValueKind::Float(number) => format!("{number:?}"),
        ValueKind::Array(items) => {
            format!("[{}]", items.iter().map(each).collect::<Vec<_>>().join(", "))
        }
        ValueKind::Table(table) => {
            let sorted = BTreeMap::from_iter(table).into_iter();
            let pairs = sorted.map(|(name, value)| format!("{name} = {}", each(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

fn quoted(value: &ValueKind) -> String {
    written(value, &|text| format!("{:?}", text.chars().take(60).collect::<String>()))
}

/// What an `.env` file or Compose's list form leaves in a value that was meant without it.
fn leftover(text: &str) -> Option<&'static str> {
    let text = text.trim();
    let is_quoted = |quote| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
    if is_quoted('"') || is_quoted('\'') {
        Some("it is in quotation marks, which are part of the value here; leave them out")
    } else if text.contains(" #") {
        Some("it holds a comment, which is part of the value here; leave it out")
    } else {
        None
    }
}

fn from_str<T: FromStr>(text: &str) -> Parsed<T> {
    text.trim().parse().map_err(|_| ParseError::NotAllowed)
}

/// A name or the like, without white space around it.
pub(super) fn text() -> FieldParser<String> {
    FieldParser::of_text("a text", |text| Ok(text.trim().to_owned()))
}

pub(super) fn model_name() -> FieldParser<String> {
    FieldParser::of_text("a model's name, such as gemma3:1b", |text| {
        let name = Some(text.trim()).filter(|name| is_model_name(name));
        name.map(str::to_owned).ok_or(ParseError::NotAllowed)
    })
}

/// A text that is kept as it is, white space around it included.
pub(super) fn prose() -> FieldParser<String> {
    FieldParser::of_any_text("a text", |text| Ok(text.to_owned()))
}

/// One of a few names: the variants of an enum as serde names them.
pub(super) fn choice<T: for<'de> Deserialize<'de> + 'static>(names: &str) -> FieldParser<T> {
    FieldParser::of_text(format!("one of {names}"), |text| {
        let choice = T::deserialize(IntoDeserializer::<NotAChoice>::into_deserializer(text.trim()));
        choice.map_err(|_| ParseError::NotAllowed)
    })
}

pub(super) fn providers() -> FieldParser<Vec<ProviderKind>> {
    choice("ollama, openai, huggingface, demo")
        .list()
        .and("it is empty", |providers: &Vec<_>| !providers.is_empty())
        .and("it names one twice", |providers| {
            let twice = |(n, provider)| providers.iter().take(n).any(|earlier| earlier == provider);
            !providers.iter().enumerate().any(twice)
        })
}

pub(super) fn folder() -> FieldParser<PathBuf> {
    FieldParser::of_text("the path of a folder", |text| Ok(text.into()))
}

pub(super) fn secret() -> FieldParser<SecretString> {
    let wrong = "it holds a space, a line break or another character that no key has";
    FieldParser::of_text("a key of visible ASCII characters", move |text| {
        let is_key = text.chars().all(|c| c.is_ascii_graphic());
        if is_key { Ok(text.into()) } else { Err(ParseError::Because(wrong)) }
    })
    .masked(|_| MASK.to_owned())
}

pub(super) fn duration() -> FieldParser<Duration> {
    let allowed = "a duration with its unit, such as 250ms, 10s, 15m, 1h or 30d";
    FieldParser::of_text(allowed, |text| {
        humantime::parse_duration(text.trim()).map_err(|_| ParseError::NotAllowed)
    })
    .and("it is longer than 3650d", |duration| *duration <= LONGEST)
}

pub(super) fn positive_duration() -> FieldParser<Duration> {
    duration().and("it must be longer than 0", |duration| !duration.is_zero())
}

/// How long a token lives; tokens count in whole seconds.
pub(super) fn lifetime() -> FieldParser<Duration> {
    positive_duration().and("it must be at least 1s", |lifetime| lifetime.as_secs() > 0)
}

/// How long a turn's lease lasts. It is renewed every 250 ms at most: a shorter one would end turns that run.
pub(super) fn lease() -> FieldParser<Duration> {
    positive_duration().and("it must be at least 500ms", |lease| lease.as_millis() >= 500)
}

/// A whole number within these bounds, which `T` must be able to hold.
pub(super) fn number<T: TryFrom<u64> + 'static>(least: u64, most: u64) -> FieldParser<T> {
    FieldParser::of_value(format!("a whole number from {least} to {most}"), move |value| {
        let number: u64 = match value {
            ValueKind::I64(number) => u64::try_from(*number).map_err(|_| ParseError::NotAllowed)?,
            ValueKind::String(text) => from_str(text)?,
            _ => return Err(ParseError::NotAllowed),
        };
        let number = Some(number).filter(|number| (least..=most).contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or(ParseError::NotAllowed)
    })
}

pub(super) fn flag() -> FieldParser<bool> {
    FieldParser::of_value("true or false", |value| match value {
        ValueKind::Boolean(is_on) => Ok(*is_on),
        ValueKind::String(text) => from_str(text),
        _ => Err(ParseError::NotAllowed),
    })
}

/// A number of bytes of at least 1 MiB, which an ordinary request body may have.
pub(super) fn size() -> FieldParser<usize> {
    FieldParser::of_text("a size with its unit, such as 512KiB, 32MiB or 1GiB", |text| {
        let size: ByteSize = from_str(text)?;
        usize::try_from(size.as_u64()).map_err(|_| ParseError::NotAllowed)
    })
    .and("it must be from 1MiB to 64GiB", |size| (1 << 20..=64 << 30).contains(size))
}

pub(super) fn aliases() -> FieldParser<BTreeMap<String, String>> {
    pair("name=model")
        .list()
        .and("it names one twice", |pairs| {
            let names: BTreeSet<_> = pairs.iter().map(|(name, _)| name).collect();
            names.len() == pairs.len()
        })
        .and("what an alias stands for must be a model's name", |pairs| {
            pairs.iter().all(|(_, model)| is_model_name(model))
        })
        .map(|pairs| Ok(pairs?.into_iter().collect()))
}

fn pair(allowed: &str) -> FieldParser<(String, String)> {
    FieldParser::of_text(allowed, |text| match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() && !value.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err(ParseError::NotAllowed),
    })
}

pub(super) fn count<T: TryFrom<u64> + 'static>() -> FieldParser<T> {
    number(1, MOST)
}

/// A count of at least 1 that its type holds as such.
pub(super) fn non_zero() -> FieldParser<NonZeroU32> {
    count::<u32>().map(|parsed| NonZeroU32::new(parsed?).ok_or(ParseError::NotAllowed))
}

pub(super) fn log_filter() -> FieldParser<String> {
    let allowed =
        "a level (error, warn, info, debug, trace, off) or directives such as warn,chat=debug";
    FieldParser::of_text(allowed, |text| {
        let parsed = tracing_subscriber::EnvFilter::builder().parse(text);
        parsed.map(|_| text.to_owned()).map_err(|_| ParseError::NotAllowed)
    })
}

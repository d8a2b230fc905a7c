//! The kinds of setting that are one of a few names.

use config::ValueKind;

use super::{Kind, Wrong};
use crate::config::{LogFormat, LoginMode, ProviderKind, Registration};

/// `open` or `password`.
pub(in crate::config) fn login() -> Kind<LoginMode> {
    one_of(&[("open", LoginMode::Open), ("password", LoginMode::Password)])
}

/// `open` or `closed`.
pub(in crate::config) fn registration() -> Kind<Registration> {
    one_of(&[
        ("open", Registration::Open),
        ("closed", Registration::Closed),
    ])
}

/// `text` or `json`.
pub(in crate::config) fn log_format() -> Kind<LogFormat> {
    one_of(&[("text", LogFormat::Text), ("json", LogFormat::Json)])
}

/// Model servers, each once, at least one.
pub(in crate::config) fn providers() -> Kind<Vec<ProviderKind>> {
    use ProviderKind::{Demo, HuggingFace, Ollama, OpenAi};
    one_of(&[
        ("ollama", Ollama),
        ("openai", OpenAi),
        ("huggingface", HuggingFace),
        ("demo", Demo),
    ])
    .listed()
    .and("it is empty", |providers| !providers.is_empty())
    .and("it names one twice", |providers| {
        providers
            .iter()
            .enumerate()
            .all(|(n, provider)| !providers.iter().take(n).any(|earlier| earlier == provider))
    })
}

fn one_of<T: Copy + PartialEq + 'static>(names: &'static [(&'static str, T)]) -> Kind<T> {
    let allowed = names
        .iter()
        .map(|(name, _)| *name)
        .collect::<Vec<_>>()
        .join(", ");
    let find = move |text: &str| {
        names
            .iter()
            .find(|(name, _)| *name == text.trim())
            .map(|(_, value)| *value)
    };
    Kind {
        allowed: format!("one of {allowed}"),
        quotable: true,
        read: Box::new(move |value| match value {
            ValueKind::String(text) if text.trim().is_empty() => Err(Wrong::Unset),
            ValueKind::String(text) => find(text).ok_or(Wrong::NotAllowed),
            _ => Err(Wrong::NotAllowed),
        }),
        show: Box::new(move |value| {
            names
                .iter()
                .find(|(_, known)| known == value)
                .map_or("", |(name, _)| *name)
                .into()
        }),
    }
}

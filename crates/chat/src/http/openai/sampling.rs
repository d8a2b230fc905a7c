//! How an answer is to be sampled, as OpenAI's SDKs say it.

use common::errors::ApiError;
use serde_json::Value;

use crate::{
    domain::Options,
    http::openai::{checks::check, request::CreateChatCompletion},
};

/// How the answer is to be sampled.
///
/// # Errors
/// The first wrong value is named.
pub(super) fn options(asked: &CreateChatCompletion) -> Result<Options, ApiError> {
    let named = [
        ("/max_completion_tokens", asked.max_completion_tokens),
        ("/max_tokens", asked.max_tokens),
    ];
    for (pointer, most) in named {
        let fits = most.is_none_or(|most| (1..=1_000_000).contains(&most));
        check(fits, pointer, "This must be from 1 to 1000000.")?;
    }
    let within = |value: Option<f64>, most: f64| value.is_none_or(|v| (0.0..=most).contains(&v));
    check(
        within(asked.temperature, 2.0),
        "/temperature",
        "This must be from 0 to 2.",
    )?;
    check(
        within(asked.top_p, 1.0),
        "/top_p",
        "This must be from 0 to 1.",
    )?;
    check(
        asked.top_k.is_none_or(|k| (1..=1000).contains(&k)),
        "/top_k",
        "This must be from 1 to 1000.",
    )?;
    Ok(Options {
        temperature: asked.temperature,
        top_p: asked.top_p,
        top_k: asked.top_k,
        max_tokens: asked.max_completion_tokens.or(asked.max_tokens),
        seed: asked.seed,
        stop: stops(asked.stop.as_ref())?,
        think: None,
    })
}

fn stops(stop: Option<&Value>) -> Result<Option<Vec<String>>, ApiError> {
    let texts = match stop {
        None => return Ok(None),
        Some(Value::String(text)) => Some(vec![text.clone()]),
        Some(Value::Array(texts)) => texts
            .iter()
            .map(|text| text.as_str().map(str::to_owned))
            .collect(),
        Some(_) => None,
    };
    let fits = |texts: &Vec<String>| {
        texts.len() <= 16
            && texts
                .iter()
                .all(|text| (1..=256).contains(&text.chars().count()))
    };
    match texts.filter(fits) {
        Some(texts) => Ok(Some(texts).filter(|texts| !texts.is_empty())),
        None => Err(ApiError::invalid(
            "/stop",
            "This must be a text of 1 to 256 characters, or at most 16 of them.",
        )),
    }
}

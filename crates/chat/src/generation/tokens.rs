//! Estimates of token counts, which learn from what model servers count.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::domain::Usage;

/// Tokens that a message costs beside its text: its role and the template's marks.
pub(crate) const MESSAGE_OVERHEAD: u32 = 5;

/// Most room that is kept for an answer of unspecified length, in tokens.
const DEFAULT_ROOM: u32 = 1024;

/// The room that is kept for an answer of unspecified length, in tokens.
pub(crate) fn default_room(window: u32) -> u32 {
    (window / 4).min(DEFAULT_ROOM)
}

/// For each model, the ratio of what its server counted to what we estimated.
#[derive(Clone, Debug, Default)]
pub struct TokenEstimates {
    ratios: Arc<Mutex<HashMap<String, f64>>>,
}

impl TokenEstimates {
    /// Bounds of a ratio: a server that counts a cached prompt as nothing must not make us believe that everything fits.
    const RANGE: std::ops::RangeInclusive<f64> = 0.5..=4.0;

    /// Models remembered: the names come from callers, so there must be a limit.
    const MODELS: usize = 1024;

    pub(crate) fn ratio(&self, model: &str) -> f64 {
        let ratios = self.ratios.lock().unwrap_or_else(PoisonError::into_inner);
        ratios.get(model).copied().unwrap_or(1.0)
    }

    pub fn tokens(&self, model: &str, text: &str) -> u32 {
        self.tokens_of(model, TextSize::of(text))
    }

    pub fn tokens_of(&self, model: &str, size: TextSize) -> u32 {
        size.scaled(self.ratio(model))
    }

    /// Learns from what the server counted for a prompt that we had estimated.
    pub fn observe(&self, model: &str, estimated: u32, counted: Usage) {
        if estimated < 16 || counted.prompt_tokens == 0 {
            return;
        }
        let mut ratios = self.ratios.lock().unwrap_or_else(PoisonError::into_inner);
        if ratios.len() >= Self::MODELS && !ratios.contains_key(model) {
            return;
        }
        let ratio = ratios.entry(model.to_owned()).or_insert(1.0);
        // The estimate contained the old ratio; a quarter of the way at a time smooths single odd prompts.
        #[expect(
            clippy::cast_precision_loss,
            reason = "a ratio of token counts needs no more than 52 bits"
        )]
        let seen = *ratio * counted.prompt_tokens as f64 / f64::from(estimated);
        *ratio = (*ratio * 0.75 + seen * 0.25).clamp(*Self::RANGE.start(), *Self::RANGE.end());
    }
}

/// The size of a text as it matters for token counts; the same for a text in pieces as in one.
#[derive(Clone, Copy, Debug, Default)]
pub struct TextSize {
    ascii: usize,
    other: usize,
}

impl TextSize {
    pub fn of(text: &str) -> Self {
        let mut size = Self::default();
        size.add(text);
        size
    }

    pub fn add(&mut self, text: &str) {
        let ascii = text.bytes().filter(u8::is_ascii).count();
        self.ascii += ascii;
        self.other += text.chars().count() - ascii;
    }

    /// Tokens: four ASCII characters each, or one other character, times the ratio. Above what common tokenizers make of prose.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float cast saturates; both factors are positive"
    )]
    pub fn scaled(self, ratio: f64) -> u32 {
        let tokens = u32::try_from(self.ascii.div_ceil(4) + self.other).unwrap_or(u32::MAX);
        (f64::from(tokens) * ratio).ceil() as u32
    }
}

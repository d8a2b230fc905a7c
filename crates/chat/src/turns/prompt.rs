//! What of a conversation goes to the model: the newest turns that fit its window, with room for the answer.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{
    domain::{Options, Role, Usage, records::MessageRecord},
    llm::{ChatRequest, Prompt, PromptMessage},
};

/// Tokens that a message costs beside its text: its role and the template's marks.
pub(crate) const MESSAGE_OVERHEAD: u32 = 5;

/// Most room kept for an answer of unsaid length, in tokens.
const DEFAULT_ROOM: u32 = 1024;

/// How our estimate of each model's tokens compares with what its server counted.
#[derive(Clone, Debug, Default)]
pub struct Estimates {
    ratios: Arc<Mutex<HashMap<String, f64>>>,
}

impl Estimates {
    /// Bounds of a ratio: a server that counts a cached prompt as nothing must not make us believe that all fits.
    const RANGE: std::ops::RangeInclusive<f64> = 0.5..=4.0;

    /// Models remembered: the names come from callers, so there must be an end.
    const MODELS: usize = 1024;

    fn ratio(&self, model: &str) -> f64 {
        let ratios = self.ratios.lock().unwrap_or_else(PoisonError::into_inner);
        ratios.get(model).copied().unwrap_or(1.0)
    }

    /// Our estimate of that text for that model.
    pub fn tokens(&self, model: &str, text: &str) -> u32 {
        self.written(model, Written::of(text))
    }

    /// Our estimate of what was written, for that model.
    pub fn written(&self, model: &str, written: Written) -> u32 {
        scaled(written.tokens(), self.ratio(model))
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
        // The estimate had the old ratio in it; a quarter of the way at a time smooths single odd prompts.
        #[expect(
            clippy::cast_precision_loss,
            reason = "a ratio of token counts needs no more than 52 bits"
        )]
        let seen = *ratio * counted.prompt_tokens as f64 / f64::from(estimated);
        *ratio = (*ratio * 0.75 + seen * 0.25).clamp(*Self::RANGE.start(), *Self::RANGE.end());
    }
}

/// How much was written, by how it counts in tokens; the same in pieces as in one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    ascii: usize,
    other: usize,
}

impl Written {
    fn of(text: &str) -> Self {
        let mut written = Self::default();
        written.add(text);
        written
    }

    /// Adds a piece.
    pub fn add(&mut self, text: &str) {
        let ascii = text.bytes().filter(u8::is_ascii).count();
        self.ascii += ascii;
        self.other += text.chars().count() - ascii;
    }

    /// Four characters of ASCII to a token, one of anything else: above what common tokenizers make of prose.
    fn tokens(self) -> u32 {
        u32::try_from(self.ascii.div_ceil(4) + self.other).unwrap_or(u32::MAX)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float cast saturates; both are positive"
)]
fn scaled(tokens: u32, ratio: f64) -> u32 {
    (f64::from(tokens) * ratio).ceil() as u32
}

/// A conversation up to the message that is to be answered.
#[derive(Debug)]
pub struct Conversation {
    /// The system prompt.
    pub system: Option<String>,
    /// The newest messages, oldest first; the last is the one to answer.
    pub messages: Vec<Arc<MessageRecord>>,
    /// How many older ones there are, beyond those looked at.
    pub older: u64,
    /// The caller's options.
    pub options: Options,
    /// The id of the request that asked.
    pub request_id: Arc<str>,
    /// How to count.
    pub estimates: Estimates,
    /// The estimate of the last prompt made, in tokens.
    pub last_estimate: AtomicU32,
}

impl Conversation {
    fn cost(&self, ratio: f64, text: &str) -> u32 {
        scaled(Written::of(text).tokens(), ratio).saturating_add(MESSAGE_OVERHEAD)
    }

    /// What must be there in any case: the system prompt and the message to answer.
    fn base_cost(&self, ratio: f64) -> u32 {
        let system = self
            .system
            .as_deref()
            .map_or(0, |text| self.cost(ratio, text));
        let last = self
            .messages
            .last()
            .map_or(0, |message| self.cost(ratio, &message.content));
        system.saturating_add(last)
    }

    /// Whether the message alone fits a window, with room for an answer.
    pub fn message_fits(&self, model: &str, window: u32) -> bool {
        let room = self
            .options
            .max_tokens
            .unwrap_or(u32::MAX)
            .min(default_room(window));
        self.base_cost(self.estimates.ratio(model))
            .saturating_add(room)
            <= window
    }

    /// Our estimate of what the turn will cost at most: for the reservation of the day's quota.
    pub fn reservation(&self, model: &str, window: u32) -> u64 {
        let ask = self.fit(model, window);
        let room = self
            .options
            .max_tokens
            .unwrap_or_else(|| default_room(window))
            .min(window);
        u64::from(ask.prompt_estimate) + u64::from(room)
    }

    /// The turns that have an answer, newest first: positions of question and answer, and what both cost.
    fn answered_turns(&self, ratio: f64) -> Vec<(usize, usize, u32)> {
        let earlier = self.messages.len().saturating_sub(1);
        let pairs = (1..earlier).rev().filter_map(|i| {
            let (question, answer) = (self.messages.get(i - 1)?, self.messages.get(i)?);
            let is_turn = question.role == Role::User && answer.role == Role::Assistant;
            let cost = || {
                self.cost(ratio, &question.content)
                    .saturating_add(self.cost(ratio, &answer.content))
            };
            is_turn.then(|| (i - 1, i, cost()))
        });
        pairs.collect()
    }
}

pub(crate) fn default_room(window: u32) -> u32 {
    (window / 4).min(DEFAULT_ROOM)
}

impl Prompt for Conversation {
    fn fit(&self, model: &str, window: u32) -> ChatRequest {
        let ratio = self.estimates.ratio(model);
        let base = self.base_cost(ratio);
        let room = self
            .options
            .max_tokens
            .unwrap_or_else(|| default_room(window));
        let mut left = window.saturating_sub(base).saturating_sub(room);
        let (mut kept, mut dropped, mut full) = (Vec::new(), 0, false);
        for (question, answer, cost) in self.answered_turns(ratio) {
            full |= cost > left;
            if full {
                dropped += 2;
            } else {
                left -= cost;
                kept.extend([answer, question]);
            }
        }
        let message = |role: &str, content: &str| PromptMessage {
            role: role.to_owned(),
            content: content.to_owned(),
            extra: None,
        };
        let estimate: u32 = window
            .saturating_sub(base)
            .saturating_sub(room)
            .saturating_sub(left);
        let mut messages: Vec<PromptMessage> = self
            .system
            .iter()
            .map(|text| message("system", text))
            .collect();
        let last = self.messages.len().checked_sub(1);
        for record in kept
            .into_iter()
            .rev()
            .chain(last)
            .filter_map(|i| self.messages.get(i))
        {
            let role = if record.role == Role::Assistant {
                "assistant"
            } else {
                "user"
            };
            messages.push(message(role, &record.content));
        }
        let prompt_estimate = base.saturating_add(estimate);
        self.last_estimate.store(prompt_estimate, Ordering::Relaxed);
        ChatRequest {
            model: model.to_owned(),
            messages,
            options: self.options.clone(),
            window,
            prompt_estimate,
            dropped: dropped + self.older,
            untrimmed: false,
            extra: serde_json::Map::new(),
            request_id: Arc::clone(&self.request_id),
        }
    }
}

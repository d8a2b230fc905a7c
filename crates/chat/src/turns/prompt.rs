//! The prompt of a turn: the newest messages of its session that fit the context window, with room for the answer.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use crate::{
    domain::{Message, Options, Role},
    generation::tokens::{MESSAGE_OVERHEAD, TextSize, TokenEstimates, default_room},
    llm::{ChatRequest, Prompt, PromptMessage},
};

/// What every prompt has.
#[derive(Clone, Debug)]
pub struct PromptBase {
    pub options: Options,
    /// The client's request, for the model server's log.
    pub request_id: Arc<str>,
    pub estimates: TokenEstimates,
}

/// A session up to the message that is to be answered.
#[derive(Debug)]
pub struct SessionPrompt {
    system: Option<String>,
    /// The newest messages, oldest first; the last is the one to answer.
    messages: Vec<Arc<Message>>,
    /// How many older messages there are.
    older: u64,
    options: Options,
    request_id: Arc<str>,
    estimates: TokenEstimates,
    /// The estimate of the last prompt made, in tokens.
    last_estimate: AtomicU32,
}

impl SessionPrompt {
    pub fn new(
        base: PromptBase,
        system: Option<String>,
        messages: Vec<Arc<Message>>,
        older: u64,
    ) -> Self {
        let PromptBase {
            options,
            request_id,
            estimates,
        } = base;
        Self {
            system,
            messages,
            older,
            options,
            request_id,
            estimates,
            last_estimate: AtomicU32::new(0),
        }
    }

    /// The messages that were considered, oldest first.
    pub fn messages(&self) -> &[Arc<Message>] {
        &self.messages
    }

    /// The message that is answered.
    pub fn question(&self) -> Option<&Arc<Message>> {
        self.messages.last()
    }

    fn cost(&self, ratio: f64, text: &str) -> u32 {
        TextSize::of(text)
            .scaled(ratio)
            .saturating_add(MESSAGE_OVERHEAD)
    }

    /// What must be there in any case: the template, the system prompt and the message to answer.
    fn base_cost(&self, ratio: f64, template: u32) -> u32 {
        let system = self
            .system
            .as_deref()
            .map_or(0, |text| self.cost(ratio, text));
        let last = self
            .messages
            .last()
            .map_or(0, |message| self.cost(ratio, &message.content));
        system.saturating_add(last).saturating_add(template)
    }

    /// Whether the message alone fits a window, with room for an answer.
    pub fn message_fits(&self, model: &str, window: u32) -> bool {
        let room = self
            .options
            .max_tokens
            .unwrap_or(u32::MAX)
            .min(default_room(window));
        self.base_cost(self.estimates.ratio(model), self.estimates.template(model))
            .saturating_add(room)
            <= window
    }

    /// Our estimate of what the turn costs at most, for the reservation of the day's quota: tokens of the prompt and of the answer.
    pub fn cost_estimate(&self, model: &str, window: u32) -> (u64, u64) {
        let room = self
            .options
            .max_tokens
            .unwrap_or_else(|| default_room(window))
            .min(window);
        (self.fit(model, window).prompt_estimate.into(), room.into())
    }

    /// The estimate of the last prompt that was made, in tokens.
    pub fn last_estimate(&self) -> u32 {
        self.last_estimate.load(Ordering::Relaxed)
    }

    /// The turns that have an answer, newest first: positions of question and answer, and what both cost.
    fn answered_turns(&self, ratio: f64) -> Vec<(usize, usize, u32)> {
        let earlier = self.messages.len().saturating_sub(1);
        let pairs = (1..earlier).rev().filter_map(|i| {
            let (question, answer) = (self.messages.get(i - 1)?, self.messages.get(i)?);
            // A turn without an answer is not part of later prompts.
            let is_turn = question.role == Role::User
                && answer.role == Role::Assistant
                && !answer.content.is_empty();
            let cost = || {
                self.cost(ratio, &question.content)
                    .saturating_add(self.cost(ratio, &answer.content))
            };
            is_turn.then(|| (i - 1, i, cost()))
        });
        pairs.collect()
    }
}

impl Prompt for SessionPrompt {
    fn fit(&self, model: &str, window: u32) -> ChatRequest {
        let ratio = self.estimates.ratio(model);
        let base = self.base_cost(ratio, self.estimates.template(model));
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

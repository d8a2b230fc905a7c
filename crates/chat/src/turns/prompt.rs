//! The prompt of a turn: the newest messages of its session that fit the context window, with room for the answer.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use crate::{
    domain::{Message, Options, Role},
    generation::tokens::{
        MESSAGE_OVERHEAD, TextSize, TokenEstimates, answer_room, default_room, longest_answer,
    },
    llm::{ChatRequest, Prompt, PromptMessage},
};

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
    pub messages: Vec<Arc<Message>>,
    /// Of each of the messages.
    sizes: Vec<TextSize>,
    older: u64,
    options: Options,
    request_id: Arc<str>,
    estimates: TokenEstimates,
    /// Most tokens of the answer, where the quota leaves less than was asked for.
    answer_limit: Option<u32>,
    /// The estimate of the last prompt made, in tokens.
    last_estimate: AtomicU32,
}

/// Which of the messages fit a window.
struct PromptSelection {
    /// Positions of answers and their questions, newest first.
    turns: Vec<usize>,
    dropped: u64,
    /// Of the whole prompt, in tokens.
    estimate: u32,
}

impl SessionPrompt {
    pub fn new(
        base: PromptBase,
        system: Option<String>,
        messages: Vec<Arc<Message>>,
        older: u64,
    ) -> Self {
        let PromptBase { options, request_id, estimates } = base;
        Self {
            system,
            sizes: messages.iter().map(|message| TextSize::of(&message.content)).collect(),
            messages,
            older,
            options,
            request_id,
            estimates,
            answer_limit: None,
            last_estimate: AtomicU32::new(0),
        }
    }

    pub fn question(&self) -> Option<&Arc<Message>> {
        self.messages.last()
    }

    fn cost(&self, ratio: f64, size: TextSize) -> u32 {
        size.scaled(ratio).saturating_add(MESSAGE_OVERHEAD)
    }

    /// What must be there in any case: the template, the system prompt and the message to answer.
    fn base_cost(&self, ratio: f64, template: u32) -> u32 {
        let system = self.system.as_deref().map(TextSize::of);
        let system = system.map_or(0, |size| self.cost(ratio, size));
        let last = self.sizes.last().map_or(0, |size| self.cost(ratio, *size));
        system.saturating_add(last).saturating_add(template)
    }

    /// Whether the message alone fits a window, with room for an answer.
    pub fn message_fits(&self, model: &str, window: u32) -> bool {
        let room = self.options.max_tokens.unwrap_or(u32::MAX).min(default_room(window));
        self.base_cost(self.estimates.ratio(model), self.estimates.template(model))
            .saturating_add(room)
            <= window
    }

    /// Our estimate of what the turn costs at most, for the reservation of the day's quota: tokens of the prompt and of the answer.
    pub fn cost_estimate(&self, model: &str, window: u32) -> (u64, u64) {
        let prompt = self.select(model, window).estimate;
        let answer = longest_answer(&self.options, prompt, window);
        (prompt.into(), answer.into())
    }

    /// Limits the answer to what is left of the quota. The room for it in the window stays, and with it the prompt.
    pub fn limit_answer(&mut self, tokens: u64) {
        self.answer_limit = Some(u32::try_from(tokens).unwrap_or(u32::MAX));
    }

    /// The estimate of the last prompt that was made, in tokens.
    pub fn last_estimate(&self) -> u32 {
        self.last_estimate.load(Ordering::Relaxed)
    }

    /// The newest answered turns that fit the window beside the message to answer and the room for the answer.
    fn select(&self, model: &str, window: u32) -> PromptSelection {
        let ratio = self.estimates.ratio(model);
        let base = self.base_cost(ratio, self.estimates.template(model));
        let room = answer_room(&self.options, window);
        let available = window.saturating_sub(base).saturating_sub(room);
        let (mut left, mut turns, mut dropped) = (available, Vec::new(), 0);
        for (question, answer, cost) in self.answered_turns(ratio) {
            if dropped > 0 || cost > left {
                dropped += 2;
            } else {
                left -= cost;
                turns.extend([answer, question]);
            }
        }
        PromptSelection { turns, dropped, estimate: base.saturating_add(available - left) }
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
            let [asked, answered] = [i - 1, i].map(|i| self.sizes.get(i).copied());
            let cost = self.cost(ratio, asked?).saturating_add(self.cost(ratio, answered?));
            is_turn.then_some((i - 1, i, cost))
        });
        pairs.collect()
    }
}

impl Prompt for SessionPrompt {
    fn fit(&self, model: &str, window: u32) -> ChatRequest {
        let PromptSelection { turns, dropped, estimate } = self.select(model, window);
        let message = |role: &'static str, content: &String| PromptMessage::text(role, content);
        let system = self.system.iter().map(|text| message("system", text));
        let last = self.messages.len().checked_sub(1);
        let history = turns.into_iter().rev().chain(last);
        let history =
            history.filter_map(|i| self.messages.get(i)).map(|record| match record.role {
                Role::Assistant => message("assistant", &record.content),
                _ => message("user", &record.content),
            });
        let messages: Vec<PromptMessage> = system.chain(history).collect();
        self.last_estimate.store(estimate, Ordering::Relaxed);
        ChatRequest {
            model: model.to_owned(),
            messages: messages.into(),
            options: self.options.limited(self.answer_limit),
            window,
            prompt_estimate: estimate,
            dropped: dropped + self.older,
            is_callers: false,
            untrimmed: false,
            extra: Arc::default(),
            request_id: Arc::clone(&self.request_id),
        }
    }

    fn recount(&self, refused: &ChatRequest, counted: u32) -> u32 {
        self.estimates.recount(&refused.model, refused.prompt_estimate, counted)
    }
}

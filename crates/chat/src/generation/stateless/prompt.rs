//! The prompt of a stateless completion, as the client made it.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU32, Ordering},
};

use serde_json::{Map, Value};

use crate::{
    domain::{Options, Usage},
    generation::{
        stateless::CompletionRequest,
        tokens::{MESSAGE_OVERHEAD, TokenEstimates, answer_room, longest_answer},
    },
    llm::{ChatRequest, Prompt, PromptMessage},
};

/// What an image costs of the window, roughly, in tokens.
const IMAGE_TOKENS: u32 = 256;

/// The prompt of a completion: all messages of the request, and members that are passed through.
pub(super) struct StatelessPrompt {
    messages: Arc<[PromptMessage]>,
    options: Options,
    extra: Arc<Map<String, Value>>,
    request_id: Arc<str>,
    pub(super) estimates: TokenEstimates,
    /// Whether the oldest messages are left out where the conversation does not fit.
    truncates: bool,
    /// Most tokens of the answer, where the quota leaves less than was asked for.
    answer_limit: OnceLock<u32>,
    /// The estimate of the last prompt that was made, in tokens.
    last_estimate: AtomicU32,
}

impl StatelessPrompt {
    pub(super) fn new(
        request: CompletionRequest,
        request_id: Arc<str>,
        estimates: TokenEstimates,
    ) -> Self {
        Self {
            messages: request.messages.into(),
            options: request.options,
            extra: Arc::new(request.extra),
            request_id,
            estimates,
            truncates: request.truncates,
            answer_limit: OnceLock::new(),
            last_estimate: AtomicU32::new(0),
        }
    }

    /// Learns from what the server counted of the last prompt that was made.
    pub(super) fn learn(&self, model: &str, counted: Usage) {
        if self.is_all_text() {
            let estimate = self.last_estimate.load(Ordering::Relaxed);
            self.estimates.observe(model, estimate, counted);
        }
    }

    /// Nothing is learned from others: how many tokens an image is differs from model to model.
    fn is_all_text(&self) -> bool {
        let extras = self.messages.iter().filter_map(|message| message.extra.as_ref());
        !extras.filter_map(|extra| extra.get("content")).any(Value::is_array)
    }

    /// Our estimate of the prompt, in tokens.
    pub(super) fn estimate(&self, model: &str) -> u32 {
        let sizes = self.messages.iter().map(|message| self.message_estimate(model, message));
        sizes.fold(self.fixed_estimate(model), u32::saturating_add)
    }

    fn message_estimate(&self, model: &str, message: &PromptMessage) -> u32 {
        let tokens = |text: &str| self.estimates.tokens(model, text);
        let part = |part: &Value| part["text"].as_str().map_or(IMAGE_TOKENS, tokens);
        let extra = message.extra.iter().flatten().map(|(name, value)| match value {
            Value::Array(parts) if name == "content" => {
                parts.iter().map(part).fold(0, u32::saturating_add)
            }
            Value::String(text) => tokens(text),
            other => tokens(&other.to_string()),
        });
        let beside = extra.fold(MESSAGE_OVERHEAD, u32::saturating_add);
        tokens(&message.content).saturating_add(beside)
    }

    fn fixed_estimate(&self, model: &str) -> u32 {
        let tools = ["tools", "functions"].into_iter().filter_map(|name| self.extra.get(name));
        let tools = tools.map(|tools| self.estimates.tokens(model, &tools.to_string()));
        tools.fold(self.estimates.template(model), u32::saturating_add)
    }

    /// What is left of the conversation so that it fits the window with room for an answer, and its estimate: system messages
    /// at the head, then the newest messages, of which the first is no output of a call that was left out.
    fn truncated(&self, model: &str, window: u32) -> (Arc<[PromptMessage]>, u32) {
        let sizes: Vec<u32> =
            self.messages.iter().map(|message| self.message_estimate(model, message)).collect();
        let fixed = self.fixed_estimate(model);
        let mut estimate = sizes.iter().copied().fold(fixed, u32::saturating_add);
        let room = answer_room(&self.options, window);
        let limit = window.saturating_sub(room.min(window / 2));
        let head = self.messages.iter().take_while(|message| message.role == "system");
        let head = head.count();
        let mut from = head;
        while from + 1 < sizes.len() && (estimate > limit || self.messages[from].role == "tool") {
            estimate = estimate.saturating_sub(sizes[from]);
            from += 1;
        }
        if from == head {
            return (Arc::clone(&self.messages), estimate);
        }
        let kept = self.messages[..head].iter().chain(&self.messages[from..]);
        (kept.cloned().collect(), estimate)
    }

    /// What it may cost at most, as far as one can tell: for the reservation of the day's quota.
    pub(super) fn reservation(&self, estimate: u32, window: u32) -> u64 {
        let prompt = estimate.min(window);
        u64::from(prompt) + u64::from(longest_answer(&self.options, prompt, window))
    }

    /// Limits the answer to what is left of the quota.
    pub(super) fn limit_answer(&self, tokens: u64) {
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        let _ = self.answer_limit.set(tokens);
    }
}

impl Prompt for StatelessPrompt {
    fn fit(&self, model: &str, window: u32) -> ChatRequest {
        let (messages, prompt_estimate) = if self.truncates {
            self.truncated(model, window)
        } else {
            (Arc::clone(&self.messages), self.estimate(model))
        };
        self.last_estimate.store(prompt_estimate, Ordering::Relaxed);
        ChatRequest {
            model: model.to_owned(),
            dropped: (self.messages.len() - messages.len()) as u64,
            messages,
            options: self.options.limited(self.answer_limit.get().copied()),
            window,
            prompt_estimate,
            is_callers: true,
            untrimmed: !self.truncates,
            extra: Arc::clone(&self.extra),
            request_id: Arc::clone(&self.request_id),
        }
    }

    fn recount(&self, refused: &ChatRequest, counted: u32) -> u32 {
        if !self.is_all_text() {
            return refused.prompt_estimate;
        }
        self.estimates.recount(&refused.model, refused.prompt_estimate, counted)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(message: PromptMessage) -> StatelessPrompt {
        let request = CompletionRequest {
            model: None,
            messages: vec![message],
            options: Options::default(),
            extra: Map::new(),
            truncates: false,
        };
        StatelessPrompt::new(request, "".into(), TokenEstimates::default())
    }

    #[test]
    fn a_conversation_that_may_be_truncated_loses_its_oldest_messages() {
        let message = |role: &'static str, letter: &str| PromptMessage {
            role: role.into(),
            content: letter.repeat(4000),
            extra: None,
        };
        let prompt = StatelessPrompt {
            truncates: true,
            messages: ["system", "user", "assistant", "tool", "user"]
                .map(|role| message(role, &role[..1]))
                .into(),
            ..request(message("user", ""))
        };
        let roles = |window| -> Vec<String> {
            let fitted = prompt.fit("m", window);
            assert_eq!(fitted.dropped as usize, 5 - fitted.messages.len());
            assert!(fitted.is_callers && !fitted.untrimmed);
            fitted.messages.iter().map(|m| m.role.to_string()).collect()
        };
        assert_eq!(roles(100_000).len(), 5);
        let all = prompt.estimate("m");
        assert_eq!(roles(all), ["system", "user"], "no output without its call");
        assert_eq!(roles(10), ["system", "user"], "the newest always stays");
    }

    #[test]
    fn an_image_does_not_count_by_the_length_of_its_text() {
        let url = format!("data:image/png;base64,{}", "A".repeat(100_000));
        let parts = json!({ "content": [{ "type": "text", "text": "What is it?" },
            { "type": "image_url", "image_url": { "url": url } }] });
        let message = PromptMessage {
            role: "user".into(),
            content: String::new(),
            extra: parts.as_object().cloned(),
        };
        assert!(request(message).estimate("m") < 300);
    }

    #[test]
    fn a_reservation_is_never_more_than_the_window_read_and_written() {
        let message =
            PromptMessage { role: "user".into(), content: "x".repeat(100_000), extra: None };
        let request = request(message);
        let estimate = request.estimate("m");
        assert!(estimate > 20_000);
        assert_eq!(request.reservation(estimate, 4096), 4096 + 1024);
    }
}

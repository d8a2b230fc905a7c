//! The prompt of a stateless completion, as the client made it.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use serde_json::{Map, Value};

use crate::{
    domain::{Options, Usage},
    generation::tokens::{MESSAGE_OVERHEAD, TokenEstimates, default_room},
    llm::{ChatRequest, Prompt, PromptMessage},
};

/// What an image costs of the window, roughly, in tokens.
const IMAGE_TOKENS: u32 = 256;

/// The prompt of a completion: all messages of the request, and members that are passed through.
pub(super) struct StatelessPrompt {
    messages: Vec<PromptMessage>,
    options: Options,
    extra: Map<String, Value>,
    request_id: Arc<str>,
    estimates: TokenEstimates,
    /// The estimate of the last prompt that was made, in tokens.
    last_estimate: AtomicU32,
}

impl StatelessPrompt {
    pub(super) fn new(
        messages: Vec<PromptMessage>,
        options: Options,
        extra: Map<String, Value>,
        request_id: &Arc<str>,
        estimates: TokenEstimates,
    ) -> Self {
        Self {
            messages,
            options,
            extra,
            request_id: Arc::clone(request_id),
            estimates,
            last_estimate: AtomicU32::new(0),
        }
    }

    /// Learns from what the server counted of the last prompt that was made, where that was all text: how many tokens an
    /// image is differs from model to model.
    pub(super) fn learn(&self, model: &str, counted: Usage) {
        let has_parts = |message: &PromptMessage| {
            let extra = message.extra.as_ref();
            extra.is_some_and(|extra| extra.get("content").is_some_and(Value::is_array))
        };
        if !self.messages.iter().any(has_parts) {
            let estimate = self.last_estimate.load(Ordering::Relaxed);
            self.estimates.observe(model, estimate, counted);
        }
    }

    pub(super) fn estimates(&self) -> &TokenEstimates {
        &self.estimates
    }

    /// Our estimate of the prompt, in tokens.
    pub(super) fn estimate(&self, model: &str) -> u32 {
        let tokens = |text: &str| self.estimates.tokens(model, text);
        let json = |value: &Value| tokens(&value.to_string());
        let message = |message: &PromptMessage| {
            let extra = message.extra.iter().flatten();
            let beside: u32 = extra
                .map(|(name, value)| match value {
                    Value::Array(parts) if name == "content" => parts
                        .iter()
                        .map(|part| match part.get("text").and_then(Value::as_str) {
                            Some(text) => tokens(text),
                            None => IMAGE_TOKENS,
                        })
                        .fold(0, u32::saturating_add),
                    Value::String(text) => tokens(text),
                    other => json(other),
                })
                .fold(0, u32::saturating_add);
            tokens(&message.content)
                .saturating_add(beside)
                .saturating_add(MESSAGE_OVERHEAD)
        };
        let tools = self.extra.get("tools").map_or(0, json);
        self.messages
            .iter()
            .map(message)
            .fold(tools, u32::saturating_add)
            .saturating_add(self.estimates.template(model))
    }

    /// What it may cost at most, as far as one can tell: for the reservation of the day's quota.
    pub(super) fn reservation(&self, estimate: u32, window: u32) -> u64 {
        let room = self
            .options
            .max_tokens
            .unwrap_or_else(|| default_room(window));
        u64::from(estimate.min(window)) + u64::from(room.min(window))
    }
}

impl Prompt for StatelessPrompt {
    fn fit(&self, model: &str, window: u32) -> ChatRequest {
        let prompt_estimate = self.estimate(model);
        self.last_estimate.store(prompt_estimate, Ordering::Relaxed);
        ChatRequest {
            model: model.to_owned(),
            messages: self.messages.clone(),
            options: self.options.clone(),
            window,
            prompt_estimate,
            dropped: 0,
            untrimmed: true,
            extra: self.extra.clone(),
            request_id: Arc::clone(&self.request_id),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(message: PromptMessage) -> StatelessPrompt {
        StatelessPrompt::new(
            vec![message],
            Options::default(),
            Map::new(),
            &Arc::from(""),
            TokenEstimates::default(),
        )
    }

    #[test]
    fn an_image_does_not_count_by_the_length_of_its_text() {
        let url = format!("data:image/png;base64,{}", "A".repeat(100_000));
        let parts = json!({ "content": [{ "type": "text", "text": "What is it?" },
            { "type": "image_url", "image_url": { "url": url } }] });
        let message = PromptMessage {
            role: "user".to_owned(),
            content: String::new(),
            extra: parts.as_object().cloned(),
        };
        assert!(request(message).estimate("m") < 300);
    }

    #[test]
    fn a_reservation_is_never_more_than_the_window_read_and_written() {
        let message = PromptMessage {
            role: "user".to_owned(),
            content: "x".repeat(100_000),
            extra: None,
        };
        let request = request(message);
        let estimate = request.estimate("m");
        assert!(estimate > 20_000);
        assert_eq!(request.reservation(estimate, 4096), 4096 + 1024);
    }
}

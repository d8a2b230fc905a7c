//! What is known of an answer while it is generated.

use common::{
    config::ProviderKind,
    otel::{self, Span},
};
use serde_json::json;

use crate::{
    domain::{Context, FinishReason, OpenTurn, Usage},
    generation::{
        Outcome,
        tokens::{TextSize, TokenEstimates},
    },
    llm::{Chunk, UsageDetails},
};

/// Longest text of one answer, of its thoughts, and of its tool calls, in bytes; beyond it the answer ends as `length`.
pub(crate) const TEXT_LIMIT: usize = 1024 * 1024;

#[derive(Clone, Debug)]
pub(crate) struct AnswerSource {
    pub(crate) model: String,
    pub(crate) provider: String,
    pub(crate) context: Context,
}

impl AnswerSource {
    /// Who is tried first: all that is known while nobody has answered.
    pub(crate) fn requested(open: &OpenTurn) -> Self {
        Self {
            model: open.model.clone(),
            provider: open.provider.clone(),
            context: Context { window: open.window, dropped_messages: 0 },
        }
    }
}

/// Limits an answer and gathers what it cost. The text itself goes to the sink.
#[derive(Debug, Default)]
pub(crate) struct AnswerBuilder {
    text: usize,
    thinking: usize,
    tool_calls: usize,
    size: TextSize,
    pub(crate) counted: Option<Usage>,
    details: UsageDetails,
    stop_sequence: Option<String>,
    /// The pieces of output that came: the tokens of an answer that was not finished.
    pub(super) streamed_tokens: u64,
    pub(crate) source: Option<AnswerSource>,
    /// The beginning of the text, where a span may hold it.
    captured: String,
}

impl AnswerBuilder {
    /// Takes chunks in, and returns those that are to be delivered, and how the answer ended, if it did.
    pub(crate) fn take(&mut self, mut chunks: Vec<Chunk>) -> (Vec<Chunk>, Option<FinishReason>) {
        let mut finish = None;
        chunks.retain_mut(|chunk| finish.is_none() && self.take_one(chunk, &mut finish));
        (chunks, finish)
    }

    /// Takes one chunk in; true if it is to be delivered.
    fn take_one(&mut self, chunk: &mut Chunk, finish: &mut Option<FinishReason>) -> bool {
        let is_full = match chunk {
            Chunk::Queued { .. } => false,
            Chunk::Started { provider, model, window, dropped } => {
                self.source = Some(AnswerSource {
                    model: model.clone(),
                    provider: provider.as_str().to_owned(),
                    context: Context { window: *window, dropped_messages: *dropped },
                });
                false
            }
            Chunk::Text(text) => {
                otel::capture(&mut self.captured, text);
                self.size.add_clipped(text, &mut self.text)
            }
            Chunk::Thinking(text) => self.size.add_clipped(text, &mut self.thinking),
            Chunk::ToolCall(call) => {
                let size = call.name.len() + call.arguments.len();
                if self.tool_calls + size > TEXT_LIMIT {
                    *finish = Some(FinishReason::Length);
                    return false;
                }
                self.tool_calls += size;
                self.size.add(&call.name);
                self.size.add(&call.arguments);
                false
            }
            Chunk::End { finish: reason, usage, details, stop_sequence } => {
                self.counted = *usage;
                self.details = *details;
                self.stop_sequence = stop_sequence.take();
                *finish = Some(*reason);
                return false;
            }
        };
        let is_empty =
            matches!(chunk, Chunk::Text(text) | Chunk::Thinking(text) if text.is_empty());
        if is_full {
            *finish = Some(FinishReason::Length);
        }
        !(is_full && is_empty)
    }

    pub(super) fn trace(&self, outcome: &Outcome) {
        if otel::captures_content() {
            let mut message = otel::message("assistant", &self.captured);
            message["finish_reason"] = match outcome {
                Outcome::Answered(reason) => json!(reason),
                _ => "error".into(),
            };
            Span::current().set("gen_ai.output.messages", json!([message]).to_string());
        }
    }

    /// The last chunk of an answer that cost so much.
    pub(crate) fn end(&mut self, finish: FinishReason, usage: Usage) -> Chunk {
        // Servers count thoughts, text and calls together.
        let all = (self.text + self.thinking + self.tool_calls).max(1) as u64;
        let thoughts = usage.completion_tokens.saturating_mul(self.thinking as u64) / all;
        Chunk::End {
            finish,
            usage: Some(usage),
            details: UsageDetails { estimated_reasoning: thoughts, ..self.details },
            stop_sequence: self.stop_sequence.take(),
        }
    }

    /// What the answer cost: as the server counted, else our estimate; nothing where no server answered.
    pub(crate) fn usage(&self, estimates: &TokenEstimates, prompt_estimate: u32) -> Usage {
        match (&self.source, self.counted) {
            (None, _) => Usage::default(),
            (Some(_), Some(counted)) => counted,
            (Some(source), None) => {
                let estimate = estimates.tokens_of(&source.model, self.size).into();
                let is_exact = source.provider == ProviderKind::Ollama.as_str();
                Usage {
                    prompt_tokens: prompt_estimate.into(),
                    completion_tokens: match self.streamed_tokens {
                        0 => estimate,
                        streamed if is_exact => streamed,
                        streamed => streamed.max(estimate),
                    },
                }
            }
        }
    }
}

impl TextSize {
    /// Adds as much of a text as the limit allows, cut at a character; returns whether that was less than all.
    fn add_clipped(&mut self, text: &mut String, used: &mut usize) -> bool {
        let room = TEXT_LIMIT.saturating_sub(*used);
        let is_full = text.len() > room;
        if is_full {
            let end = (0..=room).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
            text.truncate(end);
        }
        *used += text.len();
        self.add(text);
        is_full
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::ToolCall;

    #[test]
    fn the_estimate_of_thoughts_leaves_out_text_and_calls() {
        let (name, arguments) = ("read".to_owned(), "x".repeat(46));
        let call = ToolCall { id: "c".to_owned(), name, arguments };
        let mut answer = AnswerBuilder::default();
        let said = [Chunk::Thinking("x".repeat(30)), Chunk::Text("x".repeat(20))];
        answer.take(said.into_iter().chain([Chunk::ToolCall(call)]).collect());
        let usage = Usage { prompt_tokens: 1, completion_tokens: 200 };
        match answer.end(FinishReason::ToolCalls, usage) {
            Chunk::End { details, .. } => assert_eq!(details.estimated_reasoning, 60),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_beyond_the_limit_ends_as_length_at_a_character() {
        let mut answer = AnswerBuilder::default();
        let full = Chunk::Text("x".repeat(TEXT_LIMIT - 1));
        assert_eq!(answer.take(vec![full]).1, None);
        let (kept, finish) = answer.take(vec![Chunk::Text("aé".into()), Chunk::Text("b".into())]);
        assert_eq!((kept, finish), (vec![Chunk::Text("a".into())], Some(FinishReason::Length)));
        let (kept, finish) = answer.take(vec![Chunk::Text("c".into())]);
        assert_eq!((kept, finish), (Vec::new(), Some(FinishReason::Length)));
    }
}

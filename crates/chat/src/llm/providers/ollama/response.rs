//! An answer of Ollama: one JSON object a line, complete only with `done: true`.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    domain::{FinishReason, Usage},
    llm::{
        chunk::{Chunk, ToolCall, UsageDetails},
        error::{ErrorKind, ProviderError},
        providers::{
            Batch,
            classify::stream_error,
            finish::finish_reason,
            lenient_json::{self, OrNone, entries, lossy_text, tokens_or_none},
            lines::Lines,
            ollama::errors::not_found,
            response_stream::Parser,
            unicode::{RawText, TextJoiner, repair_escapes},
        },
        request::ChatRequest,
    },
};

#[derive(Default)]
pub(in crate::llm::providers) struct OllamaParser {
    lines: Lines,
    answer: OllamaAnswer,
}

#[derive(Default)]
struct OllamaAnswer {
    prompt_estimate: u32,
    content: TextJoiner,
    thinking: TextJoiner,
    has_tool_calls: bool,
    is_done: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct OllamaLine<'a> {
    message: Option<OllamaMessage<'a>>,
    done: Option<bool>,
    done_reason: OrNone<String>,
    #[serde(deserialize_with = "tokens_or_none")]
    prompt_eval_count: Option<u64>,
    /// Those of them that were in its cache.
    #[serde(deserialize_with = "tokens_or_none")]
    prompt_eval_cached_count: Option<u64>,
    #[serde(deserialize_with = "tokens_or_none")]
    eval_count: Option<u64>,
    load_duration: OrNone<u64>,
    prompt_eval_duration: OrNone<u64>,
    eval_duration: OrNone<u64>,
    error: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct OllamaMessage<'a> {
    content: Option<RawText>,
    thinking: OrNone<RawText>,
    #[serde(deserialize_with = "entries")]
    tool_calls: Vec<OllamaCall<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct OllamaCall<'a> {
    id: OrNone<String>,
    function: OllamaFunction<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct OllamaFunction<'a> {
    #[serde(deserialize_with = "lossy_text")]
    name: Option<String>,
    arguments: Option<&'a RawValue>,
}

impl OllamaLine<'_> {
    /// A part that took no time is left out; the answer's own is always there.
    fn durations(&self) -> Option<[u64; 3]> {
        let before = [&self.load_duration, &self.prompt_eval_duration];
        let [load, prompt] = before.map(|part| part.0.unwrap_or_default());
        Some([load, prompt, self.eval_duration.0?])
    }
}

impl OllamaFunction<'_> {
    /// The arguments as text; some servers send them as a string already.
    fn arguments(&self) -> String {
        let json = repair_escapes(self.arguments.map_or("", RawValue::get));
        serde_json::from_str::<String>(&json).unwrap_or(json)
    }
}

impl OllamaParser {
    pub(in crate::llm::providers) fn new(request: &ChatRequest) -> Self {
        let mut parser = Self::default();
        parser.answer.prompt_estimate = request.prompt_estimate;
        parser
    }
}

impl Parser for OllamaParser {
    fn feed(&mut self, bytes: &[u8], batch: &mut Batch) -> Result<(), ProviderError> {
        let Self { lines, answer } = self;
        lines.push(bytes);
        while !answer.is_done
            && let Some(line) = lines.next()?
        {
            answer.line(line, batch)?;
        }
        Ok(())
    }

    fn finish(&mut self, batch: &mut Batch) -> Result<(), ProviderError> {
        // The end of the last line may be missing.
        self.feed(b"\n", batch)?;
        if self.answer.is_done {
            return Ok(());
        }
        Err(ProviderError::new(ErrorKind::CutOff, "the stream ended before `done`"))
    }

    fn is_complete(&self) -> bool {
        self.answer.is_done
    }
}

impl OllamaAnswer {
    fn line(&mut self, line: &[u8], batch: &mut Batch) -> Result<(), ProviderError> {
        let line = lenient_json::without_bom(line.trim_ascii());
        if line.is_empty() {
            return Ok(());
        }
        let mut line: OllamaLine<'_> = lenient_json::object(line).map_err(|error| {
            ProviderError::failed(format!("a line that is not understood: {error}"))
        })?;
        if let Some(error) = line.error.filter(|error| lenient_json::says(error)) {
            return Err(stream_error(error.get(), not_found));
        }
        if let Some(message) = line.message.take() {
            self.message(message, batch)?;
        }
        if line.done != Some(true) {
            return Ok(());
        }
        let details = UsageDetails {
            cached_tokens: line.prompt_eval_cached_count.unwrap_or_default(),
            durations: line.durations(),
            ..UsageDetails::default()
        };
        let finish = finish_reason(line.done_reason.0.as_deref().unwrap_or_default())?;
        self.is_done = true;
        batch.flush(Chunk::Thinking, &mut self.thinking);
        batch.flush(Chunk::Text, &mut self.content);
        batch.chunks.push(Chunk::End {
            finish: match finish {
                FinishReason::Stop if self.has_tool_calls => FinishReason::ToolCalls,
                finish => finish,
            },
            usage: self.usage(line.prompt_eval_count, line.eval_count),
            details,
            stop_sequence: None,
        });
        Ok(())
    }

    fn message(
        &mut self,
        message: OllamaMessage<'_>,
        batch: &mut Batch,
    ) -> Result<(), ProviderError> {
        let thinking = message.thinking.0.unwrap_or_default();
        let content = message.content.unwrap_or_default();
        batch.deltas += u64::from(thinking != RawText::default() || content != RawText::default());
        batch.push(Chunk::Thinking, &mut self.thinking, thinking)?;
        batch.push(Chunk::Text, &mut self.content, content)?;
        for call in message.tool_calls {
            let arguments = call.function.arguments();
            let Some(name) = call.function.name.filter(|name| !name.is_empty()) else { continue };
            self.has_tool_calls = true;
            batch.deltas += 1;
            batch.chunks.push(Chunk::ToolCall(ToolCall::new(call.id.0, name, arguments)));
        }
        Ok(())
    }

    /// Old versions leave out a count of zero: of the prompt it means that it was cached, of the answer that it is empty.
    fn usage(&self, prompt: Option<u64>, answer: Option<u64>) -> Option<Usage> {
        (prompt.is_some() || answer.is_some()).then(|| Usage {
            prompt_tokens: prompt.unwrap_or_else(|| self.prompt_estimate.into()),
            completion_tokens: answer.unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::redaction::Redactor;

    #[test]
    fn a_reason_of_giving_up_fails_the_answer_at_once() {
        for reason in ["error", "load"] {
            let mut parser = OllamaParser::new(&ChatRequest::default());
            let line = format!("{{\"done\":true,\"done_reason\":\"{reason}\"}}\n");
            let error = parser.feed(line.as_bytes(), &mut Batch::default()).unwrap_err();
            assert!(error.describe(Some(&Redactor::default())).ends_with(reason), "{reason}");
            assert!(!parser.is_complete());
        }
    }

    #[test]
    fn the_servers_own_details_are_told() {
        let details = |line: &str| {
            let mut parser = OllamaParser::new(&ChatRequest::default());
            let mut batch = Batch::default();
            parser.feed(format!("{line}\n").as_bytes(), &mut batch).unwrap();
            match batch.chunks.pop() {
                Some(Chunk::End { details, .. }) => (details.durations, details.cached_tokens),
                other => panic!("{other:?}"),
            }
        };
        let told = r#"{"done":true,"load_duration":3,"prompt_eval_cached_count":7,"prompt_eval_duration":60000000000,"eval_duration":5}"#;
        assert_eq!(details(told), (Some([3, 60_000_000_000, 5]), 7));
        assert_eq!(details(r#"{"done":true}"#), (None, 0));
        let odd = r#"{"done":true,"eval_duration":"soon","prompt_eval_cached_count":"all"}"#;
        assert_eq!(details(odd), (None, 0));
    }
}

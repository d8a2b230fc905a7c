//! An OpenAI-compatible answer: server-sent events, or one document where the server did not stream.

use crate::{
    domain::FinishReason,
    llm::{
        chunk::Chunk,
        error::{ErrorKind, ProviderError},
        providers::{
            Batch,
            classify::stream_error,
            finish::finish_reason,
            lenient_json,
            lines::{MAX_LINE, too_long},
            openai::{
                errors::not_found,
                frame::{CallPart, ChoiceDelta, ChunkFrame, Counts, UpstreamChoice},
                tool_calls::ToolCalls,
            },
            response_stream::Parser,
            sse::{SseDecoder, SseEvent},
            unicode::TextJoiner,
        },
        request::ChatRequest,
    },
};

#[derive(Default)]
pub(in crate::llm::providers) struct OpenAiParser {
    format: BodyFormat,
    /// A document, kept until it is whole; before that a part of a byte order mark.
    bytes: Vec<u8>,
    events: SseDecoder,
    answer: OpenAiAnswer,
}

#[derive(Clone, Copy, Default)]
enum BodyFormat {
    /// Nothing but white space and a part of a byte order mark has been read.
    #[default]
    Unknown,
    Events,
    Document,
}

#[derive(Default)]
struct OpenAiAnswer {
    content: TextJoiner,
    refusal: TextJoiner,
    thinking: TextJoiner,
    tool_calls: ToolCalls,
    stop_sequences: Vec<String>,
    finish: Option<FinishReason>,
    stop_sequence: Option<String>,
    counts: Counts,
    has_choice: bool,
    /// The end mark came, or there is nothing more to expect.
    is_done: bool,
}

impl Parser for OpenAiParser {
    fn feed(&mut self, bytes: &[u8], batch: &mut Batch) -> Result<(), ProviderError> {
        let Self { format, bytes: kept, events, answer } = self;
        match format {
            BodyFormat::Unknown => {
                kept.extend_from_slice(bytes);
                let beginning = std::mem::take(kept);
                // Wherever it is cut: white space and a mark before it are no part of an answer.
                let beginning = lenient_json::without_bom(beginning.trim_ascii_start());
                let beginning = beginning.trim_ascii_start();
                *format = match beginning {
                    // A part of a byte order mark may become a whole one; what else is not known yet says nothing.
                    [] | [0xEF] | [0xEF, 0xBB] => {
                        *kept = beginning.to_vec();
                        return Ok(());
                    }
                    // No line of an event stream begins so.
                    [b'{' | b'[', ..] => BodyFormat::Document,
                    _ => BodyFormat::Events,
                };
                self.feed(beginning, batch)
            }
            BodyFormat::Events => {
                events.push(bytes);
                while !answer.is_done
                    && let Some(event) = events.next()?
                {
                    answer.event(&event, batch)?;
                }
                answer.end_if_done(batch)
            }
            BodyFormat::Document if kept.len() + bytes.len() > MAX_LINE => Err(too_long()),
            BodyFormat::Document => {
                kept.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    fn finish(&mut self, batch: &mut Batch) -> Result<(), ProviderError> {
        let Self { format, bytes, events, answer } = self;
        let rest = match format {
            BodyFormat::Unknown => Ok(()),
            BodyFormat::Events => match events.finish() {
                Ok(Some(event)) => answer.event(&event, batch),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            },
            BodyFormat::Document => answer.document(bytes, batch),
        };
        if answer.finish.is_none() && !answer.is_done {
            rest?;
            let what = "the stream ended without a finish reason";
            return Err(ProviderError::new(ErrorKind::CutOff, what));
        }
        answer.is_done = true;
        answer.end_if_done(batch)
    }

    fn is_complete(&self) -> bool {
        self.answer.finish.is_some()
    }
}

impl OpenAiParser {
    pub(in crate::llm::providers) fn new(request: &ChatRequest) -> Self {
        let mut parser = Self::default();
        parser.answer.stop_sequences = request.options.stop.clone().unwrap_or_default();
        parser
    }
}

impl OpenAiAnswer {
    fn event(&mut self, event: &SseEvent, batch: &mut Batch) -> Result<(), ProviderError> {
        if event.is_error {
            return Err(stream_error(&String::from_utf8_lossy(&event.data), not_found));
        }
        if event.data.trim_ascii() == b"[DONE]" {
            self.is_done = true;
            return Ok(());
        }
        self.frame(&event.data, batch)
    }

    fn frame(&mut self, json: &[u8], batch: &mut Batch) -> Result<(), ProviderError> {
        let frame: ChunkFrame<'_> = lenient_json::object(json).map_err(|error| {
            ProviderError::failed(format!("a frame that is not understood: {error}"))
        })?;
        if let Some(words) = frame.failure(json) {
            return Err(stream_error(&words, not_found));
        }
        if frame.usage.usage.is_some() {
            self.counts = frame.usage;
        }
        let word = frame.verbose.0.as_ref().and_then(|verbose| verbose["stopping_word"].as_str());
        self.stopped_at(word.map(str::to_owned));
        // One answer is asked for; should there be more, the first counts.
        let choices = frame.choices.into_iter().flatten().flatten();
        for choice in choices.filter(|choice| choice.index.unwrap_or(0) == 0) {
            self.has_choice = true;
            self.choice(choice, batch)?;
        }
        Ok(())
    }

    /// A document that is there needs no word that it has ended.
    fn document(&mut self, json: &[u8], batch: &mut Batch) -> Result<(), ProviderError> {
        self.frame(lenient_json::without_bom(json.trim_ascii()), batch)?;
        self.is_done = self.has_choice;
        Ok(())
    }

    fn choice(
        &mut self,
        mut choice: UpstreamChoice<'_>,
        batch: &mut Batch,
    ) -> Result<(), ProviderError> {
        if let Some(delta) = choice.added() {
            self.delta(delta, batch)?;
        }
        if let Some(error) = choice.error.filter(|error| lenient_json::says(error)) {
            return Err(stream_error(error.get(), not_found));
        }
        // Some servers put the word into an object.
        let reason = choice.finish_reason.0.unwrap_or_default();
        let word = reason.as_str().or(reason["type"].as_str()).filter(|word| !word.is_empty());
        if let (false, Some(word)) = (self.is_done, word) {
            self.finish = Some(finish_reason(word)?);
        }
        self.stopped_at(choice.stop_reason.0.or(choice.matched_stop.0));
        Ok(())
    }

    /// Notes the text that ended the answer, unless it is one of the server's own.
    fn stopped_at(&mut self, text: Option<String>) {
        let is_asked = |text: &String| self.stop_sequences.contains(text);
        self.stop_sequence = self.stop_sequence.take().or(text.filter(is_asked));
    }

    fn delta(
        &mut self,
        mut delta: ChoiceDelta<'_>,
        batch: &mut Batch,
    ) -> Result<(), ProviderError> {
        let thoughts = delta.take_thoughts();
        let content = delta.content.unwrap_or_default().text;
        let refusal = delta.refusal.0.unwrap_or_default().text;
        let has_text = [&thoughts, &content, &refusal].into_iter().any(|text| !text.0.is_empty());
        batch.deltas += u64::from(has_text);
        batch.push(Chunk::Thinking, &mut self.thinking, thoughts)?;
        batch.push(Chunk::Text, &mut self.content, content)?;
        batch.push(Chunk::Text, &mut self.refusal, refusal)?;
        let mut parts = delta.tool_calls;
        if let (Some(call), true) = (delta.function_call.pop(), parts.is_empty()) {
            parts.push(CallPart { index: Some(0), function: Some(call), ..CallPart::default() });
        }
        for part in parts {
            batch.deltas += 1;
            if !self.tool_calls.add(part) {
                (self.finish, self.is_done) = (Some(FinishReason::Length), true);
                break;
            }
        }
        Ok(())
    }

    fn end_if_done(&mut self, batch: &mut Batch) -> Result<(), ProviderError> {
        if !self.is_done {
            return Ok(());
        }
        batch.flush(Chunk::Thinking, &mut self.thinking);
        batch.flush(Chunk::Text, &mut self.content);
        batch.flush(Chunk::Text, &mut self.refusal);
        let calls = self.tool_calls.finish()?;
        let has_calls = !calls.is_empty();
        batch.chunks.extend(calls.into_iter().map(Chunk::ToolCall));
        let finish = match self.finish {
            None | Some(FinishReason::Stop) if has_calls => FinishReason::ToolCalls,
            // Nobody could call what is not there.
            Some(FinishReason::ToolCalls) if !has_calls => FinishReason::Stop,
            finish => finish.unwrap_or(FinishReason::Stop),
        };
        batch.chunks.push(Chunk::End {
            finish,
            usage: self.counts.usage,
            details: self.counts.details,
            stop_sequence: self.stop_sequence.take(),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Options;

    /// Which stop sequence of `END` and `###` an answer is taken to have ended at.
    fn stop_sequence(frame: &str) -> Option<String> {
        let stop = Some(vec!["END".to_owned(), "###".to_owned()]);
        let options = Options { stop, ..Options::default() };
        let request = ChatRequest { options, ..ChatRequest::default() };
        let mut batch = Batch::default();
        let mut parser = OpenAiParser::new(&request);
        let body = format!("data: {frame}\n\ndata: [DONE]\n\n");
        parser.feed(body.as_bytes(), &mut batch).unwrap();
        match batch.chunks.pop() {
            Some(Chunk::End { finish: FinishReason::Stop, stop_sequence, .. }) => stop_sequence,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn details_of_the_cost_are_told_where_the_server_tells_them() {
        let details = |more: &str| {
            let body = format!(
                r#"data: {{"choices":[{{"delta":{{}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":9,"completion_tokens":7{more}}}}}"#
            );
            let (mut batch, mut parser) = (Batch::default(), OpenAiParser::default());
            parser.feed(format!("{body}\n\ndata: [DONE]\n\n").as_bytes(), &mut batch).unwrap();
            match batch.chunks.pop() {
                Some(Chunk::End { details, .. }) => {
                    (details.cached_tokens, details.reasoning_tokens)
                }
                other => panic!("{other:?}"),
            }
        };
        let told = r#","prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":5}"#;
        assert_eq!(details(told), (4, Some(5)));
        assert_eq!(details(r#","completion_tokens_details":{"reasoning_tokens":0}"#), (0, Some(0)));
        assert_eq!(details(r#","completion_tokens_details":null"#), (0, None));
    }

    #[test]
    fn a_stop_sequence_is_told_in_every_dialect() {
        for frame in [
            r####"{"choices":[{"delta":{},"finish_reason":"stop","stop_reason":"###"}]}"####,
            r####"{"choices":[{"delta":{},"finish_reason":"stop","matched_stop":"###"}]}"####,
            r####"{"choices":[{"delta":{},"finish_reason":"stop"}],"__verbose":{"stopping_word":"###"}}"####,
        ] {
            assert_eq!(stop_sequence(frame).as_deref(), Some("###"), "{frame}");
        }
        for frame in [
            r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"stop","stop_reason":null}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"stop","stop_reason":151645}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"stop","matched_stop":"<|im_end|>"}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"__verbose":{"stopping_word":""}}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"__verbose":7}"#,
        ] {
            assert_eq!(stop_sequence(frame), None, "{frame}");
        }
    }
}

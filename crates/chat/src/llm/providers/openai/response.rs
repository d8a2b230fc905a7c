//! An OpenAI-compatible answer: server-sent events, or one document where the server did not stream.

use crate::{
    domain::{FinishReason, Usage},
    llm::{
        chunk::Chunk,
        error::{ErrorKind, ProviderError},
        providers::{
            Batch,
            finish::finish_reason,
            lenient_json,
            lines::{GoOn, MAX_LINE, too_long},
            openai::{
                errors::classify_message,
                frame::{ChoiceDelta, ChunkFrame, UpstreamChoice},
                tool_calls::ToolCalls,
            },
            response_stream::Parser,
            sse::SseDecoder,
            unicode::{RawText, TextJoiner},
        },
    },
};

#[derive(Default)]
pub(super) struct OpenAiParser {
    format: BodyFormat,
    answer: OpenAiAnswer,
}

enum BodyFormat {
    /// Nothing but white space and a part of a byte order mark has been read.
    Unknown(Vec<u8>),
    Events(SseDecoder),
    /// One JSON document, kept until it is whole.
    Document(Vec<u8>),
}

#[derive(Default)]
struct OpenAiAnswer {
    content: TextJoiner,
    refusal: TextJoiner,
    thinking: TextJoiner,
    tool_calls: ToolCalls,
    finish: Option<FinishReason>,
    usage: Option<Usage>,
    /// There was a choice, whatever it said.
    has_choice: bool,
    /// The end mark came, or there is nothing more to expect.
    is_done: bool,
}

impl Default for BodyFormat {
    fn default() -> Self {
        Self::Unknown(Vec::new())
    }
}

impl Parser for OpenAiParser {
    fn feed(&mut self, bytes: &[u8], batch: &mut Batch) -> Result<(), ProviderError> {
        let BodyFormat::Unknown(beginning) = &mut self.format else {
            return self.read(bytes, batch);
        };
        beginning.extend_from_slice(bytes);
        let beginning = std::mem::take(beginning);
        // Wherever it is cut: white space and a mark before it are no part of an answer.
        let beginning = lenient_json::without_bom(beginning.trim_ascii_start()).trim_ascii_start();
        self.format = BodyFormat::of(beginning);
        match self.format {
            BodyFormat::Unknown(_) => Ok(()),
            _ => self.read(beginning, batch),
        }
    }

    fn finish(&mut self, batch: &mut Batch) -> Result<(), ProviderError> {
        let Self { format, answer } = self;
        let rest = match format {
            BodyFormat::Unknown(_) => Ok(true),
            BodyFormat::Events(events) => {
                events.finish(|event| answer.event(event.is_error, event.data, batch))
            }
            BodyFormat::Document(document) => answer.document(document, batch),
        };
        if answer.finish.is_none() && !answer.is_done {
            rest?;
            return Err(ProviderError::failed(
                "cut off: the stream ended without a finish reason",
            ));
        }
        answer.is_done = true;
        answer.end_if_done(batch)
    }

    fn is_complete(&self) -> bool {
        self.answer.finish.is_some()
    }
}

impl OpenAiParser {
    fn read(&mut self, bytes: &[u8], batch: &mut Batch) -> Result<(), ProviderError> {
        let Self { format, answer } = self;
        match format {
            BodyFormat::Unknown(_) => Ok(()),
            BodyFormat::Events(events) => {
                events.feed(bytes, |event| {
                    answer.event(event.is_error, event.data, batch)
                })?;
                answer.end_if_done(batch)
            }
            BodyFormat::Document(document) if document.len() + bytes.len() > MAX_LINE => {
                Err(too_long())
            }
            BodyFormat::Document(document) => {
                document.extend_from_slice(bytes);
                Ok(())
            }
        }
    }
}

impl BodyFormat {
    /// What an answer is that begins so.
    fn of(beginning: &[u8]) -> Self {
        match beginning {
            // A part of a byte order mark may become a whole one; what else is not known yet says nothing.
            rest @ ([] | [0xEF] | [0xEF, 0xBB]) => Self::Unknown(rest.to_vec()),
            // No line of an event stream begins so.
            [b'{' | b'[', ..] => Self::Document(Vec::new()),
            _ => Self::Events(SseDecoder::default()),
        }
    }
}

impl OpenAiAnswer {
    fn event(
        &mut self,
        is_error: bool,
        data: &[u8],
        batch: &mut Batch,
    ) -> Result<GoOn, ProviderError> {
        if is_error {
            return Err(failure(&String::from_utf8_lossy(data)));
        }
        if data.trim_ascii() == b"[DONE]" {
            self.is_done = true;
            return Ok(false);
        }
        self.frame(data, batch)
    }

    fn frame(&mut self, json: &[u8], batch: &mut Batch) -> Result<GoOn, ProviderError> {
        let frame: ChunkFrame<'_> = lenient_json::object(json).map_err(|error| {
            ProviderError::failed(format!("a frame that is not understood: {error}"))
        })?;
        if let Some(words) = frame.failure() {
            let all = || String::from_utf8_lossy(json);
            return Err(failure(&words.map_or_else(all, Into::into)));
        }
        self.usage = frame.usage.or(self.usage);
        // One answer is asked for; should there be more, the first counts.
        for choice in frame
            .choices
            .unwrap_or_default()
            .into_iter()
            .flatten()
            .filter(|choice| choice.index.unwrap_or(0) == 0)
        {
            self.has_choice = true;
            self.choice(choice, batch)?;
        }
        Ok(!self.is_done)
    }

    /// A document that is there needs no word that it has ended.
    fn document(&mut self, json: &[u8], batch: &mut Batch) -> Result<GoOn, ProviderError> {
        let go_on = self.frame(lenient_json::without_bom(json.trim_ascii()), batch)?;
        self.is_done = self.has_choice;
        Ok(go_on)
    }

    fn choice(
        &mut self,
        mut choice: UpstreamChoice<'_>,
        batch: &mut Batch,
    ) -> Result<(), ProviderError> {
        if let Some(delta) = choice.added() {
            self.delta(delta, batch)?;
        }
        if let (false, Some(word)) = (
            self.is_done,
            choice.finish_reason.filter(|word| !word.is_empty()),
        ) {
            self.finish = Some(finish_reason(&word)?);
        }
        Ok(())
    }

    fn delta(
        &mut self,
        mut delta: ChoiceDelta<'_>,
        batch: &mut Batch,
    ) -> Result<(), ProviderError> {
        let thoughts = delta.take_thoughts();
        let content = delta.content.unwrap_or_default().text;
        let refusal = delta.refusal.unwrap_or_default().text;
        let has_text = [&thoughts, &content, &refusal]
            .into_iter()
            .any(|text| !text.0.is_empty());
        batch.deltas += u64::from(has_text);
        push(&mut self.thinking, thoughts, Chunk::Thinking, batch)?;
        push(&mut self.content, content, Chunk::Text, batch)?;
        push(&mut self.refusal, refusal, Chunk::Text, batch)?;
        for part in delta.tool_calls.into_iter().flatten().flatten() {
            batch.deltas += 1;
            self.tool_calls.add(part);
            if self.tool_calls.is_too_long() {
                self.tool_calls.drop_last();
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
        push_text(self.thinking.finish().to_owned(), Chunk::Thinking, batch);
        push_text(self.content.finish().to_owned(), Chunk::Text, batch);
        push_text(self.refusal.finish().to_owned(), Chunk::Text, batch);
        let has_calls = !self.tool_calls.is_empty();
        batch
            .chunks
            .extend(self.tool_calls.finish()?.into_iter().map(Chunk::ToolCall));
        let finish = match self.finish {
            None | Some(FinishReason::Stop) if has_calls => FinishReason::ToolCalls,
            // Nobody could call what is not there.
            Some(FinishReason::ToolCalls) if !has_calls => FinishReason::Stop,
            finish => finish.unwrap_or(FinishReason::Stop),
        };
        batch.chunks.push(Chunk::End {
            finish,
            usage: self.usage,
        });
        Ok(())
    }
}

fn push(
    joiner: &mut TextJoiner,
    piece: RawText,
    chunk: fn(String) -> Chunk,
    batch: &mut Batch,
) -> Result<(), ProviderError> {
    let text = joiner
        .push(piece)
        .ok_or_else(|| ProviderError::failed("a frame whose text is not UTF-8"))?;
    push_text(text, chunk, batch);
    Ok(())
}

fn push_text(text: String, chunk: fn(String) -> Chunk, batch: &mut Batch) {
    if !text.is_empty() {
        batch.chunks.push(chunk(text));
    }
}

/// What an error frame means: an object, or a text.
fn failure(words: &str) -> ProviderError {
    let kind = classify_message(words).unwrap_or(ErrorKind::Failed);
    ProviderError::new(kind, "an error in the stream").with_upstream_text(words)
}

//! An answer in OpenAI's words: server-sent events, or one document where the server did not stream.

use serde_json::value::RawValue;
use uuid::Uuid;

use super::frame::{CallPart, Choice, Delta, Frame, Text};
use crate::{
    adapters::{
        Chunk, ModelError, ToolCall,
        lines::{GoOn, MAX_LINE, too_long},
        sse::Events,
        wire::{self, Parser},
    },
    models::{FinishReason, Usage},
};

/// Reads one answer.
pub(super) struct Answer {
    form: Form,
    state: State,
}

enum Form {
    /// Nothing but white space has been read.
    Unknown,
    Events(Events),
    /// One JSON document, kept until it is whole.
    Document(Vec<u8>),
}

struct State {
    model: String,
    finish: Option<FinishReason>,
    usage: Option<Usage>,
    calls: Vec<Call>,
    /// The end mark came, or there is nothing more to expect.
    done: bool,
}

/// A tool call that is still growing.
struct Call {
    index: Option<u64>,
    id: Option<String>,
    name: String,
    arguments: String,
}

impl Answer {
    pub(super) fn new(model: &str) -> Self {
        let state = State {
            model: model.to_owned(),
            finish: None,
            usage: None,
            calls: Vec::new(),
            done: false,
        };
        Self {
            form: Form::Unknown,
            state,
        }
    }
}

impl Parser for Answer {
    fn feed(&mut self, bytes: &[u8], chunks: &mut Vec<Chunk>) -> Result<(), ModelError> {
        let Self { form, state } = self;
        if let Form::Unknown = form {
            // No line of an event stream begins so.
            match bytes.trim_ascii_start().first() {
                None => return Ok(()),
                Some(b'{' | b'[') => *form = Form::Document(Vec::new()),
                Some(_) => *form = Form::Events(Events::default()),
            }
        }
        match form {
            Form::Unknown => Ok(()),
            Form::Events(events) => {
                events.feed(bytes, |event| {
                    state.event(event.is_error, event.data, chunks)
                })?;
                state.end_if_done(chunks)
            }
            Form::Document(document) if document.len() + bytes.len() > MAX_LINE => Err(too_long()),
            Form::Document(document) => {
                document.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    fn finish(&mut self, chunks: &mut Vec<Chunk>) -> Result<(), ModelError> {
        let Self { form, state } = self;
        let rest = match form {
            Form::Unknown => Ok(true),
            Form::Events(events) => {
                events.finish(|event| state.event(event.is_error, event.data, chunks))
            }
            Form::Document(document) => state.frame(document, chunks),
        };
        if state.finish.is_none() && !state.done {
            rest?;
            return Err(ModelError::Failed(
                "cut off: the stream ended without a finish reason".to_owned(),
            ));
        }
        state.done = true;
        state.end_if_done(chunks)
    }

    fn is_whole(&self) -> bool {
        self.state.finish.is_some()
    }
}

impl State {
    fn event(
        &mut self,
        is_error: bool,
        data: &[u8],
        chunks: &mut Vec<Chunk>,
    ) -> Result<GoOn, ModelError> {
        if is_error {
            return Err(self.failure(&String::from_utf8_lossy(data)));
        }
        if data.trim_ascii() == b"[DONE]" {
            self.done = true;
            return Ok(false);
        }
        self.frame(data, chunks)
    }

    fn frame(&mut self, json: &[u8], chunks: &mut Vec<Chunk>) -> Result<GoOn, ModelError> {
        let frame: Frame<'_> = serde_json::from_slice(json).map_err(|error| {
            ModelError::Failed(format!("a frame that is not understood: {error}"))
        })?;
        if let Some(error) = frame.error.filter(|error| error.get() != "null") {
            return Err(self.failure(error.get()));
        }
        self.usage = frame.usage.or(self.usage);
        // One answer is asked for; should there be more, the first counts.
        for choice in frame
            .choices
            .unwrap_or_default()
            .into_iter()
            .filter(|choice| choice.index.unwrap_or(0) == 0)
        {
            self.choice(choice, chunks)?;
        }
        Ok(true)
    }

    fn choice(&mut self, choice: Choice<'_>, chunks: &mut Vec<Chunk>) -> Result<(), ModelError> {
        if let Some(delta) = choice.delta {
            self.delta(delta, chunks);
        }
        match choice.finish_reason.as_deref() {
            None | Some("") => {}
            Some("length") => self.finish = Some(FinishReason::Length),
            Some("tool_calls" | "function_call") => self.finish = Some(FinishReason::ToolCalls),
            Some("content_filter") => self.finish = Some(FinishReason::ContentFilter),
            Some(reason @ ("error" | "abort")) => {
                return Err(ModelError::Failed(format!("it ended with `{reason}`")));
            }
            Some(_) => self.finish = Some(FinishReason::Stop),
        }
        Ok(())
    }

    fn delta(&mut self, delta: Delta<'_>, chunks: &mut Vec<Chunk>) {
        let thinking = if delta.reasoning.0.is_empty() {
            delta.reasoning_content
        } else {
            delta.reasoning
        };
        let some = |text: Text| Some(text.0).filter(|text| !text.is_empty());
        chunks.extend(some(thinking).map(Chunk::Thinking));
        chunks.extend(some(delta.content).map(Chunk::Text));
        chunks.extend(some(delta.refusal).map(Chunk::Text));
        for part in delta.tool_calls.unwrap_or_default() {
            self.call(part);
        }
    }

    /// Adds a part to the call it belongs to: by index, else by id, else the last; a new id begins a new call.
    fn call(&mut self, part: CallPart<'_>) {
        let id = part.id.filter(|id| !id.is_empty());
        let is_same = |call: &&mut Call| match (part.index, &id) {
            (Some(_), _) => call.index == part.index,
            (None, Some(id)) => call.id.as_ref() == Some(id),
            (None, None) => true,
        };
        let found = self.calls.iter_mut().rev().find(is_same);
        let is_other = |call: &Call| id.is_some() && call.id.is_some() && call.id != id;
        let position = match found {
            Some(call) if !is_other(call) => call,
            _ => {
                let call = Call {
                    index: part.index,
                    id: None,
                    name: String::new(),
                    arguments: String::new(),
                };
                self.calls.push(call);
                let Some(call) = self.calls.last_mut() else {
                    return;
                };
                call
            }
        };
        position.id = position.id.take().or(id);
        let Some(function) = part.function else {
            return;
        };
        if let (true, Some(name)) = (position.name.is_empty(), function.name) {
            position.name = name;
        }
        if let Some(arguments) = function
            .arguments
            .map(RawValue::get)
            .filter(|arguments| *arguments != "null")
        {
            match serde_json::from_str::<String>(arguments) {
                Ok(text) => position.arguments.push_str(&text),
                Err(_) => position.arguments.push_str(arguments),
            }
        }
    }

    fn end_if_done(&mut self, chunks: &mut Vec<Chunk>) -> Result<(), ModelError> {
        if !self.done {
            return Ok(());
        }
        let called = !self.calls.is_empty();
        for call in self.calls.drain(..) {
            let id = call
                .id
                .unwrap_or_else(|| format!("call_{}", Uuid::new_v4().simple()));
            let arguments = if call.arguments.is_empty() {
                "{}".to_owned()
            } else {
                call.arguments
            };
            chunks.push(Chunk::ToolCall(ToolCall {
                id,
                name: call.name,
                arguments,
            }));
        }
        let finish = match self.finish {
            None | Some(FinishReason::Stop) if called => FinishReason::ToolCalls,
            finish => finish.unwrap_or(FinishReason::Stop),
        };
        chunks.push(Chunk::End {
            finish,
            usage: self.usage,
        });
        Ok(())
    }

    /// What an error frame means: an object, or a text.
    fn failure(&self, error: &str) -> ModelError {
        let lower = error.to_lowercase();
        match wire::verdict(error) {
            Some(verdict) => verdict,
            None if lower.contains("model_not_found") => ModelError::NotFound(self.model.clone()),
            None => ModelError::Failed(wire::brief(error)),
        }
    }
}

//! An answer in OpenAI's words: server-sent events, or one document where the server did not stream.

use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    domain::{FinishReason, Usage},
    llm::{
        chunk::{Chunk, ToolCall},
        error::ModelError,
        providers::{
            http, lenient_json,
            lines::{GoOn, MAX_LINE, too_long},
            openai::frame::{CallPart, Choice, Delta, Frame},
            response_stream::Parser,
            sse::Events,
        },
    },
};

/// Reads one answer.
pub(super) struct Answer {
    form: Form,
    state: State,
}

enum Form {
    /// Nothing but white space and a part of a byte order mark has been read.
    Unknown(Vec<u8>),
    Events(Events),
    /// One JSON document, kept until it is whole.
    Document(Vec<u8>),
}

struct State {
    model: String,
    finish: Option<FinishReason>,
    usage: Option<Usage>,
    calls: Vec<Call>,
    /// There was a choice, whatever it said.
    answered: bool,
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

impl Call {
    /// Whether its arguments are a whole object, to which nothing can be added.
    fn is_whole(&self) -> bool {
        self.arguments.trim_end().ends_with('}')
            && serde_json::from_str::<IgnoredAny>(&self.arguments).is_ok()
    }
}

impl Answer {
    pub(super) fn new(model: &str) -> Self {
        let state = State {
            model: model.to_owned(),
            finish: None,
            usage: None,
            calls: Vec::new(),
            answered: false,
            done: false,
        };
        Self {
            form: Form::Unknown(Vec::new()),
            state,
        }
    }
}

impl Parser for Answer {
    fn feed(&mut self, bytes: &[u8], chunks: &mut Vec<Chunk>) -> Result<(), ModelError> {
        if let Form::Unknown(beginning) = &mut self.form {
            beginning.extend_from_slice(bytes);
            let beginning = std::mem::take(beginning);
            // Wherever it is cut: white space and a mark before it are no part of an answer.
            let beginning =
                lenient_json::without_bom(beginning.trim_ascii_start()).trim_ascii_start();
            self.form = form(beginning);
            return match self.form {
                Form::Unknown(_) => Ok(()),
                _ => self.read(beginning, chunks),
            };
        }
        self.read(bytes, chunks)
    }

    fn finish(&mut self, chunks: &mut Vec<Chunk>) -> Result<(), ModelError> {
        let Self { form, state } = self;
        let rest = match form {
            Form::Unknown(_) => Ok(true),
            Form::Events(events) => {
                events.finish(|event| state.event(event.is_error, event.data, chunks))
            }
            Form::Document(document) => state.document(document, chunks),
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

impl Answer {
    fn read(&mut self, bytes: &[u8], chunks: &mut Vec<Chunk>) -> Result<(), ModelError> {
        let Self { form, state } = self;
        match form {
            Form::Unknown(_) => Ok(()),
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
}

/// What an answer that begins so is.
fn form(beginning: &[u8]) -> Form {
    match beginning {
        // A part of a byte order mark may become a whole one; what else is not told yet says nothing.
        rest @ ([] | [0xEF] | [0xEF, 0xBB]) => Form::Unknown(rest.to_vec()),
        // No line of an event stream begins so.
        [b'{' | b'[', ..] => Form::Document(Vec::new()),
        _ => Form::Events(Events::default()),
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
        let frame: Frame<'_> = lenient_json::object(json).map_err(|error| {
            ModelError::Failed(format!("a frame that is not understood: {error}"))
        })?;
        if let Some(words) = frame.failure() {
            let all = || String::from_utf8_lossy(json);
            return Err(self.failure(&words.map_or_else(all, Into::into)));
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
            self.answered = true;
            self.choice(choice, chunks)?;
        }
        Ok(true)
    }

    /// A whole answer: one that is there needs no word that it has ended.
    fn document(&mut self, json: &[u8], chunks: &mut Vec<Chunk>) -> Result<GoOn, ModelError> {
        let go_on = self.frame(lenient_json::without_bom(json.trim_ascii()), chunks)?;
        self.done = self.answered;
        Ok(go_on)
    }

    fn choice(
        &mut self,
        mut choice: Choice<'_>,
        chunks: &mut Vec<Chunk>,
    ) -> Result<(), ModelError> {
        if let Some(delta) = choice.added() {
            self.delta(delta, chunks);
        }
        let reason = choice.finish_reason.map(|reason| reason.to_lowercase());
        self.finish = match reason.as_deref() {
            None | Some("") => return Ok(()),
            Some("length" | "max_tokens" | "model_length") => Some(FinishReason::Length),
            Some("tool_calls" | "function_call") => Some(FinishReason::ToolCalls),
            Some("content_filter") => Some(FinishReason::ContentFilter),
            Some(reason @ ("error" | "abort")) => {
                return Err(ModelError::Failed(format!("it ended with `{reason}`")));
            }
            Some(_) => Some(FinishReason::Stop),
        };
        Ok(())
    }

    fn delta(&mut self, mut delta: Delta<'_>, chunks: &mut Vec<Chunk>) {
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        chunks.extend(some(delta.thoughts()).map(Chunk::Thinking));
        chunks.extend(some(delta.content.said).map(Chunk::Text));
        chunks.extend(some(delta.refusal.said).map(Chunk::Text));
        for part in delta.tool_calls.into_iter().flatten().flatten() {
            self.call(part);
        }
    }

    /// Adds a part to the call it belongs to: by index, else by id, else the last; or begins a new call with it.
    fn call(&mut self, part: CallPart<'_>) {
        let id = part.id.filter(|id| !id.is_empty());
        let names = part
            .function
            .as_ref()
            .and_then(|function| function.name.as_deref())
            .is_some_and(|name| !name.is_empty());
        let argues = part
            .function
            .as_ref()
            .and_then(|function| function.arguments)
            .is_some_and(|arguments| !matches!(arguments.get(), "null" | "\"\""));
        let is_same = |call: &&mut Call| match (part.index, &id) {
            (Some(_), _) => call.index == part.index,
            (None, Some(id)) => call.id.as_ref() == Some(id),
            (None, None) => true,
        };
        // Some servers give every call the index 0, or no call an index and an id.
        let is_other = |call: &Call| match &id {
            Some(id) => call.id.as_ref().is_some_and(|known| known != id),
            None if !names || call.name.is_empty() => false,
            None => part.index.is_none() || (argues && call.is_whole()),
        };
        let found = self.calls.iter_mut().rev().find(is_same);
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
        if self.calls.iter().any(|call| call.name.is_empty()) {
            return Err(ModelError::Failed("a tool call without a name".to_owned()));
        }
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
            // Nobody could call what is not there.
            Some(FinishReason::ToolCalls) if !called => FinishReason::Stop,
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
        match http::classify_error(error) {
            Some(classify_error) => classify_error,
            None if lower.contains("model_not_found") => ModelError::NotFound(self.model.clone()),
            None => ModelError::Failed(http::truncate(error)),
        }
    }
}

//! An answer in Ollama's words: one JSON object a line, complete only with `done: true`.

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    domain::{FinishReason, Usage},
    llm::{
        chunk::{Chunk, ToolCall},
        error::ModelError,
        providers::{
            http,
            lenient_json::{self, or_none, tokens_or_none},
            lines::{GoOn, Lines},
            response_stream::Parser,
        },
        request::ChatRequest,
    },
};

/// Reads the lines of one answer.
pub(super) struct Answer {
    lines: Lines,
    state: State,
}

struct State {
    model: String,
    prompt_estimate: u32,
    called: bool,
    done: bool,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(default)]
    message: Option<Message<'a>>,
    #[serde(default)]
    done: Option<bool>,
    #[serde(default, deserialize_with = "or_none")]
    done_reason: Option<String>,
    #[serde(default, deserialize_with = "tokens_or_none")]
    prompt_eval_count: Option<u64>,
    #[serde(default, deserialize_with = "tokens_or_none")]
    eval_count: Option<u64>,
    #[serde(default, borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(default)]
    content: Option<String>,
    #[serde(default, deserialize_with = "or_none")]
    thinking: Option<String>,
    #[serde(default, borrow)]
    tool_calls: Option<Vec<Call<'a>>>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(default, deserialize_with = "or_none")]
    id: Option<String>,
    #[serde(borrow)]
    function: Function<'a>,
}

#[derive(Deserialize)]
struct Function<'a> {
    name: String,
    #[serde(default, borrow)]
    arguments: Option<&'a RawValue>,
}

impl Function<'_> {
    /// The arguments as text; some servers send them as a text already.
    fn arguments(&self) -> String {
        let raw = self.arguments.map_or("", RawValue::get);
        let text = serde_json::from_str::<String>(raw).unwrap_or_else(|_| raw.to_owned());
        Some(text)
            .filter(|text| !text.is_empty())
            .unwrap_or_else(|| "{}".to_owned())
    }
}

impl Answer {
    pub(super) fn new(ask: &ChatRequest) -> Self {
        let (model, prompt_estimate) = (ask.model.clone(), ask.prompt_estimate);
        Self {
            lines: Lines::default(),
            state: State {
                model,
                prompt_estimate,
                called: false,
                done: false,
            },
        }
    }
}

impl Parser for Answer {
    fn feed(&mut self, bytes: &[u8], chunks: &mut Vec<Chunk>) -> Result<(), ModelError> {
        let Self { lines, state } = self;
        lines.feed(bytes, |line| state.line(line, chunks)).map(drop)
    }

    fn finish(&mut self, chunks: &mut Vec<Chunk>) -> Result<(), ModelError> {
        let Self { lines, state } = self;
        lines.finish(|line| state.line(line, chunks))?;
        if state.done {
            Ok(())
        } else {
            Err(ModelError::Failed(
                "cut off: the stream ended before `done`".to_owned(),
            ))
        }
    }

    fn is_whole(&self) -> bool {
        self.state.done
    }
}

impl State {
    fn line(&mut self, line: &[u8], chunks: &mut Vec<Chunk>) -> Result<GoOn, ModelError> {
        let line: Line<'_> = lenient_json::object(line).map_err(|error| {
            ModelError::Failed(format!("a line that is not understood: {error}"))
        })?;
        if let Some(error) = line.error.filter(|error| lenient_json::says(error)) {
            return Err(self.failure(error.get()));
        }
        if let Some(message) = line.message {
            self.message(message, chunks);
        }
        if line.done != Some(true) {
            return Ok(true);
        }
        self.done = true;
        let finish = match line.done_reason.as_deref() {
            Some(reason @ ("load" | "unload")) => {
                return Err(ModelError::Failed(format!(
                    "it ended with `{reason}` and answered nothing"
                )));
            }
            Some("length") => FinishReason::Length,
            _ if self.called => FinishReason::ToolCalls,
            _ => FinishReason::Stop,
        };
        chunks.push(Chunk::End {
            finish,
            usage: self.usage(line.prompt_eval_count, line.eval_count),
        });
        Ok(false)
    }

    fn message(&mut self, message: Message<'_>, chunks: &mut Vec<Chunk>) {
        chunks.extend(
            message
                .thinking
                .filter(|text| !text.is_empty())
                .map(Chunk::Thinking),
        );
        chunks.extend(
            message
                .content
                .filter(|text| !text.is_empty())
                .map(Chunk::Text),
        );
        for call in message.tool_calls.unwrap_or_default() {
            self.called = true;
            let id = call
                .id
                .filter(|id| !id.is_empty())
                .unwrap_or_else(|| format!("call_{}", Uuid::new_v4().simple()));
            chunks.push(Chunk::ToolCall(ToolCall {
                id,
                arguments: call.function.arguments(),
                name: call.function.name,
            }));
        }
    }

    /// A count of zero is absent: of the prompt it means that it was cached, of the answer that it is empty.
    fn usage(&self, prompt: Option<u64>, answer: Option<u64>) -> Option<Usage> {
        (prompt.is_some() || answer.is_some()).then(|| Usage {
            prompt_tokens: prompt.unwrap_or_else(|| self.prompt_estimate.into()),
            completion_tokens: answer.unwrap_or(0),
        })
    }

    /// The error of a line: text, a JSON document in a text, or an object.
    fn failure(&self, error: &str) -> ModelError {
        let lower = error.to_lowercase();
        match http::classify_error(error) {
            Some(classify_error) => classify_error,
            None if lower.contains("model") && lower.contains("not found") => {
                ModelError::NotFound(self.model.clone())
            }
            None => ModelError::Failed(http::truncate(error)),
        }
    }
}

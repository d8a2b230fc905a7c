//! The answer of a completion in chunks, as OpenAI's SDKs read a stream.

use common::clock;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::openai::response::{Tokens, ToolCallObject, finish_word, new_id},
    llm::Chunk,
};

/// A piece of a streamed answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatCompletionChunk<'a> {
    id: &'a str,
    object: &'static str,
    /// Unix seconds.
    created: i64,
    model: &'a str,
    choices: &'a [ChunkChoice<'a>],
    /// Present where `stream_options.include_usage` asked for it; null on all chunks but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Tokens>>,
}

/// What a chunk adds.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChunkChoice<'a> {
    index: u32,
    delta: ChunkDelta<'a>,
    #[schema(value_type = Option<Object>)]
    logprobs: (),
    /// Null until the last.
    finish_reason: Option<&'static str>,
}

/// What is added.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct ChunkDelta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[ToolCallObject; 1]>,
}

/// Writes the parts of a completion as `data:` lines.
#[derive(Debug)]
pub struct ChunkWriter {
    id: String,
    created: i64,
    model: String,
    with_usage: bool,
    calls: usize,
}

impl ChunkWriter {
    /// Writes for one answer; `with_usage` as `stream_options.include_usage` asked.
    pub fn new(with_usage: bool) -> Self {
        Self {
            id: new_id(),
            created: clock::now_s(),
            model: String::new(),
            with_usage,
            calls: 0,
        }
    }

    /// Appends what a part says; whether it was the last.
    pub fn write(&mut self, chunk: Chunk, out: &mut String) -> bool {
        match chunk {
            Chunk::Queued { .. } => {}
            Chunk::Started { model, .. } => {
                self.model = model;
                let delta = ChunkDelta {
                    role: Some("assistant"),
                    content: Some(""),
                    ..ChunkDelta::default()
                };
                self.chunk(delta, None, out);
            }
            Chunk::Thinking(text) => {
                let delta = ChunkDelta {
                    reasoning_content: Some(&text),
                    ..ChunkDelta::default()
                };
                self.chunk(delta, None, out);
            }
            Chunk::Text(text) => {
                let delta = ChunkDelta {
                    content: Some(&text),
                    ..ChunkDelta::default()
                };
                self.chunk(delta, None, out);
            }
            Chunk::ToolCall(call) => {
                let delta = ChunkDelta {
                    tool_calls: Some([ToolCallObject::new(call, Some(self.calls))]),
                    ..ChunkDelta::default()
                };
                self.calls += 1;
                self.chunk(delta, None, out);
            }
            Chunk::End { finish, usage } => {
                self.chunk(ChunkDelta::default(), Some(finish_word(finish)), out);
                if self.with_usage {
                    self.line(&[], Some(usage.unwrap_or_default().into()), out);
                }
                out.push_str("data: [DONE]\n\n");
                return true;
            }
        }
        false
    }

    fn chunk(&self, delta: ChunkDelta<'_>, finish_reason: Option<&'static str>, out: &mut String) {
        let choice = ChunkChoice {
            index: 0,
            delta,
            logprobs: (),
            finish_reason,
        };
        self.line(&[choice], None, out);
    }

    fn line(&self, choices: &[ChunkChoice<'_>], usage: Option<Tokens>, out: &mut String) {
        let chunk = ChatCompletionChunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            choices,
            usage: self.with_usage.then_some(usage),
        };
        data(&chunk, out);
    }
}

/// Appends a value as a `data:` line. These are made of strings and numbers: writing them cannot fail.
pub fn data<T: Serialize>(value: &T, out: &mut String) {
    out.push_str("data: ");
    out.push_str(&serde_json::to_string(value).unwrap_or_default());
    out.push_str("\n\n");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        domain::{FinishReason, Usage},
        http::openai::response::CompletionCollector,
        llm::ToolCall,
    };

    fn call(name: &str) -> Chunk {
        Chunk::ToolCall(ToolCall {
            id: format!("call_{name}"),
            name: name.to_owned(),
            arguments: "{}".to_owned(),
        })
    }

    fn end(finish: FinishReason) -> Chunk {
        Chunk::End {
            finish,
            usage: Some(Usage {
                prompt_tokens: 2,
                completion_tokens: 3,
            }),
        }
    }

    #[test]
    fn tool_calls_are_counted_through_and_text_is_null_beside_them() {
        let (mut chunks, mut out) = (ChunkWriter::new(true), String::new());
        let mut whole = CompletionCollector::default();
        let parts = [call("a"), call("b"), end(FinishReason::ToolCalls)];
        let answers: Vec<_> = parts
            .into_iter()
            .filter_map(|part| {
                chunks.write(part.clone(), &mut out);
                whole.take(part)
            })
            .collect();
        let lines: Vec<Value> = out
            .lines()
            .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
            .collect();
        assert_eq!(
            lines[1]["choices"][0]["delta"]["tool_calls"][0]["index"],
            json!(1)
        );
        assert_eq!(lines[2]["choices"][0]["delta"], json!({}));
        assert_eq!(lines[3]["choices"], json!([]));
        assert_eq!(lines[3]["usage"]["total_tokens"], json!(5));
        let answer = json!(answers[0]);
        assert_eq!(answer["choices"][0]["message"]["content"], Value::Null);
        assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
        assert!(
            answer["choices"][0]["message"]["tool_calls"][0]
                .get("index")
                .is_none()
        );
    }
}

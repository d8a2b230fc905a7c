//! The answer of a completion in chunks, as OpenAI's SDKs read a stream.

use common::{clock, errors::ApiError};
use serde::Serialize;

use crate::http::{
    inference::{AnswerEnd, AnswerItem, CollectedAnswer, StreamWriter, sse::write_data},
    openai::{
        error::{self, OF_COMPLETIONS},
        response::{ChatCompletion, Tokens, ToolCallObject, finish_word, new_id},
    },
};

const DONE: &str = "data: [DONE]\n\n";

#[derive(Clone, Debug, Serialize)]
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

#[derive(Clone, Debug, Serialize)]
pub struct ChunkChoice<'a> {
    index: u32,
    delta: ChunkDelta<'a>,
    logprobs: (),
    /// Null until the last.
    finish_reason: Option<&'static str>,
}

#[derive(Clone, Debug, Default, Serialize)]
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
        Self { id: new_id(), created: clock::now_s(), model: String::new(), with_usage, calls: 0 }
    }

    fn chunk(&self, delta: ChunkDelta<'_>, finish_reason: Option<&'static str>, out: &mut String) {
        let choice = ChunkChoice { index: 0, delta, logprobs: (), finish_reason };
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
        write_data(&chunk, out);
    }
}

impl StreamWriter for ChunkWriter {
    fn whole(self, answer: CollectedAnswer) -> impl Serialize {
        ChatCompletion::from(answer)
    }

    fn started(&mut self, model: String, out: &mut String) {
        self.model = model;
        let delta =
            ChunkDelta { role: Some("assistant"), content: Some(""), ..ChunkDelta::default() };
        self.chunk(delta, None, out);
    }

    fn grow(&mut self, piece: &AnswerItem, out: &mut String) {
        let mut delta = ChunkDelta::default();
        match piece {
            AnswerItem::Thinking(text) => delta.reasoning_content = Some(text),
            AnswerItem::Text(text) => delta.content = Some(text),
            AnswerItem::ToolCall(call) => {
                delta.tool_calls = Some([ToolCallObject::new(call.clone(), Some(self.calls))]);
                self.calls += 1;
            }
        }
        self.chunk(delta, None, out);
    }

    fn finish(&mut self, end: AnswerEnd, out: &mut String) {
        self.chunk(ChunkDelta::default(), Some(finish_word(end.finish)), out);
        if self.with_usage {
            self.line(&[], Some(Tokens::from(&end)), out);
        }
        out.push_str(DONE);
    }

    /// A comment without an empty line after it, which some readers would take for an event.
    fn keep_alive(&self, out: &mut String) {
        out.push_str(": ping\n");
    }

    fn fail(&mut self, error: &ApiError, out: &mut String) {
        write_data(&error::body(error.code, &error.detail, &error.errors, OF_COMPLETIONS), out);
        out.push_str(DONE);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        domain::{FinishReason, Usage},
        http::inference::stream::ItemStream,
        llm::{Chunk, ToolCall, UsageDetails},
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
            usage: Some(Usage { prompt_tokens: 2, completion_tokens: 3 }),
            details: UsageDetails {
                cached_tokens: 1,
                reasoning_tokens: Some(2),
                ..UsageDetails::default()
            },
            stop_sequence: None,
        }
    }

    #[test]
    fn tool_calls_are_counted_through_and_text_is_null_beside_them() {
        let (mut chunks, mut out) = (ItemStream::new(ChunkWriter::new(true)), String::new());
        let mut whole = CollectedAnswer::default();
        let parts = [call("a"), call("b"), end(FinishReason::ToolCalls)];
        for part in parts {
            chunks.write(part.clone(), &mut out);
            whole.take(part);
        }
        let lines: Vec<Value> = out
            .lines()
            .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
            .collect();
        assert_eq!(lines[1]["choices"][0]["delta"]["tool_calls"][0]["index"], json!(1));
        assert_eq!(lines[2]["choices"][0]["delta"], json!({}));
        assert_eq!(lines[3]["choices"], json!([]));
        assert_eq!(lines[3]["usage"]["total_tokens"], json!(5));
        assert_eq!(lines[3]["usage"]["prompt_tokens_details"]["cached_tokens"], json!(1));
        let answer = json!(ChatCompletion::from(whole));
        for usage in [&lines[3]["usage"], &answer["usage"]] {
            assert_eq!(usage["completion_tokens_details"], json!({ "reasoning_tokens": 2 }));
        }
        assert_eq!(answer["choices"][0]["message"]["content"], Value::Null);
        assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
        assert!(answer["choices"][0]["message"]["tool_calls"][0].get("index").is_none());
    }
}

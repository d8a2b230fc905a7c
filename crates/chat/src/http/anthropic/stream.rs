//! The answer in events, as Anthropic's SDKs read a stream.

use std::sync::Arc;

use common::errors::ApiError;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    domain::Usage,
    http::{
        anthropic::{
            error,
            response::{SIGNATURE, begun, block, message, stop, usage},
        },
        inference::{
            AnswerEnd, AnswerItem, CollectedAnswer, StreamWriter,
            content::arguments,
            sse::{write_event, write_typed_event},
        },
    },
};

/// Writes the items of an answer as content blocks.
#[derive(Debug)]
pub(super) struct EventWriter {
    message: Value,
    request_id: Arc<str>,
    /// The number of blocks that have ended.
    ended: usize,
    has_calls: bool,
}

impl EventWriter {
    pub(super) fn new(model: &str, prompt_tokens: u64, request_id: Arc<str>) -> Self {
        let usage = usage(Usage { prompt_tokens, completion_tokens: 0 }, 0);
        Self { message: begun(model, usage), request_id, ended: 0, has_calls: false }
    }

    fn delta(&self, kind: &str, member: &str, text: &str, out: &mut String) {
        let grown = json!({ "index": self.ended, "delta": { "type": kind, (member): text } });
        write_typed_event("content_block_delta", grown, out);
    }
}

impl StreamWriter for EventWriter {
    fn open(&mut self, out: &mut String) {
        write_typed_event("message_start", json!({ "message": self.message }), out);
    }

    fn whole(self, answer: CollectedAnswer) -> impl Serialize {
        message(&answer)
    }

    fn begin(&mut self, item: &AnswerItem, out: &mut String) {
        let started = json!({ "index": self.ended, "content_block": block(item, None) });
        write_typed_event("content_block_start", started, out);
    }

    fn grow(&mut self, piece: &AnswerItem, out: &mut String) {
        match piece {
            AnswerItem::Thinking(text) => self.delta("thinking_delta", "thinking", text, out),
            AnswerItem::Text(text) => self.delta("text_delta", "text", text, out),
            AnswerItem::ToolCall(_) => self.has_calls = true,
        }
    }

    fn end(&mut self, item: &AnswerItem, is_complete: bool, out: &mut String) {
        match item {
            AnswerItem::Text(_) => {}
            AnswerItem::Thinking(_) => self.delta("signature_delta", "signature", SIGNATURE, out),
            AnswerItem::ToolCall(call) => {
                // SDKs fail at the end of a block that is no JSON, unless it is the beginning of some.
                let broken = arguments(call).err().filter(|_| is_complete).map(|it| it.to_string());
                let json = broken.as_ref().unwrap_or(&call.arguments);
                self.delta("input_json_delta", "partial_json", json, out);
            }
        }
        write_typed_event("content_block_stop", json!({ "index": self.ended }), out);
        self.ended += 1;
    }

    fn finish(&mut self, end: AnswerEnd, out: &mut String) {
        let (delta, usage) =
            (stop(&end, self.has_calls), usage(end.usage, end.details.cached_tokens));
        write_typed_event("message_delta", json!({ "delta": delta, "usage": usage }), out);
        write_typed_event("message_stop", json!({}), out);
    }

    fn keep_alive(&self, out: &mut String) {
        write_typed_event("ping", json!({}), out);
    }

    fn fail(&mut self, error: &ApiError, out: &mut String) {
        let body = error::body(error.code, &error.detail, &error.errors, &self.request_id);
        write_event("error", &body, out);
    }
}

#[cfg(test)]
mod tests {
    use common::errors::Code;

    use super::*;
    use crate::{
        domain::FinishReason,
        http::inference::stream::ItemStream,
        llm::{Chunk, ToolCall, UsageDetails},
    };

    fn call(name: &str, arguments: &str) -> Chunk {
        Chunk::ToolCall(ToolCall {
            id: format!("call_{name}"),
            name: name.to_owned(),
            arguments: arguments.to_owned(),
        })
    }

    fn end(finish: FinishReason) -> Chunk {
        let usage = Usage { prompt_tokens: 9, completion_tokens: 3 };
        let details = UsageDetails { cached_tokens: 9, ..UsageDetails::default() };
        Chunk::End { finish, usage: Some(usage), details, stop_sequence: None }
    }

    /// The same chunks as a stream and as a whole answer.
    fn answers(chunks: Vec<Chunk>) -> (Vec<Value>, Value) {
        let (mut out, mut whole) = (String::new(), CollectedAnswer::default());
        let mut writer = ItemStream::new(EventWriter::new("m", 7, "r1".into()));
        writer.writer.open(&mut out);
        for chunk in chunks {
            writer.writer.keep_alive(&mut out);
            let is_last = writer.write(chunk.clone(), &mut out);
            assert_eq!(whole.take(chunk), is_last);
        }
        let events = out.split_terminator("\n\n").map(|event| {
            let (name, data) = event.split_once('\n').unwrap();
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(Some(data["type"].as_str().unwrap()), name.strip_prefix("event: "));
            data
        });
        let events = events.filter(|event| event["type"] != "ping").collect();
        (events, message(&whole))
    }

    #[test]
    fn a_block_ends_before_another_begins() {
        let (events, whole) = answers(vec![
            Chunk::Thinking("Hm".into()),
            Chunk::Thinking(".".into()),
            Chunk::Text("Yes".into()),
            call("f", r#"{"a":1}"#),
            call("g", "{}"),
            end(FinishReason::Stop),
        ]);
        let brief = |event: &Value| {
            let kind = event["content_block"]["type"].as_str().or(event["delta"]["type"].as_str());
            let of = event["type"].as_str().unwrap().trim_start_matches("content_block_");
            format!("{of} {} {}", event["index"], kind.unwrap_or_default())
        };
        let wanted = [
            "message_start null ",
            "start 0 thinking",
            "delta 0 thinking_delta",
            "delta 0 thinking_delta",
            "delta 0 signature_delta",
            "stop 0 ",
            "start 1 text",
            "delta 1 text_delta",
            "stop 1 ",
            "start 2 tool_use",
            "delta 2 input_json_delta",
            "stop 2 ",
            "start 3 tool_use",
            "delta 3 input_json_delta",
            "stop 3 ",
            "message_delta null ",
            "message_stop null ",
        ];
        assert_eq!(events.iter().map(brief).collect::<Vec<_>>(), wanted);
        let start = &events[0]["message"];
        assert_eq!((&start["usage"]["input_tokens"], &start["content"]), (&json!(7), &json!([])));
        assert_eq!(events[9]["content_block"]["input"], json!({}));
        let last = &events[15];
        assert_eq!(last["delta"]["stop_reason"], "tool_use", "whatever the server calls it");
        let usage = &last["usage"];
        assert_eq!(
            (&usage["input_tokens"], &usage["cache_read_input_tokens"]),
            (&json!(1), &json!(8))
        );
        let kinds: Vec<_> =
            whole["content"].as_array().unwrap().iter().map(|block| &block["type"]).collect();
        assert_eq!(kinds, ["thinking", "text", "tool_use", "tool_use"]);
        assert_eq!(whole["content"][2]["input"], json!({ "a": 1 }));
        assert_eq!((&whole["stop_reason"], &whole["usage"]), (&json!("tool_use"), usage));
    }

    #[test]
    fn every_end_has_its_reason() {
        for (finish, reason) in [
            (FinishReason::Stop, "end_turn"),
            (FinishReason::Length, "max_tokens"),
            (FinishReason::ContentFilter, "refusal"),
        ] {
            let (events, whole) = answers(vec![end(finish)]);
            assert_eq!(events[1]["delta"]["stop_reason"], reason);
            assert_eq!((&whole["stop_reason"], &whole["content"]), (&json!(reason), &json!([])));
        }
        let stopped = |finish| Chunk::End {
            finish,
            usage: None,
            details: UsageDetails::default(),
            stop_sequence: Some("END".to_owned()),
        };
        let (events, whole) = answers(vec![stopped(FinishReason::Stop)]);
        for told in [&events[1]["delta"], &whole] {
            let stop = (&told["stop_reason"], &told["stop_sequence"]);
            assert_eq!(stop, (&json!("stop_sequence"), &json!("END")));
        }
        let (_, whole) = answers(vec![call("f", "{}"), stopped(FinishReason::Stop)]);
        let stop = (&whole["stop_reason"], &whole["stop_sequence"]);
        assert_eq!(stop, (&json!("tool_use"), &Value::Null));
    }

    #[test]
    fn broken_arguments_are_shown_unless_the_answer_was_cut_in_them() {
        let cut = r#"{"city": "Par"#;
        let invalid = json!({ "INVALID_JSON": cut });
        for (finish, input, delta) in [
            (FinishReason::Length, json!({}), cut.to_owned()),
            (FinishReason::ToolCalls, invalid.clone(), invalid.to_string()),
        ] {
            let (events, whole) = answers(vec![call("f", "{}"), call("g", cut), end(finish)]);
            assert_eq!(whole["content"][1]["input"], input);
            let deltas: Vec<_> =
                events.iter().filter_map(|event| event["delta"]["partial_json"].as_str()).collect();
            assert_eq!(deltas, ["{}", &delta]);
        }
        let (_, whole) = answers(vec![call("f", "[1]"), end(FinishReason::Stop)]);
        assert_eq!(whole["content"][0]["input"], json!({ "INVALID_JSON": "[1]" }));
    }

    #[test]
    fn a_failure_in_mid_stream_is_an_event() {
        let (mut out, error) = (String::new(), ApiError::new(Code::QueueFull, "Wait."));
        EventWriter::new("m", 7, "r1".into()).fail(&error, &mut out);
        let data = out.strip_prefix("event: error\ndata: ").unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(data).unwrap(),
            json!({ "type": "error", "request_id": "r1",
            "error": { "type": "overloaded_error", "message": "Wait.", "code": "queue_full" } })
        );
    }
}

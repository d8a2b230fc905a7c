//! An answer in lines of JSON, or as one document.

use std::{slice, time::Instant};

use axum::http::HeaderValue;
use common::{clock, errors::ApiError};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    domain::FinishReason,
    http::{
        inference::{
            AnswerEnd, AnswerItem, CollectedAnswer, StreamWriter, collected_answer::merged,
            content::arguments,
        },
        ollama::ErrorText,
    },
    llm::ToolCall,
};

/// Writes the answer to one request: of `/api/chat`, or of `/api/generate`.
#[derive(Debug)]
pub(super) struct AnswerWriter {
    is_chat: bool,
    model: String,
    started: Instant,
    first_token: Option<Instant>,
    calls: usize,
}

impl AnswerWriter {
    pub(super) fn new(is_chat: bool, model: String) -> Self {
        Self { is_chat, model, started: Instant::now(), first_token: None, calls: 0 }
    }

    /// The answer to a request to load the model, or to unload it, which is done for no caller.
    pub(super) fn loaded(mut self, unloads: bool) -> Value {
        let mut document = self.document("", "", &[]);
        document["done"] = true.into();
        document["done_reason"] = if unloads { "unload" } else { "load" }.into();
        document
    }

    fn document(&mut self, text: &str, thinking: &str, calls: &[ToolCall]) -> Value {
        let mut document = json!({
            "model": self.model,
            "created_at": clock::rfc3339(clock::now_ms()),
        });
        let mut said = Map::new();
        if self.is_chat {
            said.insert("role".to_owned(), "assistant".into());
        }
        let name = if self.is_chat { "content" } else { "response" };
        said.insert(name.to_owned(), text.into());
        if !thinking.is_empty() {
            said.insert("thinking".to_owned(), thinking.into());
        }
        if !calls.is_empty() {
            let calls: Vec<_> = calls.iter().map(|call| self.call(call)).collect();
            said.insert("tool_calls".to_owned(), calls.into());
        }
        match &mut document {
            Value::Object(members) if !self.is_chat => members.extend(said),
            _ => document["message"] = said.into(),
        }
        document["done"] = false.into();
        document
    }

    fn call(&mut self, call: &ToolCall) -> Value {
        let (Ok(arguments) | Err(arguments)) = arguments(call);
        let function = json!({ "index": self.calls, "name": call.name, "arguments": arguments });
        self.calls += 1;
        json!({ "id": call.id, "function": function })
    }

    /// Adds why it ended and what it cost. A tool call ends with `stop` as well. Where the server does not tell how
    /// long it took, all before the first token counts for the prompt.
    fn finished(&self, mut document: Value, end: &AnswerEnd) -> Value {
        let nanos = |from, to: Instant| {
            u64::try_from(to.duration_since(from).as_nanos()).unwrap_or(u64::MAX)
        };
        let now = Instant::now();
        let first = self.first_token.unwrap_or(now);
        let measured = || [0, nanos(self.started, first), nanos(first, now)];
        let [load, prompt, answer] = end.details.durations.unwrap_or_else(measured);
        document["done"] = true.into();
        document["done_reason"] = match end.finish {
            FinishReason::Length => "length",
            FinishReason::ContentFilter => "content_filter",
            _ => "stop",
        }
        .into();
        for (name, number) in [
            ("total_duration", nanos(self.started, now)),
            ("load_duration", load),
            ("prompt_eval_count", end.usage.prompt_tokens),
            ("prompt_eval_cached_count", end.details.cached_tokens),
            ("prompt_eval_duration", prompt),
            ("eval_count", end.usage.completion_tokens),
            ("eval_duration", answer),
        ] {
            // Clients divide by durations.
            let least = u64::from(name.ends_with("duration"));
            document[name] = number.max(least).into();
        }
        document
    }
}

impl StreamWriter for AnswerWriter {
    const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/x-ndjson");

    fn whole(mut self, answer: CollectedAnswer) -> impl Serialize {
        self.first_token = answer.first_token;
        let (text, thoughts, calls) = merged(answer.items);
        let document = self.document(&text, &thoughts, &calls);
        self.finished(document, &answer.end)
    }

    fn started(&mut self, _model: String, _out: &mut String) {
        self.first_token = Some(Instant::now());
    }

    fn grow(&mut self, piece: &AnswerItem, out: &mut String) {
        let line = match piece {
            AnswerItem::Thinking(text) => self.document("", text, &[]),
            AnswerItem::Text(text) => self.document(text, "", &[]),
            AnswerItem::ToolCall(call) => self.document("", "", slice::from_ref(call)),
        };
        write_line(&line, out);
    }

    fn finish(&mut self, end: AnswerEnd, out: &mut String) {
        let line = self.document("", "", &[]);
        write_line(&self.finished(line, &end), out);
    }

    /// Clients take every line for a part of the answer, so there is none.
    fn keep_alive(&self, _out: &mut String) {}

    fn fail(&mut self, error: &ApiError, out: &mut String) {
        write_line(&json!(ErrorText::new(&error.detail, &error.errors)), out);
    }
}

fn write_line(line: &Value, out: &mut String) {
    out.push_str(&format!("{line}\n"));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::{
        domain::Usage,
        http::inference::stream::ItemStream,
        llm::{Chunk, UsageDetails},
    };

    fn end(finish: FinishReason) -> Chunk {
        Chunk::End {
            finish,
            usage: Some(Usage { prompt_tokens: 2, completion_tokens: 3 }),
            details: UsageDetails { cached_tokens: 1, ..UsageDetails::default() },
            stop_sequence: None,
        }
    }

    fn lines(is_chat: bool, chunks: Vec<Chunk>) -> Vec<Value> {
        let writer = AnswerWriter::new(is_chat, "m".to_owned());
        let (mut writer, mut out) = (ItemStream::new(writer), String::new());
        let last = chunks.into_iter().map(|chunk| writer.write(chunk, &mut out)).last();
        assert_eq!(last, Some(true));
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_chat_streams_messages_and_ends_with_counts() {
        let call = ToolCall {
            id: "c".to_owned(),
            name: "f".to_owned(),
            arguments: r#"{"a":1}"#.to_owned(),
        };
        let chunks = vec![
            Chunk::Thinking("Hm.".to_owned()),
            Chunk::Text("Yes.".to_owned()),
            Chunk::ToolCall(call.clone()),
            Chunk::ToolCall(call),
            end(FinishReason::ToolCalls),
        ];
        let lines = lines(true, chunks);
        assert_eq!(
            lines[0]["message"],
            json!({ "role": "assistant", "content": "", "thinking": "Hm." })
        );
        assert_eq!(lines[1]["message"], json!({ "role": "assistant", "content": "Yes." }));
        let function = json!({ "index": 1, "name": "f", "arguments": { "a": 1 } });
        assert_eq!(
            lines[3]["message"]["tool_calls"][0],
            json!({ "id": "c", "function": function })
        );
        let last = &lines[4];
        assert_eq!((&last["done"], &last["done_reason"]), (&json!(true), &json!("stop")));
        let counts = ["prompt_eval_count", "prompt_eval_cached_count", "eval_count"];
        assert_eq!(counts.map(|name| &last[name]), [&json!(2), &json!(1), &json!(3)]);
        let names = ["total_duration", "load_duration", "prompt_eval_duration", "eval_duration"];
        assert!(names.iter().all(|name| last[*name].as_u64().is_some_and(|nanos| nanos > 0)));
        assert_eq!(lines[0].get("done_reason"), None);
    }

    #[test]
    fn arguments_that_are_no_object_are_shown() {
        for (is_chat, broken) in [(true, r#"{"x":"#), (false, "[1]")] {
            let (id, name) = ("c".to_owned(), "f".to_owned());
            let call = ToolCall { id, name, arguments: broken.to_owned() };
            let chunks = vec![Chunk::ToolCall(call), end(FinishReason::ToolCalls)];
            let line = lines(is_chat, chunks).remove(0);
            let said = if is_chat { &line["message"] } else { &line };
            let arguments = &said["tool_calls"][0]["function"]["arguments"];
            assert_eq!(arguments, &json!({ "INVALID_JSON": broken }));
        }
    }

    #[test]
    fn generate_streams_texts_and_a_failure_is_a_line() {
        let chunks = vec![Chunk::Text("a".to_owned()), end(FinishReason::Length)];
        let lines = lines(false, chunks);
        assert_eq!((&lines[0]["response"], lines[0].get("message")), (&json!("a"), None));
        assert_eq!(lines[1]["done_reason"], "length");
        let withheld = self::lines(true, vec![end(FinishReason::ContentFilter)]);
        assert_eq!(withheld[0]["done_reason"], "content_filter");
        let mut out = String::new();
        let error = ApiError::new(common::errors::Code::LlmFailed, "It failed.");
        AnswerWriter::new(true, "m".to_owned()).fail(&error, &mut out);
        assert_eq!(out, "{\"error\":\"It failed.\"}\n");
    }

    #[test]
    fn times_are_the_generations_and_none_is_told_twice() {
        let now = Instant::now();
        let ago = |millis| now.checked_sub(Duration::from_millis(millis)).unwrap();
        let answered = |durations| {
            let (mut writer, mut answer) =
                (AnswerWriter::new(true, "m".to_owned()), CollectedAnswer::default());
            (writer.started, answer.first_token) = (ago(5000), Some(ago(2000)));
            answer.end.details.durations = durations;
            let whole = json!(writer.whole(answer));
            let names =
                ["total_duration", "load_duration", "prompt_eval_duration", "eval_duration"];
            names.map(|name| whole[name].as_u64().unwrap())
        };
        let [total, load, prompt, eval] = answered(None);
        assert!(total >= 5_000_000_000 && load == 1, "{total} {load}");
        assert_eq!(prompt, 3_000_000_000);
        assert!(eval >= 2_000_000_000, "{eval}");
        let told = answered(Some([0, 20, 30]));
        assert_eq!(told[1..], [1, 20, 30]);
    }

    #[test]
    fn a_whole_answer_holds_what_the_lines_would() {
        let answer = CollectedAnswer {
            items: vec![
                AnswerItem::Thinking("Hm.".to_owned()),
                AnswerItem::Text("Yes.".to_owned()),
            ],
            ..CollectedAnswer::default()
        };
        let whole = json!(AnswerWriter::new(false, "m".to_owned()).whole(answer));
        assert_eq!((&whole["response"], &whole["thinking"]), (&json!("Yes."), &json!("Hm.")));
        assert_eq!(whole["done"], true);
        let loaded = AnswerWriter::new(true, "m".to_owned()).loaded(true);
        assert_eq!(
            (&loaded["done_reason"], &loaded["message"]["content"]),
            (&json!("unload"), &json!(""))
        );
    }
}

//! The events of a response.

use common::errors::ApiError;
use serde::Serialize;
use serde_json::{Value, json};

use crate::http::{
    inference::{
        AnswerEnd, AnswerItem, CollectedAnswer, StreamWriter,
        sse::{write_event, write_typed_event},
    },
    openai::responses::object::{IN_PROGRESS, ResponseObject, new_id, part, usage},
};

/// Writes the events of one response. Their numbers count the events from 0.
pub(super) struct ResponseWriter {
    response: ResponseObject,
    next_number: u64,
    /// The id of the item that grows.
    item_id: String,
}

/// A piece of text or thoughts: the event that there are most of.
#[derive(Serialize)]
struct DeltaEvent<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    sequence_number: u64,
    item_id: &'a str,
    output_index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary_index: Option<u32>,
    delta: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<[(); 0]>,
}

/// The names of the events of an item's part and of its text, without their last word, and of the index of the part; `None` for
/// a call, which has none.
fn part_events(item: &AnswerItem) -> Option<[&'static str; 3]> {
    match item {
        AnswerItem::Thinking(_) => Some([
            "response.reasoning_summary_part",
            "response.reasoning_summary_text",
            "summary_index",
        ]),
        AnswerItem::Text(_) => {
            Some(["response.content_part", "response.output_text", "content_index"])
        }
        AnswerItem::ToolCall(_) => None,
    }
}

impl ResponseWriter {
    pub(super) fn new(response: ResponseObject) -> Self {
        Self { response, next_number: 0, item_id: String::new() }
    }

    /// Adds an item that has ended to the output.
    fn add(&mut self, item: &AnswerItem, is_complete: bool) {
        let id = std::mem::take(&mut self.item_id);
        let id = if id.is_empty() { new_id(item) } else { id };
        let status = if is_complete { "completed" } else { "incomplete" };
        self.response.output.push(self.response.item(&id, item, status));
    }

    /// Sets how the response ended; returns the name of the event that says so.
    fn complete(&mut self, end: &AnswerEnd) -> &'static str {
        if self.response.output.is_empty() {
            self.add(&AnswerItem::Text(String::new()), !end.finish.is_cut());
        }
        self.response.finish(end.finish, usage(end))
    }

    /// Appends an event, and its number to its members.
    fn event(&mut self, kind: &str, mut members: Value, out: &mut String) {
        members["sequence_number"] = self.next_number.into();
        self.next_number += 1;
        write_typed_event(kind, members, out);
    }

    fn lifecycle(&mut self, kind: &str, out: &mut String) {
        let response = json!({ "response": self.response });
        self.event(kind, response, out);
    }

    /// Appends an event of the item that grows, with these members.
    fn item_event(&mut self, kind: &str, mut members: Value, out: &mut String) {
        members["item_id"] = self.item_id.as_str().into();
        members["output_index"] = self.response.output.len().into();
        self.event(kind, members, out);
    }
}

impl StreamWriter for ResponseWriter {
    fn whole(mut self, answer: CollectedAnswer) -> impl Serialize {
        self.response.set("model", answer.model);
        for (i, item) in answer.items.iter().enumerate() {
            self.add(item, !answer.end.finish.is_cut() || i + 1 < answer.items.len());
        }
        self.complete(&answer.end);
        self.response
    }

    fn open(&mut self, out: &mut String) {
        self.lifecycle("response.created", out);
        self.lifecycle("response.in_progress", out);
    }

    fn started(&mut self, model: String, _out: &mut String) {
        self.response.set("model", model);
    }

    fn begin(&mut self, item: &AnswerItem, out: &mut String) {
        self.item_id = new_id(item);
        let begun = self.response.item(&self.item_id, item, IN_PROGRESS);
        let added = json!({ "output_index": self.response.output.len(), "item": begun });
        self.event("response.output_item.added", added, out);
        if let Some([part_event, _, index]) = part_events(item) {
            let added = json!({ index: 0, "part": part(item) });
            self.item_event(&format!("{part_event}.added"), added, out);
        }
    }

    fn grow(&mut self, piece: &AnswerItem, out: &mut String) {
        let (kind, text, is_text) = match piece {
            AnswerItem::Thinking(text) => ("response.reasoning_summary_text.delta", text, false),
            AnswerItem::Text(text) => ("response.output_text.delta", text, true),
            AnswerItem::ToolCall(call) => {
                let delta = json!({ "delta": call.arguments });
                return self.item_event("response.function_call_arguments.delta", delta, out);
            }
        };
        let event = DeltaEvent {
            kind,
            sequence_number: self.next_number,
            item_id: &self.item_id,
            output_index: self.response.output.len(),
            content_index: is_text.then_some(0),
            summary_index: (!is_text).then_some(0),
            delta: text,
            logprobs: is_text.then_some([]),
        };
        self.next_number += 1;
        write_event(kind, &event, out);
    }

    fn end(&mut self, item: &AnswerItem, is_complete: bool, out: &mut String) {
        if let Some([part_event, text_event, index]) = part_events(item) {
            let part = part(item);
            let mut done = json!({ index: 0, "text": part["text"] });
            if matches!(item, AnswerItem::Text(_)) {
                done["logprobs"] = json!([]);
            }
            self.item_event(&format!("{text_event}.done"), done, out);
            let done = json!({ index: 0, "part": part });
            self.item_event(&format!("{part_event}.done"), done, out);
        } else if let AnswerItem::ToolCall(call) = item {
            let done = json!({ "name": call.name, "arguments": call.arguments });
            self.item_event("response.function_call_arguments.done", done, out);
        }
        let index = self.response.output.len();
        self.add(item, is_complete);
        let done = json!({ "output_index": index, "item": self.response.output[index] });
        self.event("response.output_item.done", done, out);
    }

    fn finish(&mut self, end: AnswerEnd, out: &mut String) {
        if self.response.output.is_empty() {
            let empty = AnswerItem::Text(String::new());
            self.begin(&empty, out);
            self.end(&empty, !end.finish.is_cut(), out);
        }
        let kind = self.complete(&end);
        self.lifecycle(kind, out);
    }

    fn keep_alive(&self, out: &mut String) {
        out.push_str(": ping\n\n");
    }

    fn fail(&mut self, error: &ApiError, out: &mut String) {
        self.response.fail(error);
        self.lifecycle("response.failed", out);
    }
}

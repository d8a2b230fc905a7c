use serde_json::{Value, json};

use super::*;
use crate::{
    domain::{FinishReason, Usage},
    http::inference::{CollectedAnswer, StreamWriter as _, stream::ItemStream},
    llm::{Chunk, ToolCall, UsageDetails},
};

fn writer() -> ResponseWriter {
    ResponseWriter::new(ResponseObject::of(&CreateResponse::default()))
}

fn call() -> Chunk {
    let (id, name) = ("call_1".to_owned(), "weather".to_owned());
    Chunk::ToolCall(ToolCall { id, name, arguments: r#"{"city": "Par"#.to_owned() })
}

fn end(finish: FinishReason, reasoning_tokens: Option<u64>) -> Chunk {
    let usage = Some(Usage { prompt_tokens: 2, completion_tokens: 9 });
    let details =
        UsageDetails { reasoning_tokens, estimated_reasoning: 4, ..UsageDetails::default() };
    Chunk::End { finish, usage, details, stop_sequence: None }
}

/// What a stream of these chunks says: its last response, and the items as each was said to be done.
fn streamed(chunks: Vec<Chunk>, failure: Option<&ApiError>) -> (Value, Vec<Value>) {
    let (mut stream, mut out) = (ItemStream::new(writer()), String::new());
    stream.writer.open(&mut out);
    for chunk in chunks {
        stream.write(chunk, &mut out);
    }
    if let Some(failure) = failure {
        stream.fail(failure, &mut out);
    }
    let data = out.lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<Value> = data.map(|data| serde_json::from_str(data).unwrap()).collect();
    let done = events.iter().filter(|event| event["type"] == "response.output_item.done");
    let items = done.map(|event| event["item"].clone()).collect();
    (events.last().unwrap()["response"].clone(), items)
}

fn statuses(items: &Value) -> Vec<&str> {
    items.as_array().unwrap().iter().map(|item| item["status"].as_str().unwrap()).collect()
}

#[test]
fn the_item_in_which_an_answer_was_cut_is_incomplete() {
    let (thoughts, text) = (|| Chunk::Thinking("Hm.".to_owned()), || Chunk::Text("Yes".to_owned()));
    for (said, finish, wanted) in [
        (vec![thoughts(), text()], FinishReason::Length, vec!["completed", "incomplete"]),
        (vec![call(), call()], FinishReason::Length, vec!["completed", "incomplete"]),
        (vec![thoughts()], FinishReason::ContentFilter, vec!["incomplete"]),
        (vec![], FinishReason::Length, vec!["incomplete"]),
        (vec![text(), call()], FinishReason::ToolCalls, vec!["completed", "completed"]),
        (vec![text()], FinishReason::Stop, vec!["completed"]),
    ] {
        let chunks: Vec<_> = said.into_iter().chain([end(finish, None)]).collect();
        let mut answer = CollectedAnswer::default();
        for chunk in chunks.clone() {
            answer.take(chunk);
        }
        let whole = writer().whole(answer);
        let (last, done) = streamed(chunks, None);
        for response in [whole, last] {
            assert_eq!(statuses(&response["output"]), wanted);
            let is_cut = wanted.last() == Some(&"incomplete");
            assert_eq!(response["status"] == "incomplete", is_cut);
        }
        assert_eq!(statuses(&json!(done)), wanted);
    }
}

#[test]
fn the_item_in_which_an_answer_failed_is_incomplete() {
    let error = ApiError::new(Code::LlmFailed, "It failed.");
    let said = ["a", "b"].map(|text| Chunk::Text(text.to_owned())).to_vec();
    let (last, done) = streamed([vec![call()], said].concat(), Some(&error));
    assert_eq!(last["status"], "failed");
    assert_eq!(statuses(&last["output"]), ["completed", "incomplete"]);
    assert_eq!(statuses(&json!(done)), ["completed", "incomplete"]);
    assert_eq!(last["output"][1]["content"][0]["text"], "ab");
    let (last, _) = streamed(vec![call()], Some(&error));
    assert_eq!(statuses(&last["output"]), ["completed"], "a call comes whole");
}

#[test]
fn thoughts_are_counted_by_the_server_where_it_tells() {
    for (told, wanted) in [(Some(0), 0), (Some(7), 7), (None, 4)] {
        let (last, _) = streamed(vec![end(FinishReason::Stop, told)], None);
        let details = &last["usage"]["output_tokens_details"];
        assert_eq!(details["reasoning_tokens"], wanted);
    }
}

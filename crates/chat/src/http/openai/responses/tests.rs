use serde_json::{Value, json};

use super::*;
use crate::{
    domain::{FinishReason, Usage},
    http::inference::{CollectedAnswer, StreamWriter as _, stream::ItemStream},
    llm::{Chunk, PromptMessage, ToolCall, UsageDetails},
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
        let whole = json!(writer().whole(answer));
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

#[test]
fn thoughts_stay_where_they_were_and_add_up() {
    let said = |role: &str, text: &str| json!({ "role": role, "content": text });
    let thought = |text: &str| json!({ "type": "reasoning", "summary": [{ "text": text }] });
    let call = |id: &str| json!({ "type": "function_call", "call_id": id, "name": "f", "arguments": { "a": 1 } });
    let output =
        |id: &str| json!({ "type": "function_call_output", "call_id": id, "output": "42" });
    let roles_and_thoughts = |items: Vec<Value>| -> Vec<(String, Option<String>)> {
        let messages = input::messages(None, items.into()).unwrap();
        let thoughts = |message: &PromptMessage| {
            Some(message.extra.as_ref()?.get("reasoning_content")?.as_str()?.to_owned())
        };
        messages.iter().map(|message| (message.role.to_string(), thoughts(message))).collect()
    };
    let message =
        |role: &str, thoughts: Option<&str>| (role.to_owned(), thoughts.map(str::to_owned));
    let cut = vec![
        said("user", "q"),
        thought("old"),
        said("user", "q2"),
        thought("a"),
        thought("b"),
        said("assistant", "a2"),
        said("user", "q3"),
    ];
    let wanted = [
        message("user", None),
        message("assistant", Some("old")),
        message("user", None),
        message("assistant", Some("a\n\nb")),
        message("user", None),
    ];
    assert_eq!(roles_and_thoughts(cut), wanted);
    let called = vec![said("user", "q"), call("c"), thought("late"), output("c"), call("d")];
    let wanted = [
        message("user", None),
        message("assistant", None),
        message("tool", None),
        message("assistant", Some("late")),
    ];
    assert_eq!(roles_and_thoughts(called), wanted);
}

#[test]
fn arguments_of_a_call_are_a_text_or_an_object() {
    let arguments = |value: Value| {
        let call =
            json!({ "type": "function_call", "call_id": "c", "name": "f", "arguments": value });
        let messages = input::messages(None, json!([call]))?;
        let calls = messages[0].extra.as_ref().unwrap()["tool_calls"].clone();
        Ok::<_, ApiError>(calls[0]["function"]["arguments"].clone())
    };
    for given in [json!({ "a": 1 }), json!(r#"{"a":1}"#)] {
        assert_eq!(arguments(given).unwrap(), r#"{"a":1}"#);
    }
    assert_eq!(arguments(json!([1])).unwrap_err().errors[0].pointer, "/input/0/arguments");
}

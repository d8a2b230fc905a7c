//! What Claude Code and the SDKs send, and what becomes of it.

use common::errors::{ApiError, Code};
use serde_json::{Value, json};

use super::request::CreateMessage;
use crate::{domain::Think, generation::stateless::CompletionRequest, llm::PromptMessage};

fn checked(body: &Value) -> Result<CompletionRequest, ApiError> {
    let body: CreateMessage = common::errors::json::parse(body.to_string().as_bytes())?;
    body.checked()
}

fn recorded(name: &str) -> Value {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/clients")
        .join(name);
    let recorded: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    recorded["body"].clone()
}

fn said(messages: &[PromptMessage]) -> Vec<(&str, &str)> {
    let said = messages.iter();
    said.map(|message| (message.role.as_ref(), message.content.as_str())).collect()
}

fn prompt(messages: &Value) -> Vec<PromptMessage> {
    checked(&json!({ "messages": messages })).unwrap().messages
}

#[test]
fn the_prompt_of_claude_code_begins_with_what_stays_the_same() {
    let body = recorded("claude-1-print-turn.json");
    let first = checked(&body).unwrap();
    let [system, user] = &first.messages[..] else { panic!("{:?}", first.messages) };
    assert_eq!((system.role.as_ref(), user.role.as_ref()), ("system", "user"));
    assert!(system.content.starts_with("You are a Claude agent"));
    assert!(system.content.contains("# Environment"));
    assert!(user.content.ends_with("hi"), "the question comes last");
    assert_eq!(first.options.max_tokens, Some(32_000));
    assert_eq!(first.extra["reasoning_effort"], "high");
    let tools = first.extra["tools"].as_array().unwrap();
    assert_eq!(tools.len(), 12);
    assert_eq!(tools[1]["function"]["parameters"]["required"], json!(["command"]));
    let second = checked(&recorded("claude-2-after-tool-use.json")).unwrap();
    assert_eq!(second.messages[0].content, system.content, "whatever the billing header says");
    assert_eq!(second.extra["tools"][0]["function"]["name"], "Agent");
}

#[test]
fn a_tool_call_of_claude_code_and_its_result_are_found_again() {
    let second = checked(&recorded("claude-2-after-tool-use.json")).unwrap();
    let [_, _, call, result] = &second.messages[..] else { panic!("{:?}", second.messages) };
    let extra = call.extra.as_ref().unwrap();
    assert_eq!(
        extra["tool_calls"],
        json!([{ "id": "toolu_1", "type": "function", "function": { "name": "Bash",
            "arguments": r#"{"command":"echo tool-ran","description":"echo"}"# } }])
    );
    assert_eq!(extra["content"], Value::Null);
    assert_eq!((result.role.as_ref(), result.content.as_str()), ("tool", "tool-ran"));
    assert_eq!(result.extra.as_ref().unwrap()["tool_call_id"], "toolu_1");
}

#[test]
fn a_title_is_wanted_as_json_and_a_count_needs_no_length() {
    let title = checked(&recorded("claude-5-title.json")).unwrap();
    assert_eq!(title.extra.keys().collect::<Vec<_>>(), ["response_format"]);
    let schema = &title.extra["response_format"]["json_schema"]["schema"];
    assert_eq!(schema["required"], json!(["title"]));
    checked(&recorded("claude-6-count-tokens.json")).unwrap();
}

#[test]
fn consecutive_messages_of_the_user_are_one() {
    let messages = prompt(&json!([
        { "role": "user", "content": "a" },
        { "role": "user", "content": [{ "type": "text", "text": "b" }, { "type": "text", "text": "c" }] },
        { "role": "system", "content": "Be brief." },
        { "role": "assistant", "content": "d" },
        { "role": "system", "content": "Be briefer." },
        { "role": "user", "content": "e" },
    ]));
    let reminded = "<system-reminder>\nBe briefer.\n</system-reminder>\n\ne";
    assert_eq!(
        said(&messages),
        [("system", "Be brief."), ("user", "a\n\nbc"), ("assistant", "d"), ("user", reminded)]
    );
}

#[test]
fn results_follow_their_calls_whatever_stands_between_them() {
    let image = json!({ "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": "AAAA" } });
    let messages = prompt(&json!([
        { "role": "user", "content": "go" },
        { "role": "assistant", "content": [
            { "type": "thinking", "thinking": "Hm.", "signature": "x" },
            { "type": "redacted_thinking", "data": "x" },
            { "type": "tool_use", "id": "a", "name": "f", "input": {} },
            { "type": "tool_use", "id": "b", "name": "g", "input": { "z": 1, "a": 2 } },
        ] },
        { "role": "system", "content": "Hurry." },
        { "role": "user", "content": [
            { "type": "text", "text": "here" },
            { "type": "tool_result", "tool_use_id": "a", "is_error": true, "content": "gone" },
            { "type": "tool_result", "tool_use_id": "b", "content": [{ "type": "text", "text": "seen" }, image] },
        ] },
    ]));
    let roles: Vec<_> = messages.iter().map(|message| message.role.as_ref()).collect();
    assert_eq!(roles, ["user", "assistant", "tool", "tool", "user"]);
    assert_eq!(messages[1].extra.as_ref().unwrap()["reasoning_content"], "Hm.");
    assert_eq!(
        (messages[2].content.as_str(), messages[3].content.as_str()),
        ("Error: gone", "seen")
    );
    let parts = messages[4].extra.as_ref().unwrap()["content"].as_array().unwrap();
    let url = json!({ "url": "data:image/png;base64,AAAA" });
    assert!(parts.iter().any(|part| part["image_url"] == url), "{parts:?}");
    assert_eq!(parts.last().unwrap()["text"], "here");
}

#[test]
fn documents_are_read_as_text() {
    let text = json!({ "type": "document", "title": "T", "source": { "type": "text", "media_type": "text/plain", "data": "D" } });
    let content = json!({ "type": "document", "source": { "type": "content", "content": "E" } });
    let unknown = json!({ "type": "of_next_year" });
    let messages = prompt(&json!([{ "role": "user", "content": [text, content, unknown] }]));
    assert_eq!(said(&messages), [("user", "T\nDE")]);
    let pdf = json!({ "type": "document", "source": { "type": "base64", "media_type": "application/pdf", "data": "AAAA" } });
    let refused = checked(&json!({ "messages": [{ "role": "user", "content": [pdf] }] }));
    assert_eq!(refused.unwrap_err().code, Code::UnsupportedByModel);
}

#[test]
fn tools_choices_and_options_are_translated() {
    let body = json!({
        "model": null, "system": null, "stop_sequences": null, "max_tokens": 5_000_000, "top_k": 0, "temperature": 1, "top_p": 0.5,
        "thinking": { "type": "disabled" }, "output_config": { "effort": "max" }, "nobody_knows": 1,
        "messages": [{ "role": "user", "content": "hi" }],
        "tools": [
            { "name": "f", "description": null, "input_schema": { "type": "object" }, "cache_control": {}, "defer_loading": true },
            { "type": "web_search_20250305", "name": "web_search" },
        ],
        "tool_choice": { "type": "any", "disable_parallel_tool_use": true },
    });
    let new = checked(&body).unwrap();
    assert_eq!(
        new.extra["tools"],
        json!([{ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } }])
    );
    assert_eq!(new.extra["tool_choice"], "required");
    assert_eq!(new.extra["parallel_tool_calls"], false);
    assert_eq!(new.extra.get("reasoning_effort"), None, "it is not to think at all");
    assert_eq!(new.options.think, Some(Think::Enabled(false)));
    assert_eq!((new.options.top_k, new.options.max_tokens), (None, Some(1_000_000)));
    let mut named = body.clone();
    named["tool_choice"] = json!({ "type": "tool", "name": "f" });
    let chosen = checked(&named).unwrap().extra["tool_choice"].clone();
    assert_eq!(chosen, json!({ "type": "function", "function": { "name": "f" } }));
    named["tools"] = json!([]);
    assert!(checked(&named).unwrap().extra.is_empty(), "a choice among no tools");
}

#[test]
fn a_wrong_value_is_pointed_at() {
    let hi = json!([{ "role": "user", "content": "hi" }]);
    let block = |block: Value| json!({ "messages": [{ "role": "user", "content": [block] }] });
    for (body, at) in [
        (json!({ "messages": [] }), "/messages"),
        (
            json!({ "messages": [{ "role": "user", "content": [{ "type": "of_next_year" }] }] }),
            "/messages",
        ),
        (json!({ "model": "m" }), "/messages"),
        (json!({ "messages": [{ "role": "robot", "content": "" }] }), "/messages/0/role"),
        (json!({ "messages": [{ "role": "user" }] }), "/messages/0/content"),
        (json!({ "messages": hi, "max_tokens": 0 }), "/max_tokens"),
        (json!({ "messages": hi, "temperature": 3 }), "/temperature"),
        (json!({ "messages": hi, "stop_sequences": {} }), "/stop_sequences"),
        (json!({ "messages": hi, "system": 5 }), "/system"),
        (json!({ "messages": hi, "tools": [{ "input_schema": {} }] }), "/tools/0/name"),
        (
            json!({ "messages": hi, "tools": [{ "name": "f" }], "tool_choice": { "type": "tool", "name": "g" } }),
            "/tool_choice/name",
        ),
        (
            json!({ "messages": hi, "output_config": { "format": { "type": "xml" } } }),
            "/output_config/format",
        ),
        (block(json!({ "type": "text" })), "/messages/0/content/0/text"),
        (block(json!({ "type": "tool_result" })), "/messages/0/content/0/tool_use_id"),
        (block(json!({ "type": "image", "source": { "type": "file" } })), "/messages"),
    ] {
        assert_eq!(checked(&body).unwrap_err().errors[0].pointer, at);
    }
}

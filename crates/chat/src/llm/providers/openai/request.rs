//! The body of a chat request to an OpenAI-compatible server.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    domain::Think,
    llm::request::{ChatRequest, PromptMessage},
};

/// The body of `/v1/chat/completions`. Messages, which may hold large images, are not copied.
#[derive(Serialize)]
pub(super) struct UpstreamBody<'a> {
    #[serde(flatten)]
    members: Map<String, Value>,
    messages: Vec<UpstreamMessage<'a>>,
}

#[derive(Serialize)]
struct UpstreamMessage<'a> {
    role: &'a str,
    /// Absent where `extra` has one, as parts.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(flatten)]
    extra: Option<&'a Map<String, Value>>,
}

impl UpstreamBody<'_> {
    /// Asks a llama-server which stop sequence ended the answer; older ones ignore it. Others may refuse these members.
    pub(super) fn ask_for_stopping_word(&mut self) {
        self.members.insert("verbose".to_owned(), json!(true));
        self.members.insert("response_fields".to_owned(), json!(["stopping_word"]));
    }
}

/// OpenAI itself refuses members that it does not know.
pub(super) fn body(request: &ChatRequest, is_openai: bool) -> UpstreamBody<'_> {
    let mut members = Map::clone(&request.extra);
    // Servers refuse a choice among no tools.
    let tools = members.get("tools").and_then(Value::as_array);
    if tools.is_none_or(Vec::is_empty) {
        for name in ["tools", "tool_choice", "parallel_tool_calls"] {
            members.remove(name);
        }
    }
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            members.insert(name.to_owned(), value);
        }
    };
    let wanted = &request.options;
    set("model", Some(Value::from(request.model.as_str())));
    set("stream", Some(Value::from(true)));
    set("stream_options", Some(json!({ "include_usage": true })));
    set("temperature", wanted.temperature.map(Value::from));
    set("top_p", wanted.top_p.map(Value::from));
    // OpenAI's newer models refuse the old name, and some other servers do not know the new one.
    let max_tokens = if is_openai { "max_completion_tokens" } else { "max_tokens" };
    set(max_tokens, wanted.max_tokens.map(Value::from));
    set("seed", wanted.seed.map(Value::from));
    set("stop", wanted.stop.clone().map(Value::from));
    let effort = wanted.think.and_then(Think::effort);
    set("reasoning_effort", effort.map(|effort| json!(effort)));
    if !is_openai {
        set("top_k", wanted.top_k.map(Value::from));
        let think = |think: Think| json!({ "enable_thinking": think.is_enabled() });
        set("chat_template_kwargs", wanted.think.map(think));
    }
    let messages = request.messages.iter();
    UpstreamBody {
        members,
        messages: messages.map(|message| outgoing(message, is_openai)).collect(),
    }
}

fn outgoing(message: &PromptMessage, is_openai: bool) -> UpstreamMessage<'_> {
    let role = match message.role.as_ref() {
        // Chat templates of open models do not know it.
        "developer" if !is_openai => "system",
        role => role,
    };
    let extra = message.extra.as_ref();
    let has_content = extra.is_some_and(|extra| extra.contains_key("content"));
    UpstreamMessage { role, content: (!has_content).then_some(message.content.as_str()), extra }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Options;

    fn sent(request: &ChatRequest, is_openai: bool) -> Value {
        serde_json::to_value(body(request, is_openai)).unwrap()
    }

    #[test]
    fn only_what_the_caller_asked_for_is_sent() {
        let message = PromptMessage { role: "user".into(), content: "Hi".to_owned(), extra: None };
        let request = ChatRequest {
            model: "m".to_owned(),
            messages: vec![message].into(),
            window: 4096,
            ..ChatRequest::default()
        };
        let plain = json!({ "model": "m", "messages": [{ "role": "user", "content": "Hi" }], "stream": true,
            "stream_options": { "include_usage": true } });
        assert_eq!(sent(&request, false), plain);
        let options = Options {
            max_tokens: Some(5),
            top_k: Some(1),
            think: Some(Think::Enabled(false)),
            ..Options::default()
        };
        let sent = sent(&ChatRequest { options, ..request }, false);
        assert_eq!((&sent["max_tokens"], &sent["top_k"]), (&json!(5), &json!(1)));
        assert_eq!(sent["chat_template_kwargs"]["enable_thinking"], false);
    }

    #[test]
    fn a_choice_among_no_tools_is_not_sent() {
        for tools in [json!([]), json!(null)] {
            let extra = json!({ "tools": tools, "tool_choice": "auto", "parallel_tool_calls": true, "user": "u" });
            let extra = extra.as_object().cloned().unwrap();
            let sent = sent(&ChatRequest { extra: extra.into(), ..ChatRequest::default() }, false);
            assert_eq!(sent["user"], "u");
            for name in ["tools", "tool_choice", "parallel_tool_calls"] {
                assert_eq!(sent.get(name), None, "{name}");
            }
        }
    }

    #[test]
    fn what_v1_passes_on_cannot_turn_the_stream_off() {
        let extra = json!({ "stream": false, "tools": [1], "model": "other" })
            .as_object()
            .cloned()
            .unwrap();
        let sent = sent(
            &ChatRequest { model: "m".to_owned(), extra: extra.into(), ..ChatRequest::default() },
            true,
        );
        assert_eq!(
            (&sent["stream"], &sent["model"], &sent["tools"]),
            (&json!(true), &json!("m"), &json!([1]))
        );
    }
}

//! The body of a chat request to Ollama.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    domain::{Options, base64::is_base64},
    llm::{
        error::{Feature, ProviderError},
        model::Capabilities,
        request::{ChatRequest, PromptMessage},
    },
};

#[derive(Serialize)]
pub(super) struct ChatBody<'a> {
    model: &'a str,
    messages: Vec<OutgoingMessage<'a>>,
    stream: bool,
    options: Value,
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// A message: nearly every one is a role and a text, and nothing of it is copied.
#[derive(Default, Serialize)]
struct OutgoingMessage<'a> {
    role: &'a str,
    content: Cow<'a, str>,
    /// In base64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    images: Vec<&'a str>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// What the request's model is known to be like.
#[derive(Clone, Copy, Default)]
pub(super) struct ModelTraits {
    pub(super) capabilities: Option<Capabilities>,
    /// Whether the request names the window, and does not leave it to the model's own settings.
    pub(super) sends_window: bool,
}

pub(super) fn body(
    request: &ChatRequest,
    model: ModelTraits,
) -> Result<ChatBody<'_>, ProviderError> {
    let mut names = Map::new();
    let messages = request.messages.iter().map(|message| translate(message, &mut names));
    let messages = messages.collect::<Result<Vec<_>, _>>()?;
    let mut more = Map::new();
    let mut set = |name: &str, value: Value| more.insert(name.to_owned(), value);
    // What does not fit must fail: cut silently, the model answers another prompt, and `shift` drops the oldest tokens while it
    // answers.
    set("truncate", Value::from(false));
    set("shift", Value::from(false));
    let format = request.extra.get("response_format").map_or(Ok(None), format)?;
    let thinks = model.capabilities.map(|all| all.thinking);
    if let Some(think) = think(request, thinks == Some(false)) {
        set("think", think);
    } else if format.is_some() && thinks == Some(true) {
        // A model that may think is held to a format only after its thoughts, or without any.
        set("think", Value::from(false));
    }
    if let Some(format) = format {
        set("format", format);
    }
    // There is no `tool_choice`: not to offer the others is how to choose one, not to offer any is how to forbid them.
    let tools = functions(request)?;
    if !tools.is_empty() {
        set("tools", tools.into());
    }
    Ok(ChatBody {
        model: &request.model,
        messages,
        stream: true,
        options: options(request, model.sends_window),
        more,
    })
}

/// The functions that may be called, or the one that must be.
fn functions(request: &ChatRequest) -> Result<Vec<Value>, ProviderError> {
    if request.callable("tools", "tool_choice").iter().any(is_custom) {
        return Err(custom_tool());
    }
    let chosen = |choice: &str, name| request.extra.get(choice).and_then(|it| it.pointer(name));
    let chosen =
        chosen("tool_choice", "/function/name").or_else(|| chosen("function_call", "/name"));
    let may_be_called = |tool: &Cow<'_, Value>| {
        chosen.is_none_or(|name| tool.pointer("/function/name") == Some(name))
    };
    Ok(request.functions().filter(may_be_called).map(Cow::into_owned).collect())
}

fn is_custom(tool: &Value) -> bool {
    tool["type"] == "custom"
}

fn custom_tool() -> ProviderError {
    ProviderError::unsupported(Feature::CustomTools, "Ollama calls functions alone")
}

fn options(request: &ChatRequest, sends_window: bool) -> Value {
    let room = request.window.saturating_sub(request.prompt_estimate);
    // An estimate may be too high; only what we trimmed by it is known to leave so little.
    let least = if request.untrimmed { request.window / 4 } else { 1 };
    let room = room.max(least).max(1);
    let num_predict = request.options.max_tokens.map_or(room, |wanted| wanted.min(room));
    // The other options have the same names as ours.
    let mut options = json!(Options { max_tokens: None, think: None, ..request.options.clone() });
    options["num_predict"] = Value::from(num_predict);
    if sends_window {
        options["num_ctx"] = Value::from(request.window);
    }
    for name in ["presence_penalty", "frequency_penalty"] {
        if let Some(penalty) = request.extra.get(name).filter(|value| value.is_number()) {
            options[name] = penalty.clone();
        }
    }
    options
}

/// Sent only where somebody asked: a model that cannot think refuses it. Agents always send an effort, so what asks for
/// thoughts is ignored where the model is known to have none.
fn think(request: &ChatRequest, cannot_think: bool) -> Option<Value> {
    if cannot_think {
        return None;
    }
    if let Some(think) = request.options.think {
        return serde_json::to_value(think).ok();
    }
    match request.extra.get("reasoning_effort")?.as_str()? {
        "none" => Some(Value::from(false)),
        "minimal" => Some(Value::from("low")),
        effort @ ("low" | "medium" | "high") => Some(Value::from(effort)),
        "xhigh" => Some(Value::from("high")),
        _ => None,
    }
}

fn format(response_format: &Value) -> Result<Option<Value>, ProviderError> {
    let schema = response_format.pointer("/json_schema/schema").or(response_format.get("schema"));
    match (response_format.get("type").and_then(Value::as_str), schema) {
        (Some("text"), _) => Ok(None),
        (Some("json_schema" | "json_object"), Some(schema)) => Ok(Some(schema.clone())),
        // `"json"` is not enforced by models with a template of their own.
        (Some("json_object"), None) => Ok(Some(json!({ "type": "object" }))),
        _ => Err(ProviderError::invalid(
            "/response_format",
            "This must be text, json_object, or json_schema with a schema.",
        )),
    }
}

/// A message in Ollama's form; `names` remembers which function a tool call's id named.
fn translate<'a>(
    message: &'a PromptMessage,
    names: &mut Map<String, Value>,
) -> Result<OutgoingMessage<'a>, ProviderError> {
    let role = match message.role.as_ref() {
        "developer" => "system",
        "function" => "tool",
        role => role,
    };
    let Some(extra) = &message.extra else {
        let content = Cow::from(&message.content);
        return Ok(OutgoingMessage { role, content, ..OutgoingMessage::default() });
    };
    let (content, images) = match extra.get("content") {
        Some(Value::String(text)) => (Cow::from(text.as_str()), Vec::new()),
        Some(Value::Array(parts)) => {
            let (text, images) = content_parts(parts)?;
            (Cow::from(text), images)
        }
        _ => (Cow::from(message.content.as_str()), Vec::new()),
    };
    let mut more = Map::new();
    let mut set = |name: &str, value: Value| more.insert(name.to_owned(), value);
    if let Some(thoughts) = extra.get("reasoning_content").and_then(Value::as_str) {
        set("thinking", Value::from(thoughts));
    }
    if let (Some(name), "function") = (extra.get("name"), message.role.as_ref()) {
        set("tool_name", name.clone());
    }
    if let Some(calls) = extra.get("tool_calls").and_then(Value::as_array) {
        if calls.iter().any(is_custom) {
            return Err(custom_tool());
        }
        let calls = calls.iter().map(|call| tool_call(call, names)).collect();
        set("tool_calls", calls);
    } else if let Some(call) = extra.get("function_call") {
        set("tool_calls", json!([tool_call(&json!({ "function": call }), names)]));
    }
    if let Some(id) = extra.get("tool_call_id").and_then(Value::as_str) {
        set("tool_call_id", Value::from(id));
        if let Some(name) = names.get(id).or_else(|| extra.get("name")) {
            set("tool_name", name.clone());
        }
    }
    Ok(OutgoingMessage { role, content, images, more })
}

fn tool_call(call: &Value, names: &mut Map<String, Value>) -> Value {
    let function = call.get("function");
    let name = function.and_then(|function| function.get("name")).cloned().unwrap_or_default();
    let arguments = match function.and_then(|function| function.get("arguments")) {
        Some(Value::String(text)) if !text.trim().is_empty() => {
            let read = serde_json::from_str(text).ok().filter(Value::is_object);
            // The name by which callers were shown them.
            read.unwrap_or_else(|| json!({ "INVALID_JSON": text }))
        }
        Some(object @ Value::Object(_)) => object.clone(),
        _ => json!({}),
    };
    let mut translated = json!({ "function": { "name": name, "arguments": arguments } });
    if let Some(id) = call.get("id").and_then(Value::as_str) {
        names.insert(id.to_owned(), name);
        translated["id"] = Value::from(id);
    }
    translated
}

/// The text of content parts, and their images in base64.
fn content_parts(parts: &[Value]) -> Result<(String, Vec<&str>), ProviderError> {
    let (mut text, mut images) = (String::new(), Vec::new());
    for part in parts {
        match part.get("type").and_then(Value::as_str) {
            Some("text" | "refusal") => {
                let piece = part.get("text").or_else(|| part.get("refusal"));
                text.push_str(piece.and_then(Value::as_str).unwrap_or_default());
            }
            Some("image_url") => images.push(image(part)?),
            _ => {
                let why = "Ollama takes text and images alone";
                return Err(ProviderError::unsupported(Feature::Files, why));
            }
        }
    }
    Ok((text, images))
}

fn image(part: &Value) -> Result<&str, ProviderError> {
    let url = part.pointer("/image_url/url").or_else(|| part.get("image_url"));
    let base64 = match url.and_then(Value::as_str).and_then(|url| url.split_once(':')) {
        Some(("http" | "https", _)) => {
            let why = "Ollama fetches no images";
            return Err(ProviderError::unsupported(Feature::ImageAddresses, why));
        }
        Some(("data", data)) => data.split_once(";base64,").map(|(_, base64)| base64),
        _ => None,
    };
    base64.filter(|base64| is_base64(base64)).ok_or_else(|| {
        ProviderError::invalid("/message", "Images must be sent as base64 `data:` URLs.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Effort, Think};
    use crate::llm::error::ErrorKind;

    fn request() -> ChatRequest {
        let said = PromptMessage { role: "user".into(), content: "Hi".to_owned(), extra: None };
        ChatRequest {
            model: "m".to_owned(),
            messages: vec![said].into(),
            window: 4096,
            prompt_estimate: 100,
            ..ChatRequest::default()
        }
    }

    const KNOWN: ModelTraits = ModelTraits {
        capabilities: Some(Capabilities {
            completion: true,
            vision: true,
            tools: true,
            thinking: true,
            embedding: false,
        }),
        sends_window: true,
    };

    fn sent(request: &ChatRequest) -> Value {
        serde_json::to_value(body(request, KNOWN).unwrap()).unwrap()
    }

    #[test]
    fn the_answer_may_take_what_the_prompt_leaves_unless_the_caller_said_less() {
        assert_eq!(sent(&request())["options"], json!({ "num_ctx": 4096, "num_predict": 3996 }));
        let full = ChatRequest { prompt_estimate: 5000, ..request() };
        assert_eq!(sent(&full)["options"]["num_predict"], 1);
        let options =
            Options { max_tokens: Some(7), stop: Some(vec!["x".to_owned()]), ..Options::default() };
        let sent = sent(&ChatRequest { options, ..request() });
        assert_eq!(sent["options"], json!({ "num_ctx": 4096, "num_predict": 7, "stop": ["x"] }));
        assert_eq!(sent["stream"], true);
        assert_eq!(sent.get("think"), None);
    }

    #[test]
    fn an_answer_is_never_longer_than_the_window_and_nothing_is_cut_silently() {
        let options = Options { max_tokens: Some(100_000), ..Options::default() };
        let sent = sent(&ChatRequest { options, ..request() });
        assert_eq!(sent["options"]["num_predict"], 3996);
        assert_eq!((&sent["shift"], &sent["truncate"]), (&json!(false), &json!(false)));
    }

    #[test]
    fn the_models_own_window_is_left_to_it() {
        let model = ModelTraits { sends_window: false, ..KNOWN };
        let request = request();
        let sent = serde_json::to_value(body(&request, model).unwrap()).unwrap();
        assert_eq!(sent["options"], json!({ "num_predict": 3996 }));
    }

    #[test]
    fn a_format_is_kept_to_or_refused() {
        let body_with = |format: Value| {
            let extra = Map::from_iter([("response_format".to_owned(), format)]);
            let request = ChatRequest { extra: extra.into(), ..request() };
            body(&request, KNOWN).map(|body| serde_json::to_value(body).unwrap())
        };
        for schema in [
            json!({ "type": "json_schema", "json_schema": { "schema": { "type": "array" } } }),
            json!({ "type": "json_schema", "schema": { "type": "array" } }),
            json!({ "type": "json_object", "schema": { "type": "array" } }),
        ] {
            assert_eq!(body_with(schema).unwrap()["format"], json!({ "type": "array" }));
        }
        assert_eq!(body_with(json!({ "type": "text" })).unwrap().get("format"), None);
        for unknown in [json!({ "type": "json_schema" }), json!({ "type": "grammar" })] {
            assert!(body_with(unknown).is_err());
        }
    }

    #[test]
    fn json_is_enforced_and_thoughts_stay_out_of_its_way() {
        let extra = json!({ "response_format": { "type": "json_object" } });
        let mut request =
            ChatRequest { extra: extra.as_object().cloned().unwrap().into(), ..request() };
        let body_of = |request: &ChatRequest, model| {
            serde_json::to_value(body(request, model).unwrap()).unwrap()
        };
        let sent = body_of(&request, KNOWN);
        assert_eq!(
            (&sent["format"], &sent["think"]),
            (&json!({ "type": "object" }), &json!(false))
        );
        assert_eq!(body_of(&request, ModelTraits::default()).get("think"), None);
        request.options.think = Some(Think::Effort(Effort::High));
        assert_eq!(body_of(&request, KNOWN)["think"], "high");
    }

    #[test]
    fn an_effort_is_ignored_by_a_model_that_does_not_think() {
        let extra = json!({ "reasoning_effort": "high" });
        let mut request =
            ChatRequest { extra: extra.as_object().cloned().unwrap().into(), ..request() };
        let model = ModelTraits { capabilities: Some(Capabilities::default()), sends_window: true };
        for think in [None, Some(Think::Effort(Effort::High)), Some(Think::Enabled(true))] {
            request.options.think = think;
            let sent = serde_json::to_value(body(&request, model).unwrap()).unwrap();
            assert_eq!(sent.get("think"), None);
        }
    }

    #[test]
    fn a_function_that_is_chosen_is_offered_alone() {
        let tool = |name: &str| json!({ "type": "function", "function": { "name": name } });
        let offered = |choice: Value| {
            let extra = json!({ "tools": [tool("f"), tool("g")], "tool_choice": choice });
            let extra = extra.as_object().cloned().unwrap().into();
            sent(&ChatRequest { extra, ..request() }).get("tools").cloned()
        };
        assert_eq!(offered(json!("required")), Some(json!([tool("f"), tool("g")])));
        assert_eq!(offered(tool("g")), Some(json!([tool("g")])));
        assert_eq!(offered(json!("none")), None);
        let older = |choice: Value| {
            let extra =
                json!({ "functions": [{ "name": "f" }, { "name": "g" }], "function_call": choice });
            let extra = extra.as_object().cloned().unwrap().into();
            sent(&ChatRequest { extra, ..request() }).get("tools").cloned()
        };
        assert_eq!(older(json!("auto")), Some(json!([tool("f"), tool("g")])));
        assert_eq!(older(json!({ "name": "g" })), Some(json!([tool("g")])));
        assert_eq!(older(json!("none")), None);
    }

    #[test]
    fn only_functions_are_offered_and_custom_tools_refused() {
        let with = |tools: Value| {
            let extra = Map::from_iter([("tools".to_owned(), tools)]);
            let request = ChatRequest { extra: extra.into(), ..request() };
            let can = Capabilities { tools: false, ..KNOWN.capabilities.unwrap() };
            let tools = body(&request, KNOWN).map(|body| body.more.get("tools").cloned());
            (tools.map_err(|error| error.kind), can.lacking(&request))
        };
        assert_eq!(with(json!([{ "type": "web_search_preview" }])), (Ok(None), None));
        let refused = Err(ErrorKind::Unsupported(Feature::CustomTools));
        assert_eq!(with(json!([{ "type": "custom", "custom": { "name": "f" } }])), (refused, None));
        let call = json!({ "id": "c", "type": "custom", "custom": { "name": "f", "input": "x" } });
        let mut message = PromptMessage::text("assistant", "");
        message.set("tool_calls", json!([call]));
        assert!(body(&ChatRequest { messages: [message].into(), ..request() }, KNOWN).is_err());
    }

    #[test]
    fn calls_of_the_older_form_and_broken_ones_are_not_lost() {
        let called = |arguments: &str| {
            let mut call = PromptMessage::text("assistant", "");
            call.set("function_call", json!({ "name": "f", "arguments": arguments }));
            let mut output = PromptMessage::text("function", "42");
            output.set("name", "f");
            let sent = sent(&ChatRequest { messages: [call, output].into(), ..request() });
            assert_eq!(
                sent["messages"][1],
                json!({ "role": "tool", "content": "42", "tool_name": "f" })
            );
            let function = sent["messages"][0]["tool_calls"][0]["function"].clone();
            assert_eq!(function["name"], "f");
            function["arguments"].clone()
        };
        assert_eq!(called(r#"{"a":1}"#), json!({ "a": 1 }));
        assert_eq!(called(""), json!({}));
        for broken in ["{\"a\":", "[1]"] {
            assert_eq!(called(broken), json!({ "INVALID_JSON": broken }));
        }
    }

    #[test]
    fn tool_messages_and_images_are_translated() {
        let extra = |value: Value| value.as_object().cloned();
        let message = |role: &'static str, value| PromptMessage {
            role: role.into(),
            content: String::new(),
            extra: extra(value),
        };
        let call = json!({ "tool_calls": [{ "id": "c1", "type": "function", "function": { "name": "f", "arguments": "{\"a\":1}" } }] });
        let parts = json!({ "content": [{ "type": "text", "text": "look" },
            { "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA" } }] });
        let messages = vec![
            message("user", parts),
            message("assistant", call),
            message("tool", json!({ "tool_call_id": "c1", "content": "42" })),
        ];
        let sent = sent(&ChatRequest { messages: messages.into(), ..request() });
        assert_eq!(
            sent["messages"][0],
            json!({ "role": "user", "content": "look", "images": ["AAAA"] })
        );
        assert_eq!(
            sent["messages"][1]["tool_calls"],
            json!([{ "function": { "name": "f", "arguments": { "a": 1 } }, "id": "c1" }])
        );
        assert_eq!(
            sent["messages"][2],
            json!({ "role": "tool", "content": "42", "tool_call_id": "c1", "tool_name": "f" })
        );
        let remote = json!({ "content": [{ "type": "image_url", "image_url": { "url": "http://elsewhere/x.png" } }] });
        assert!(
            body(
                &ChatRequest { messages: vec![message("user", remote)].into(), ..request() },
                KNOWN
            )
            .is_err()
        );
    }
}

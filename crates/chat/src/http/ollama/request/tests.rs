use common::errors::json as body;
use serde_json::Map;

use super::*;

fn read(value: Value) -> GenerateRequest {
    body::parse::<AnyCase<GenerateRequest>>(value.to_string().as_bytes()).unwrap().0
}

fn messages(value: Value) -> Result<Vec<PromptMessage>, ApiError> {
    read(json!({ "messages": value })).take_messages(true)
}

fn extra(message: &PromptMessage) -> &Map<String, Value> {
    message.extra.as_ref().expect("more than a text")
}

#[test]
fn tool_calls_get_ids_and_their_answers_find_them() {
    let call =
        |name: &str| json!({ "Function": { "Name": name, "arguments": { "City": "Köln" } } });
    let messages = messages(json!([
        { "ROLE": "User", "Content": "weather?", "images": null, "tool_calls": null },
        { "role": "assistant", "content": null, "thinking": "Hm.", "tool_calls": [call("a"), call("b")] },
        { "role": "tool", "content": "rain", "tool_name": "b" },
        { "role": "tool", "content": "sun" },
        { "role": "tool", "content": "odd", "tool_call_id": "x" },
    ]))
    .unwrap();
    assert_eq!((messages[0].role.as_ref(), &messages[0].extra), ("user", &None));
    let called = &extra(&messages[1])["tool_calls"];
    assert_eq!(called[1]["id"], "call_2");
    assert_eq!(called[0]["function"]["arguments"], r#"{"City":"Köln"}"#);
    assert_eq!(extra(&messages[1])["reasoning_content"], "Hm.");
    let ids: Vec<_> =
        messages[2..].iter().map(|message| extra(message)["tool_call_id"].clone()).collect();
    assert_eq!(ids, ["call_2", "call_1", "x"]);
    assert_eq!(extra(&messages[3])["name"], "a");
}

#[test]
fn images_become_parts_and_odd_messages_are_refused() {
    let seen = json!([{ "role": "user", "content": "look", "images": ["iVBORw0KGgo=", "/9j/\r\n4AAQ\n"] }]);
    let content = extra(&messages(seen).unwrap()[0])["content"].clone();
    assert_eq!(content[0], json!({ "type": "text", "text": "look" }));
    assert_eq!(content[2]["image_url"]["url"], "data:image/jpeg;base64,/9j/4AAQ");
    for wrong in [
        json!([{ "role": "user", "content": "x", "images": ["not base64!"] }]),
        json!([{ "role": "user", "content": "x", "images": ["AAAA"] }]),
        json!([{ "role": "user", "content": "x", "images": ["iVBORw0KGgo"] }]),
        json!([{ "role": "robot", "content": "x" }]),
        json!([{ "content": "x" }]),
    ] {
        assert!(messages(wrong.clone()).is_err(), "{wrong}");
    }
}

#[test]
fn a_prompt_becomes_messages() {
    let messages = |value: Value| read(value).take_messages(false).unwrap();
    let both = messages(json!({ "prompt": "Hi", "system": "Be brief." }));
    let roles: Vec<_> =
        both.iter().map(|message| (message.role.as_ref(), message.content.as_str())).collect();
    assert_eq!(roles, [("system", "Be brief."), ("user", "Hi")]);
    assert_eq!(messages(json!({ "prompt": "", "system": "x", "images": null })), []);
    let seen = messages(json!({ "prompt": "look", "images": ["iVBORw0KGgo="] }));
    assert!(extra(&seen[0])["content"].is_array());
}

#[test]
fn numbers_come_in_any_form_and_the_window_is_not_the_callers() {
    let request = read(json!({ "options": {
        "num_predict": 7.9, "top_k": 0, "top_p": 0.5, "temperature": 0, "seed": -3, "stop": "x",
        "num_ctx": 131_072, "presence_penalty": 0.5, "mirostat": 1,
    } }));
    let options = request.options("m", true).unwrap();
    assert_eq!((options.max_tokens, options.top_k, options.seed), (Some(7), None, Some(-3)));
    assert_eq!(options.stop, Some(vec!["x".to_owned()]));
    assert_eq!(request.members().unwrap().0.keys().collect::<Vec<_>>(), ["presence_penalty"]);
    let unset =
        json!({ "options": { "num_predict": -1, "stop": [], "seed": null }, "think": null });
    assert_eq!(read(unset).options("m", true).unwrap(), Options::default());
    assert!(read(json!({ "options": { "temperature": 3 } })).options("m", true).is_err());
}

#[test]
fn thinking_and_format_are_read_as_ollama_reads_them() {
    let think = |value: Value, thinks| {
        let request = read(json!({ "think": value }));
        (
            request.options("m", thinks).unwrap().think,
            request.members().unwrap().0.get("reasoning_effort").cloned(),
        )
    };
    assert_eq!(think(json!(true), true), (Some(Think::Enabled(true)), None));
    assert_eq!(think(json!(true), false), (None, None));
    assert_eq!(think(json!("max"), true), (None, Some(json!("high"))));
    let format = |value: Value| {
        read(json!({ "format": value })).members().map(|mut all| all.0.remove("response_format"))
    };
    let schema = format(json!({ "type": "object" })).unwrap().unwrap();
    assert_eq!(schema["json_schema"]["schema"]["type"], "object");
    assert!(format(json!("yaml")).is_err() && format(json!([])).is_err());
    assert_eq!(format(json!("")).unwrap(), None);
}

#[test]
fn only_nothing_unloads() {
    let unloads = |value: &Value| read(json!({ "keep_alive": value })).unloads();
    for nothing in [json!(0), json!(0.0), json!("0"), json!("0s"), json!("0m")] {
        assert!(unloads(&nothing), "{nothing}");
    }
    for long in [json!(5), json!("5m"), json!(-1), json!("-1m"), json!(null), json!("")] {
        assert!(!unloads(&long), "{long}");
    }
}

#[test]
fn what_would_be_dropped_silently_is_refused() {
    for (body, is_refused) in [
        (json!({ "raw": true }), true),
        (json!({ "raw": false, "suffix": "", "template": "", "context": [] }), false),
        (json!({ "suffix": "x" }), true),
        (json!({ "template": "{{ .Prompt }}" }), true),
        (json!({ "context": [1, 2] }), true),
    ] {
        assert_eq!(read(body.clone()).check_prompt().is_err(), is_refused, "{body}");
    }
}

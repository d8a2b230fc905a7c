//! What an Ollama's models can do, as `/api/show` tells, and what is said where something else answers.

use std::sync::Arc;

use chat::{
    domain::{Options, Think},
    llm::{ChatRequest, ModelError, Prompt, PromptMessage},
};
use common::{
    config::ProviderKind::{Demo, Ollama, OpenAi},
    identity::UserId,
};
use serde_json::{Value, json};
use url::Url;

use crate::{
    fixtures::recorded,
    server::{Action, Server, hello, response},
    support::{Answer, Say, Service, nobody, settings},
};

/// An Ollama with the models `tiny` and `embed`, and these parameters and capabilities for `tiny`.
async fn ollama(parameters: &'static str, capabilities: Value) -> Server {
    Server::start(move |request, _| {
        let body = match (request.path.as_str(), request.body["model"].as_str()) {
            ("/api/chat", _) => return hello(),
            ("/api/tags", _) => json!({ "models": [
                { "name": "tiny:latest", "digest": "a", "details": { "context_length": 32768 }, "capabilities": ["completion"] },
                { "name": "embed:latest", "digest": "b", "capabilities": ["completion"] }] }),
            ("/api/show", Some("tiny:latest")) => {
                json!({ "parameters": parameters, "capabilities": capabilities, "model_info": {} })
            }
            _ => json!({ "capabilities": ["embedding"] }),
        };
        vec![Action::Send(response("200 OK", "", &body.to_string()))]
    })
    .await
}

/// A message with an image.
struct Picture;

impl Prompt for Picture {
    fn fit(&self, model: &str, window: u32) -> ChatRequest {
        let parts = json!({ "content": [{ "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA" } }] });
        let message = PromptMessage {
            role: "user".into(),
            content: String::new(),
            extra: parts.as_object().cloned(),
        };
        ChatRequest {
            model: model.to_owned(),
            messages: vec![message].into(),
            options: Options::default(),
            window,
            untrimmed: true,
            ..ChatRequest::default()
        }
    }
}

/// A prompt with a tool, and this `tool_choice`.
struct Tool(&'static str);

impl Prompt for Tool {
    fn fit(&self, model: &str, window: u32) -> ChatRequest {
        let extra = json!({ "tools": [{ "type": "function", "function": { "name": "f" } }],
            "tool_choice": self.0 });
        ChatRequest {
            model: model.to_owned(),
            messages: vec![PromptMessage::text("user", "Hi")].into(),
            window,
            extra: Arc::new(extra.as_object().unwrap().clone()),
            ..ChatRequest::default()
        }
    }
}

async fn ask(service: &Service, prompt: impl Prompt + 'static) -> Answer {
    let route = service.llm.resolve(None).unwrap();
    let user = UserId::parse("alice").unwrap();
    let generation = service.llm.enqueue(&route, &user).unwrap();
    Answer::read(generation.begin(Arc::new(prompt))).await
}

#[tokio::test]
async fn tools_for_a_model_that_is_known_to_have_none_are_refused_before_asking() {
    let plain = ollama("", json!(["completion"])).await;
    let service = Service::probed(&settings(&[(Ollama, &plain.url)])).await;
    assert_eq!(ask(&service, Tool("auto")).await.summary(), "UnsupportedByModel");
    assert!(plain.chats().is_empty());
    assert_eq!(ask(&service, Tool("none")).await.text, "Hello");
    for capabilities in [json!(["completion", "tools"]), Value::Null] {
        let server = ollama("", capabilities).await;
        let service = Service::probed(&settings(&[(Ollama, &server.url)])).await;
        assert_eq!(ask(&service, Tool("auto")).await.text, "Hello");
        assert_eq!(server.chats()[0].body["tools"][0]["function"]["name"], "f");
    }
}

#[tokio::test]
async fn an_image_for_a_model_that_cannot_see_is_refused_before_and_after_asking() {
    let blind = ollama("", json!(["completion"])).await;
    let service = Service::probed(&settings(&[(Ollama, &blind.url)])).await;
    assert_eq!(ask(&service, Picture).await.summary(), "UnsupportedByModel");
    assert!(blind.chats().is_empty());
    for file in ["12-image-native.http", "13-image-rendered.http"] {
        let actions = recorded(&format!("ollama-real/{file}"));
        let server = Server::chatting(move |_| actions.clone()).await;
        let service = Service::probed(&settings(&[(Ollama, &server.url)])).await;
        assert_eq!(ask(&service, Picture).await.summary(), "UnsupportedByModel", "{file}");
    }
    let seeing = ollama("", json!(["completion", "vision"])).await;
    let service = Service::probed(&settings(&[(Ollama, &seeing.url)])).await;
    assert_eq!(ask(&service, Picture).await.text, "Hello");
}

#[tokio::test]
async fn what_the_demo_cannot_do_is_refused() {
    let nowhere = nobody().await;
    let demo = Service::probed(&settings(&[(Demo, &nowhere)])).await;
    for answer in [ask(&demo, Picture).await, ask(&demo, Tool("auto")).await] {
        assert_eq!(answer.summary(), "UnsupportedByModel");
    }
    assert!(ask(&demo, Tool("none")).await.text.contains("not a language model"));
    let embed = |service: &Service| service.llm.resolve_embedding(None);
    assert!(matches!(embed(&demo), Err(ModelError::UnsupportedByModel(_))));
    let stand_in = Service::probed(&settings(&[(Ollama, &nowhere), (Demo, &nowhere)])).await;
    assert!(matches!(embed(&stand_in), Err(ModelError::Unavailable(_))));
}

#[tokio::test]
async fn the_models_own_window_is_used_and_not_sent() {
    for (parameters, configured, window, sent) in [
        ("num_ctx                        2048", None, 2048, Value::Null),
        ("num_ctx 2048", Some(4096), 4096, json!(4096)),
        ("temperature 1", None, 8192, json!(8192)),
        ("", Some(100_000), 32_768, json!(32_768)),
    ] {
        let server = ollama(parameters, json!(["completion"])).await;
        let mut settings = settings(&[(Ollama, &server.url)]);
        settings.ollama.context_window = configured.map(|window: u32| window.try_into().unwrap());
        let service = Service::probed(&settings).await;
        assert_eq!(service.llm.resolve(Some("tiny")).unwrap().window, window);
        assert_eq!(service.ask().await.text, "Hello");
        let [chat] = server.chats().try_into().unwrap();
        assert_eq!(chat.body["options"]["num_ctx"], sent, "{parameters} {configured:?}");
        assert_eq!((&chat.body["shift"], &chat.body["truncate"]), (&json!(false), &json!(false)));
    }
}

#[tokio::test]
async fn models_are_told_apart_by_what_they_do_and_named_as_ollama_names_them() {
    let server = ollama("", json!(["completion"])).await;
    let service = Service::probed(&settings(&[(Ollama, &server.url)])).await;
    let models = service.llm.models();
    let chat: Vec<_> = models.iter().map(|model| (model.id.as_str(), model.can_chat())).collect();
    assert_eq!(chat, [("tiny:latest", true), ("embed:latest", false)]);
    assert!(matches!(service.llm.resolve(Some("embed")), Err(ModelError::UnsupportedByModel(_))));
    for name in ["TINY", "tiny:LATEST", "library/tiny"] {
        assert!(service.llm.resolve(Some(name)).is_ok(), "{name}");
    }
    for name in ["gpt-oss:120b-cloud", "gpt-4o"] {
        let Err(ModelError::NotFound(text)) = service.llm.resolve(Some(name)) else {
            panic!("{name}");
        };
        assert!(!text.contains("ollama pull"), "{text}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_server_is_told_with_what_to_do() {
    let refused = recorded("ollama-real/21-foreign-host.http");
    let not_found = vec![Action::Send(response("404 Not Found", "", "404 page not found"))];
    let page =
        vec![Action::Send(response("200 OK", "Content-Type: text/html\r\n", "<html>Hi</html>"))];
    for (actions, path, parts) in [
        (refused, "", ["/api/tags answered 403", "OLLAMA_HOST"]),
        (not_found, "api", ["/api/api/tags answered 404", "llm.ollama.base_url"]),
        (page, "", ["/api/tags answered 200", "llm.ollama.base_url"]),
    ] {
        let server = Server::start(move |_, _| actions.clone()).await;
        let url: Url = server.url.join(path).unwrap();
        let service = Service::probed(&settings(&[(Ollama, &url)])).await;
        let (_, problem) = service.llm.problems().remove(0);
        for part in parts {
            assert!(problem.shown.contains(part) && problem.reason.contains(part), "{problem:?}");
        }
        assert!(!problem.reason.contains("127.0.0.1"), "{problem:?}");
        assert_eq!(problem.reason.contains("page not found"), path == "api", "{problem:?}");
        assert!(!problem.shown.contains("page not found"), "{problem:?}");
    }
    let fine = ollama("", json!(["completion"])).await;
    let service = Service::probed(&settings(&[(Ollama, &fine.url)])).await;
    assert!(service.llm.problems().is_empty());
}

#[tokio::test]
async fn a_model_that_is_listed_twice_is_told_once() {
    let list = r#"{"data":[{"id":"a"},{"id":"a"},{"id":"b"}]}"#;
    let server = Server::start(|_, _| vec![Action::Send(response("200 OK", "", list))]).await;
    let service = Service::probed(&settings(&[(OpenAi, &server.url)])).await;
    let ids: Vec<_> = service.llm.models().into_iter().map(|model| model.id).collect();
    assert_eq!(ids, ["a", "b"]);
}

/// A message that asks for thoughts.
struct Thoughtful;

impl Prompt for Thoughtful {
    fn fit(&self, model: &str, window: u32) -> ChatRequest {
        let effort = json!({ "reasoning_effort": "high", "seed": 1 });
        ChatRequest {
            options: Options { think: Some(Think::Enabled(true)), ..Options::default() },
            extra: Arc::new(effort.as_object().cloned().unwrap()),
            ..Say("Hi").fit(model, window)
        }
    }
}

#[tokio::test]
async fn a_model_that_is_found_not_to_think_answers_without_thoughts() {
    let server = Server::chatting(|before| match before {
        0 => recorded("ollama-real/25-no-thinking.http"),
        _ => hello(),
    })
    .await;
    let service = Service::probed(&settings(&[(Ollama, &server.url)])).await;
    let route = service.llm.resolve(None).unwrap();
    let generation = service.llm.enqueue(&route, &UserId::parse("a").unwrap()).unwrap();
    let answer = Answer::read(generation.begin(Arc::new(Thoughtful))).await;
    assert_eq!(answer.text, "Hello");
    let thinks: Vec<bool> =
        server.chats().iter().map(|chat| chat.body.get("think").is_some()).collect();
    assert_eq!(thinks, [true, false]);
}

/// A conversation of four messages, of which so many fit a window.
struct Conversation(fn(u32) -> u32);

impl Prompt for Conversation {
    fn fit(&self, model: &str, window: u32) -> ChatRequest {
        let message = PromptMessage { role: "user".into(), content: "Hi".to_owned(), extra: None };
        let kept = (self.0)(window).clamp(1, 4);
        ChatRequest {
            model: model.to_owned(),
            messages: vec![message; kept as usize].into(),
            window,
            prompt_estimate: 1500 * kept,
            dropped: u64::from(4 - kept),
            ..ChatRequest::default()
        }
    }
}

#[tokio::test]
async fn a_conversation_that_does_not_fit_by_the_servers_count_is_cut_and_counted() {
    let told = r#"{"error":"{\"type\":\"exceed_context_size_error\",\"n_prompt_tokens\":10000,\"n_ctx\":8192}"}"#;
    let untold = r#"{"error":"prompt is too long"}"#;
    let by_size: fn(u32) -> u32 = |window| window / 2048;
    // What fits one half of the window fits by our estimate as well as what fits all of it.
    let late: fn(u32) -> u32 = |window| if window >= 4096 { 4 } else { 1 };
    let cases = [
        (untold, by_size, 3, Some(1), 2),
        (untold, by_size, 1, Some(3), 4),
        (untold, late, 3, Some(3), 2),
        (told, by_size, 3, Some(2), 2),
        (told, late, 1, Some(3), 2),
        (told, by_size, 0, None, 3),
    ];
    for (refusal, kept, most, dropped, requests) in cases {
        let refusal = response("400 Bad Request", "", refusal);
        let server = Server::start(move |request, _| match request.path.as_str() {
            "/api/chat" if request.body["messages"].as_array().unwrap().len() > most => {
                vec![Action::Send(refusal.clone())]
            }
            "/api/chat" => hello(),
            _ => vec![Action::Send(response("200 OK", "", "{\"models\":[{\"name\":\"tiny\"}]}"))],
        })
        .await;
        let service = Service::probed(&settings(&[(Ollama, &server.url)])).await;
        let route = service.llm.resolve(None).unwrap();
        let generation = service.llm.enqueue(&route, &UserId::parse("a").unwrap()).unwrap();
        let answer = Answer::read(generation.begin(Arc::new(Conversation(kept)))).await;
        assert_eq!((answer.dropped, server.chats().len()), (dropped, requests), "{answer:?}");
        assert_eq!(answer.error.is_none(), dropped.is_some(), "{answer:?}");
        let last = &server.chats()[requests - 1].body;
        assert_eq!(last["options"]["num_ctx"], 8192);
    }
}

//! Routing by the last health probes.

use std::time::Duration;

use chat::llm::ModelError;
use common::config::ProviderKind::{Demo, Ollama, OpenAi};
use tokio::net::TcpListener;
use url::Url;

use crate::{
    server::{Action, Server, hello, response},
    support::{Service, nobody, settings},
};

#[tokio::test]
async fn a_model_that_the_servers_lack_is_told_with_the_command_that_gets_it() {
    let server = Server::chatting(|_| hello()).await;
    let service = Service::probed(&settings(&[(Ollama, &server.url), (Demo, &server.url)])).await;
    let missing = |name: &str| match service.llm.resolve(Some(name)) {
        Err(ModelError::NotFound(text)) => text,
        other => panic!("{other:?}"),
    };
    assert!(missing("gemma3:1b").contains("`ollama pull gemma3:1b`"));
    for name in ["x; rm -rf /", "a\nb", "`id`"] {
        assert!(!missing(name).contains(name) && !missing(name).contains("pull"));
    }
    missing("../../x");
    missing("http://elsewhere/x");
    assert_eq!(service.llm.resolve(Some("tiny:latest")).unwrap().window, 4096);
    assert_eq!(service.llm.resolve(Some("tiny")).unwrap().provider, Ollama);
    assert!(server.chats().is_empty());
    assert!(
        server
            .requests()
            .iter()
            .all(|request| ["/api/tags", "/api/show"].contains(&request.path.as_str()))
    );
}

#[tokio::test]
async fn the_first_provider_that_is_up_and_has_the_model_is_chosen() {
    let (ollama, openai) =
        (Server::chatting(|_| hello()).await, Server::chatting(|_| hello()).await);
    let mut settings = settings(&[(Ollama, &ollama.url), (OpenAi, &openai.url)]);
    settings.openai.context_window = Some(1000.try_into().unwrap());
    let service = Service::probed(&settings).await;
    assert_eq!(service.llm.resolve(Some("tiny")).unwrap().provider, Ollama);
    drop(ollama);
    service
        .until(|llm| llm.status()[0].up == Some(false) || llm.resolve(Some("tiny")).is_ok())
        .await;
    let answer = service.ask().await;
    assert_eq!(answer.provider, answer.error.is_none().then_some(OpenAi));
    service.until(|llm| llm.status()[0].up == Some(false)).await;
    let route = service.llm.resolve(Some("tiny")).unwrap();
    assert_eq!((route.provider, route.window), (OpenAi, 1000));
    let listed = service.llm.models();
    assert_eq!(listed.len(), 1);
    assert!(
        (listed[0].id.as_str(), listed[0].window, listed[0].is_default) == ("tiny", 1000, true)
    );
}

#[tokio::test]
async fn a_server_that_is_down_is_unavailable_at_once_and_back_within_two_seconds() {
    let nowhere = nobody().await;
    let service = Service::probed(&settings(&[(Ollama, &nowhere)])).await;
    assert!(matches!(service.llm.resolve(None), Err(ModelError::Unavailable(_))));
    assert!(service.llm.models().is_empty());
    let listener = TcpListener::bind(nowhere.socket_addrs(|| None).unwrap()[0]).await.unwrap();
    let _server = Server::on(listener, |request, _| match request.path.as_str() {
        "/api/chat" => hello(),
        _ => vec![Action::Send(response("200 OK", "", "{\"models\":[{\"name\":\"tiny\"}]}"))],
    });
    let back = service.until(|llm| llm.resolve(None).is_ok());
    tokio::time::timeout(Duration::from_secs(3), back).await.unwrap();
    assert_eq!(service.ask().await.text, "Hello");
}

#[tokio::test]
async fn windows_come_from_the_list_or_the_model_itself_and_are_asked_for_once() {
    let server = Server::start(|request, _| {
        let body = match (request.path.as_str(), request.body["model"].as_str()) {
            ("/api/tags", _) => r#"{"models":[{"name":"a:1","digest":"x"},{"name":"b:1","digest":"y"},{"name":"c:1"}]}"#,
            ("/api/show", Some("a:1")) => r#"{"model_info":{"general.architecture":"llama","llama.context_length":2048}}"#,
            ("/api/show", Some("b:1")) => r#"{"model_info":{}}"#,
            ("/api/ps", _) => r#"{"models":[{"name":"b:1","context_length":1024}]}"#,
            _ => return crate::server::status("404 Not Found", ""),
        };
        vec![Action::Send(response("200 OK", "", body))]
    })
    .await;
    let service = Service::probed(&settings(&[(Ollama, &server.url)])).await;
    let windows: Vec<_> =
        ["a:1", "b:1", "c:1"].map(|name| service.llm.resolve(Some(name)).unwrap().window).into();
    assert_eq!(windows, [2048, 1024, 8192]);
}

#[tokio::test]
async fn a_server_without_a_model_list_is_tried_all_the_same() {
    for list in ["nonsense", "{\"error\":\"Unexpected endpoint\"}"] {
        let server = Server::start(move |request, _| match request.path.as_str() {
            "/v1/chat/completions" => vec![Action::Send(response("200 OK",
                "Content-Type: application/json\r\n",
                "{\"choices\":[{\"message\":{\"content\":\"whole\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}",
            ))],
            _ => vec![Action::Send(response("200 OK", "", list))],
        })
        .await;
        let mut settings = settings(&[(OpenAi, &server.url)]);
        settings.openai.base_url = server.url.join("/v1").unwrap();
        settings.openai.api_key = Some("sesame".to_owned().into());
        let service = Service::probed(&settings).await;
        assert_eq!(service.ask().await.summary(), "text=\"whole\" Stop 1+2");
        assert!(
            server
                .requests()
                .iter()
                .all(|request| request.head.contains("authorization: Bearer sesame"))
        );
    }
}

#[tokio::test]
async fn a_name_that_does_not_resolve_and_a_server_without_tls_are_unavailable() {
    let server = Server::chatting(|_| hello()).await;
    let plain = format!("https://{}", server.url.authority());
    for url in [plain.as_str(), "http://no-such-host.invalid:1"] {
        let service = Service::unprobed(&settings(&[(Ollama, &Url::parse(url).unwrap())]));
        let error = service.ask().await.error.unwrap();
        assert!(matches!(error, ModelError::Unavailable(_)), "{error}");
    }
    assert!(server.chats().is_empty(), "no fallback to plain");
}

//! Embeddings of both kinds of servers: in parts that answers go between, with the retries and the failover of answers.

use std::{sync::Arc, time::Duration};

use chat::llm::{EmbeddedPart, EmbeddingInput, EmbeddingRequest, EmbeddingRun, ModelError};
use common::{
    config::ProviderKind::{Ollama, OpenAi},
    identity::UserId,
};
use serde_json::{Value, json};

use crate::{
    server::{Action, Request, Server, hello, model_list, response},
    support::{Answer, Service, kind, settings},
};

fn texts(texts: &[String]) -> EmbeddingRequest {
    EmbeddingRequest {
        input: EmbeddingInput::Texts(texts.into()),
        dimensions: None,
        truncate: false,
        request_id: Arc::from("r"),
    }
}

fn many(count: usize) -> EmbeddingRequest {
    let list: Vec<_> = (0..count).map(|number| number.to_string()).collect();
    texts(&list)
}

/// What a server answers to a request for embeddings: for each input its length and its own number.
fn embedded(request: &Request) -> Vec<Action> {
    let inputs = request.body["input"].as_array().cloned().unwrap();
    let vector = |input: &Value| match input.as_str() {
        Some(text) => json!([text.len(), text.parse::<f32>().unwrap_or(0.5)]),
        None => json!([input.as_array().unwrap().len(), 0.25]),
    };
    let vectors = inputs.iter().map(vector);
    let body = if request.path == "/api/embed" {
        json!({ "embeddings": vectors.collect::<Vec<_>>(), "prompt_eval_count": inputs.len() })
    } else {
        // Out of order, as the index allows.
        let data = vectors
            .enumerate()
            .map(|(index, vector)| json!({ "index": index, "embedding": vector }));
        json!({ "data": data.rev().collect::<Vec<_>>(), "usage": { "prompt_tokens": inputs.len() } })
    };
    vec![Action::Send(response("200 OK", "", &body.to_string()))]
}

/// A server that does this for embeddings, and chats.
async fn embedding(
    answer: impl Fn(&Request, usize) -> Vec<Action> + Send + Sync + 'static,
) -> Server {
    Server::start(move |request, before| match request.path.as_str() {
        "/api/embed" | "/v1/embeddings" => answer(request, before),
        "/api/chat" => hello(),
        _ => model_list(request),
    })
    .await
}

fn asked(server: &Server) -> Vec<Request> {
    let mut requests = server.requests();
    requests.retain(|request| {
        request.path.ends_with("/embed") || request.path.ends_with("/embeddings")
    });
    requests
}

fn enqueue(service: &Service, user: &str) -> Result<EmbeddingRun, ModelError> {
    let route = service.llm.resolve_embedding(None)?;
    service.llm.enqueue_embedding(&route, &UserId::parse(user).unwrap())
}

async fn parts(
    service: &Service,
    request: &EmbeddingRequest,
) -> Result<Vec<EmbeddedPart>, ModelError> {
    let mut run = enqueue(service, "alice")?;
    let mut parts = Vec::new();
    while let Some(part) = run.next(request).await? {
        parts.push(part);
    }
    Ok(parts)
}

async fn error_of(service: &Service, request: &EmbeddingRequest) -> &'static str {
    parts(service, request).await.map_or_else(|error| kind(&error), |_| "embedded")
}

#[tokio::test]
async fn every_input_gets_its_vector_whatever_the_server_is() {
    for provider in [Ollama, OpenAi] {
        let server = embedding(|request, _| embedded(request)).await;
        let service = Service::probed(&settings(&[(provider, &server.url)])).await;
        let parts = parts(&service, &many(70)).await.unwrap();
        let vectors: Vec<_> = parts.iter().flat_map(|part| part.vectors.clone()).collect();
        let expected =
            (0..70_u8).map(|number| vec![f32::from(1 + u8::from(number > 9)), f32::from(number)]);
        assert_eq!(vectors, expected.collect::<Vec<_>>());
        assert_eq!(parts.iter().filter_map(|part| part.tokens).sum::<u64>(), 70);
        let sizes: Vec<_> = asked(&server)
            .iter()
            .map(|request| request.body["input"].as_array().unwrap().len())
            .collect();
        assert_eq!(sizes, [32, 32, 6]);
        assert!(asked(&server)[0].head.to_lowercase().contains("x-request-id: r"));
        service.idle().await;
    }
}

#[tokio::test]
async fn an_input_that_the_server_calls_bad_is_the_callers() {
    for provider in [Ollama, OpenAi] {
        let bad = || vec![Action::Send(response("400 Bad Request", "", r#"{"error":"no"}"#))];
        let server = embedding(move |_, _| bad()).await;
        let service = Service::probed(&settings(&[(provider, &server.url)])).await;
        assert_eq!(error_of(&service, &many(1)).await, "InvalidRequest");
        service.idle().await;
    }
}

#[tokio::test]
async fn an_answer_that_waits_goes_between_the_parts_of_an_import() {
    let server = embedding(|request, _| {
        [vec![Action::Wait(Duration::from_millis(50))], embedded(request)].concat()
    })
    .await;
    let mut settings = settings(&[(Ollama, &server.url)]);
    settings.ollama.max_concurrency = 1.try_into().unwrap();
    let service = Service::probed(&settings).await;
    let request = many(32 * 4);
    let mut import = enqueue(&service, "importer").unwrap();
    let other = enqueue(&service, "importer").unwrap();
    import.next(&request).await.unwrap().unwrap();
    let person = service.enqueue("person").unwrap();
    drop(other);
    let rest = async { while import.next(&request).await.unwrap().is_some() {} };
    let (answer, ()) = tokio::join!(Answer::read(person), rest);
    assert_eq!(answer.text, "Hello");
    let order: Vec<_> = server
        .requests()
        .into_iter()
        .map(|request| request.path)
        .filter(|path| path.contains("/chat") || path.contains("/embed"))
        .collect();
    assert_eq!(order, ["/api/embed", "/api/chat", "/api/embed", "/api/embed", "/api/embed"]);
    drop(import);
    service.idle().await;
}

#[tokio::test]
async fn another_server_stands_in_before_the_first_part_and_not_after() {
    for (good_parts, expected) in [(0, "embedded"), (1, "Failed")] {
        let broken = move |request: &Request, before: usize| {
            if before < good_parts {
                return embedded(request);
            }
            vec![Action::Send(response("500 Internal Server Error", "", "{\"error\":\"secret\"}"))]
        };
        let (first, second) =
            (embedding(broken).await, embedding(|request, _| embedded(request)).await);
        let service =
            Service::probed(&settings(&[(Ollama, &first.url), (OpenAi, &second.url)])).await;
        assert_eq!(error_of(&service, &many(40)).await, expected);
        assert_eq!(asked(&second).len(), if good_parts == 0 { 2 } else { 0 });
        service.idle().await;
    }
}

#[tokio::test]
async fn what_may_have_passed_is_tried_once_more_and_outages_open_the_breaker() {
    let server = embedding(|request, before| match before {
        0 => vec![Action::Send(response("503 Service Unavailable", "", ""))],
        _ => embedded(request),
    })
    .await;
    let service = Service::probed(&settings(&[(Ollama, &server.url)])).await;
    assert_eq!(error_of(&service, &many(1)).await, "embedded");
    let away =
        embedding(|_, _| vec![Action::Send(response("503 Service Unavailable", "", ""))]).await;
    let mut settings = settings(&[(Ollama, &away.url)]);
    settings.ollama.breaker_failures = 2;
    let service = Service::probed(&settings).await;
    assert_eq!(error_of(&service, &many(1)).await, "Unavailable");
    assert!(service.llm.status()[0].breaker_open);
}

#[tokio::test]
async fn what_a_model_cannot_do_is_told_as_such() {
    let chats_only = r#"{"error":{"code":501,"message":"This server does not support embeddings. Start it with `--embeddings`","type":"not_supported_error"}}"#;
    let too_long = r#"{"error":{"code":500,"message":"input (1234 tokens) is too large to process. increase the physical batch size (current batch size: 512)"}}"#;
    for (body, error) in [(chats_only, "UnsupportedByModel"), (too_long, "ContextTooLong")] {
        let server =
            embedding(move |_, _| vec![Action::Send(response("501 Not Implemented", "", body))])
                .await;
        let service = Service::probed(&settings(&[(OpenAi, &server.url)])).await;
        assert_eq!(error_of(&service, &many(1)).await, error);
    }
    let server = embedding(|request, _| embedded(request)).await;
    let service = Service::probed(&settings(&[(Ollama, &server.url)])).await;
    let other_length = EmbeddingRequest { dimensions: Some(5), ..many(1) };
    assert_eq!(error_of(&service, &other_length).await, "UnsupportedByModel");
    assert_eq!(asked(&server)[0].body["dimensions"], 5);
    let tokens =
        EmbeddingRequest { input: EmbeddingInput::Tokens(vec![vec![1, 2, 3]].into()), ..many(1) };
    assert_eq!(error_of(&service, &tokens).await, "UnsupportedByModel");
    let server = embedding(|request, _| embedded(request)).await;
    let service = Service::probed(&settings(&[(OpenAi, &server.url)])).await;
    let vectors = parts(&service, &tokens).await.unwrap().remove(0).vectors;
    assert_eq!(vectors, [[3.0, 0.25]]);
}

#[tokio::test]
async fn an_answer_that_does_not_fit_the_inputs_is_a_failure() {
    for body in [
        json!({ "embeddings": [] }),
        json!({ "embeddings": [[]] }),
        json!({ "embeddings": [[1.0], [2.0]] }),
        json!({ "embeddings": [[null]] }),
        json!({ "embeddings": [[1e39]] }),
        json!({ "embedding": [1.0] }),
    ] {
        let text = body.to_string();
        let server = embedding(move |_, _| vec![Action::Send(response("200 OK", "", &text))]).await;
        let service = Service::probed(&settings(&[(Ollama, &server.url)])).await;
        assert_eq!(error_of(&service, &many(1)).await, "Failed", "{body}");
    }
}

#[tokio::test]
async fn leaving_closes_the_connection_and_gives_the_place_back() {
    let server = embedding(|_, _| vec![Action::Hold]).await;
    let service = Service::probed(&settings(&[(Ollama, &server.url)])).await;
    let mut run = enqueue(&service, "alice").unwrap();
    let request = many(1);
    tokio::select! {
        _ = run.next(&request) => panic!("the server says nothing"),
        () = service.until(|_| !asked(&server).is_empty()) => {}
    }
    drop(run);
    server.saw_closed(1, Duration::from_secs(1)).await;
    service.idle().await;
}

#[tokio::test]
async fn imports_leave_a_slot_to_answers_and_their_lane_is_bounded() {
    let server = embedding(|_, _| vec![Action::Hold]).await;
    let mut settings = settings(&[(Ollama, &server.url)]);
    settings.ollama.max_concurrency = 3.try_into().unwrap();
    settings.ollama.queue = 2;
    let service = Service::probed(&settings).await;
    let held: Vec<_> = std::iter::from_fn(|| enqueue(&service, "importer").ok()).collect();
    let status = service.llm.status()[0];
    assert_eq!((status.running, status.waiting), (2, 1), "of two places one user has one");
    assert_eq!(service.ask().await.text, "Hello");
    assert!(enqueue(&service, "somebody").is_ok());
    drop(held);
    service.idle().await;
}

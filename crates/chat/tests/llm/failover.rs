//! Retries, failover to the next provider, and the errors that callers get.

use std::{sync::Arc, time::Duration};

use chat::llm::ModelError;
use common::config::ProviderKind::{Demo, Ollama, OpenAi};

use crate::{
    server::{Action, DONE, Server, hello, line, piece, response, status, stream_head},
    support::{Answer, Service, kind, nobody, settings},
};

#[tokio::test]
async fn an_answer_is_asked_for_once_and_streamed_with_the_models_own_window() {
    let server = Server::chatting(|_| hello()).await;
    let service = Service::probed(&settings(&[(Ollama, &server.url)])).await;
    let answer = service.ask().await;
    assert_eq!(answer.summary(), "text=\"Hello\" Stop 3+2");
    let [chat] = server.chats().try_into().unwrap();
    assert_eq!(chat.path, "/api/chat");
    assert_eq!((&chat.body["stream"], &chat.body["model"]), (&true.into(), &"tiny".into()));
    assert_eq!(
        (&chat.body["options"]["num_ctx"], &chat.body["options"]["num_predict"]),
        (&4096.into(), &4086.into())
    );
    service.idle().await;
}

#[tokio::test]
async fn what_may_have_passed_is_tried_once_more() {
    for first in [
        "429 Too Many Requests",
        "502 Bad Gateway",
        "503 Service Unavailable",
        "504 Gateway Timeout",
    ] {
        let server =
            Server::chatting(move |before| if before == 0 { status(first, "") } else { hello() })
                .await;
        let service = Service::probed(&settings(&[(Ollama, &server.url)])).await;
        assert_eq!(service.ask().await.text, "Hello", "{first}");
        assert_eq!(server.chats().len(), 2);
    }
    let nothing = piece(&format!("\n{}", line("")));
    let empty = response("200 OK", "", "");
    for first in [
        vec![Action::Reset],
        vec![Action::Send(stream_head()), Action::Reset],
        vec![Action::Send([stream_head(), nothing].concat()), Action::Reset],
        vec![Action::Send(empty)],
    ] {
        let server =
            Server::chatting(move |before| if before == 0 { first.clone() } else { hello() }).await;
        let service = Service::probed(&settings(&[(Ollama, &server.url)])).await;
        assert_eq!((service.ask().await.text.as_str(), server.chats().len()), ("Hello", 2));
    }
}

#[tokio::test]
async fn a_runner_that_died_is_asked_once_more() {
    let died = "{\"error\":\"llama-server process no longer running: unknown \"}";
    let server = Server::chatting(move |before| match before {
        0 => vec![Action::Send(response("500 Internal Server Error", "", died))],
        _ => hello(),
    })
    .await;
    let service = Service::probed(&settings(&[(Ollama, &server.url)])).await;
    assert_eq!(service.ask().await.text, "Hello");
    let in_stream = [stream_head(), piece(&format!("{died}\n")), piece("")].concat();
    let server = Server::chatting(move |before| match before {
        0 => vec![Action::Send(in_stream.clone())],
        _ => hello(),
    })
    .await;
    let service = Service::probed(&settings(&[(Ollama, &server.url)])).await;
    assert_eq!(service.ask().await.text, "Hello");
    let server = Server::chatting(move |_| {
        vec![Action::Send(response("500 Internal Server Error", "", died))]
    })
    .await;
    let service = Service::probed(&settings(&[(Ollama, &server.url)])).await;
    assert_eq!((service.ask().await.summary().as_str(), server.chats().len()), ("Failed", 2));
}

#[tokio::test]
async fn a_provider_is_asked_twice_at_most_whatever_fails() {
    let say = |text| format!("{{\"error\":\"{text}\"}}\n");
    let crash = say("llama-server process no longer running");
    let in_stream = |error: &str| vec![Action::Send([stream_head(), piece(error)].concat())];
    let busy_line = in_stream(&say("server busy, please try again"));
    let (crash_line, outage) = (in_stream(&crash), status("503 Service Unavailable", ""));
    let cut = vec![Action::Send(stream_head()), Action::Reset];
    let crashed = vec![Action::Send(response("500 Internal Server Error", "", &crash))];
    for failing in [
        [&outage, &busy_line],
        [&outage, &crash_line],
        [&crashed, &crash_line],
        [&busy_line, &outage],
        [&crash_line, &crashed],
        [&vec![Action::Reset], &outage],
        [&vec![Action::Reset], &cut],
        [&cut, &cut],
        [&outage, &cut],
    ] {
        let failing = failing.map(Clone::clone);
        let server =
            Server::chatting(move |before| failing.get(before).cloned().unwrap_or_else(hello))
                .await;
        let service = Service::probed(&settings(&[(Ollama, &server.url)])).await;
        let answer = service.ask().await;
        assert!(answer.error.is_some() && server.chats().len() == 2, "{:?}", server.chats());
    }
}

#[tokio::test]
async fn dead_idle_connections_fail_no_request() {
    let server = Server::start(|request, before| match request.path.as_str() {
        // Later requests on a connection meet a server that has forgotten it.
        "/api/chat" if before >= 8 && !request.is_first => vec![Action::Reset],
        "/api/chat" => hello(),
        _ => crate::server::model_list(request),
    })
    .await;
    let mut settings = settings(&[(Ollama, &server.url)]);
    settings.ollama.max_concurrency = 8.try_into().unwrap();
    settings.ollama.breaker_failures = 1;
    let service = Service::probed(&settings).await;
    for _ in 0..3 {
        let asked = (0..8).map(|_| service.ask());
        for answer in futures_util::future::join_all(asked).await {
            assert_eq!(answer.summary(), "text=\"Hello\" Stop 3+2");
        }
    }
    assert!(!service.llm.status()[0].breaker_open);
}

#[tokio::test]
async fn nothing_is_tried_more_than_twice_and_nothing_else_is_tried_again() {
    for (said, tries, means) in [
        ("502 Bad Gateway", 2, "Unavailable"),
        ("503 Service Unavailable", 2, "Unavailable"),
        ("504 Gateway Timeout", 2, "Unavailable"),
        ("500 Internal Server Error", 1, "Failed"),
        ("400 Bad Request", 1, "Failed"),
        ("401 Unauthorized", 1, "Failed"),
        ("403 Forbidden", 1, "Failed"),
        ("413 Payload Too Large", 1, "Failed"),
        ("404 Not Found", 1, "NotFound"),
        ("302 Found", 1, "Failed"),
        ("204 No Content", 2, "Failed"),
        ("no HTTP at all", 1, "Failed"),
    ] {
        let server = Server::chatting(move |_| match said {
            "204 No Content" => vec![Action::Send(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())],
            "no HTTP at all" => vec![Action::Send(b"-ERR unknown command\r\n\r\n".to_vec())],
            said => status(said, "Location: /elsewhere\r\n"),
        })
        .await;
        let service = Service::probed(&settings(&[(Ollama, &server.url)])).await;
        let error = service.ask().await.error.unwrap();
        assert_eq!((kind(&error), server.chats().len()), (means, tries), "{said}: {error}");
        if let ModelError::NotFound(text) = error {
            assert_eq!(text, "The model `tiny` is not there yet; `ollama pull tiny` gets it.");
        }
        service.idle().await;
    }
}

#[tokio::test]
async fn a_failure_before_the_first_token_goes_on_to_the_next_provider() {
    let failures: [(&str, Vec<Action>); 6] = [
        ("a bad status", status("500 Internal Server Error", "")),
        ("an outage", status("503 Service Unavailable", "")),
        (
            "an error in the stream",
            vec![Action::Send([stream_head(), piece("{\"error\":\"x\"}\n"), piece("")].concat())],
        ),
        ("an empty stream", vec![Action::Send([stream_head(), piece("")].concat())]),
        (
            "a page",
            vec![Action::Send(response(
                "200 OK",
                "Content-Type: text/html\r\n",
                "<html>Hi</html>",
            ))],
        ),
        ("a cut", vec![Action::Send(stream_head()), Action::Reset]),
    ];
    for (what, actions) in failures {
        let bad = Server::chatting(move |_| actions.clone()).await;
        let good = Server::chatting(|_| {
            let body = "data: {\"choices\":[{\"delta\":{\"content\":\"Yo\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
            vec![Action::Send(response("200 OK", "", body))]
        })
        .await;
        let service = Service::probed(&settings(&[
            (Ollama, &bad.url),
            (OpenAi, &good.url),
            (Demo, &bad.url),
        ]))
        .await;
        let answer = service.ask().await;
        assert_eq!(
            (answer.text.as_str(), answer.provider),
            ("Yo", Some(OpenAi)),
            "{what}: {:?}",
            answer.error
        );
        assert_eq!(good.chats()[0].body.get("max_tokens"), None);
        service.idle().await;
    }
}

#[tokio::test]
async fn a_failure_after_the_first_token_ends_the_answer() {
    let begun = [stream_head(), piece(&line("one "))].concat();
    let error = |text| vec![Action::Send(piece(&format!("{{\"error\":\"{text}\"}}\n")))];
    for (what, then) in [
        ("a refused prompt", error("prompt is too long: maximum context length is 8")),
        ("a lost model", error("model runner not found: tiny")),
        ("refused tools", error("tiny does not support tools")),
        ("a busy server", error("server busy, please try again")),
        ("a reset", vec![Action::Reset]),
        ("a clean end without done", vec![Action::Send(piece("")), Action::Close]),
        ("an end inside a line", vec![Action::Send([piece("{\"mess"), piece("")].concat())]),
        (
            "an error line",
            vec![Action::Send([piece("{\"error\":{\"message\":\"x\"}}\n"), piece("")].concat())],
        ),
        ("garbage", vec![Action::Send([piece("\u{0}\u{1}garbage\n"), piece("")].concat())]),
        (
            "bytes that are no text",
            vec![Action::Send(
                b"1b\r\n{\"message\":{\"content\":\"\xff\"}}\n\r\n0\r\n\r\n".to_vec(),
            )],
        ),
        ("load", vec![Action::Send(piece(&DONE.replace("stop", "load")))]),
    ] {
        let actions = [vec![Action::Send(begun.clone())], then].concat();
        let server = Server::chatting(move |_| actions.clone()).await;
        let other = Server::chatting(|_| hello()).await;
        let service = Service::probed(&settings(&[
            (Ollama, &server.url),
            (OpenAi, &other.url),
            (Demo, &other.url),
        ]))
        .await;
        let answer = service.ask().await;
        assert_eq!(answer.summary(), "text=\"one \" Failed", "{what}");
        assert_eq!((server.chats().len(), other.chats().len()), (1, 0), "{what}");
        service.idle().await;
    }
}

#[tokio::test]
async fn the_demo_answers_where_nobody_is_there_and_only_there() {
    let nowhere = nobody().await;
    let service = Service::probed(&settings(&[(Ollama, &nowhere), (Demo, &nowhere)])).await;
    let answer = service.ask().await;
    assert_eq!((answer.provider, answer.model.as_deref()), (Some(Demo), Some("demo")));
    assert!(
        answer.text.contains("not a language model") && answer.text.contains("ollama pull tiny")
    );

    let broken = Server::chatting(|_| status("500 Internal Server Error", "")).await;
    let service = Service::probed(&settings(&[(Ollama, &broken.url), (Demo, &nowhere)])).await;
    assert_eq!(service.ask().await.summary(), "Failed");
}

#[tokio::test]
async fn the_demo_answers_too_when_nobody_is_found_while_asking() {
    let nowhere = nobody().await;
    let service = Service::unprobed(&settings(&[(Ollama, &nowhere), (Demo, &nowhere)]));
    let route = service.llm.resolve(None).unwrap();
    assert_eq!(route.provider, Ollama);
    let generation =
        service.llm.enqueue(&route, &common::identity::UserId::parse("a").unwrap()).unwrap();
    let generation = generation.begin(Arc::new(crate::support::Say("Hi")));
    assert_eq!(Answer::read(generation).await.provider, Some(Demo));
}

#[tokio::test]
async fn dropping_the_wait_for_the_next_progress_loses_nothing() {
    let pause = || Action::Wait(Duration::from_millis(30));
    let server = Server::chatting(move |_| {
        let mut actions = vec![pause(), Action::Send(stream_head())];
        for word in ["a", "b", "c"] {
            actions.extend([pause(), Action::Send(piece(&line(word)))]);
        }
        actions.extend([pause(), Action::Send([piece(DONE), piece("")].concat())]);
        actions
    })
    .await;
    let service = Service::probed(&settings(&[(Ollama, &server.url)])).await;
    let mut generation = service.enqueue("alice").unwrap();
    let mut text = String::new();
    let listening = async {
        loop {
            let Ok(progress) =
                tokio::time::timeout(Duration::from_millis(1), generation.next()).await
            else {
                continue;
            };
            for one in progress.unwrap() {
                match one {
                    chat::llm::Chunk::Text(piece) => text.push_str(&piece),
                    chat::llm::Chunk::End { .. } => return,
                    _ => {}
                }
            }
        }
    };
    tokio::time::timeout(crate::support::TEST_TIMEOUT, listening).await.unwrap();
    assert_eq!((text.as_str(), server.chats().len()), ("abc", 1));
}

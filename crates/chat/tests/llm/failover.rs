//! Which provider answers, what is tried again, and what the caller hears when nobody can.

use std::{sync::Arc, time::Duration};

use chat::llm::ModelError;
use common::config::ProviderKind::{Demo, Ollama, OpenAi};

use crate::{
    server::{Act, DONE, Server, answer, hello, line, piece, status, stream_head},
    support::{Heard, Models, kind, nobody, settings},
};

#[tokio::test]
async fn an_answer_is_asked_for_once_and_streamed_with_the_models_own_window() {
    let server = Server::chatting(|_| hello()).await;
    let models = Models::looked(&settings(&[(Ollama, &server.url)])).await;
    let heard = models.ask().await;
    assert_eq!(heard.truncate(), "text=\"Hello\" Stop 3+2");
    let [chat] = server.chats().try_into().unwrap();
    assert_eq!(chat.path, "/api/chat");
    assert_eq!(
        (&chat.body["stream"], &chat.body["model"]),
        (&true.into(), &"tiny".into())
    );
    assert_eq!(
        (
            &chat.body["options"]["num_ctx"],
            &chat.body["options"]["num_predict"]
        ),
        (&4096.into(), &4086.into())
    );
    models.idle().await;
}

#[tokio::test]
async fn what_may_have_passed_is_tried_once_more() {
    for first in [
        "429 Too Many Requests",
        "502 Bad Gateway",
        "503 Service Unavailable",
        "504 Gateway Timeout",
    ] {
        let server = Server::chatting(move |before| {
            if before == 0 {
                status(first, "")
            } else {
                hello()
            }
        })
        .await;
        let models = Models::looked(&settings(&[(Ollama, &server.url)])).await;
        assert_eq!(models.ask().await.text, "Hello", "{first}");
        assert_eq!(server.chats().len(), 2);
    }
    let server = Server::chatting(|before| {
        if before == 0 {
            vec![Act::Reset]
        } else {
            hello()
        }
    })
    .await;
    let models = Models::looked(&settings(&[(Ollama, &server.url)])).await;
    assert_eq!(models.ask().await.text, "Hello");
}

#[tokio::test]
async fn nothing_is_tried_more_than_twice_and_nothing_else_is_tried_again() {
    for (said, tries, means) in [
        ("429 Too Many Requests", 2, "Busy"),
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
        ("204 No Content", 1, "Failed"),
        ("no HTTP at all", 1, "Failed"),
    ] {
        let server = Server::chatting(move |_| match said {
            "204 No Content" => vec![Act::Send(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())],
            "no HTTP at all" => vec![Act::Send(b"-ERR unknown command\r\n\r\n".to_vec())],
            said => status(said, "Location: /elsewhere\r\n"),
        })
        .await;
        let models = Models::looked(&settings(&[(Ollama, &server.url)])).await;
        let error = models.ask().await.error.unwrap();
        assert_eq!(
            (kind(&error), server.chats().len()),
            (means, tries),
            "{said}: {error}"
        );
        if let ModelError::NotFound(text) = error {
            assert_eq!(
                text,
                "The model `tiny` is not there yet; `ollama pull tiny` gets it."
            );
        }
        models.idle().await;
    }
}

#[tokio::test]
async fn a_failure_before_the_first_token_goes_on_to_the_next_provider() {
    let failures: [(&str, Vec<Act>); 6] = [
        ("a bad status", status("500 Internal Server Error", "")),
        ("an outage", status("503 Service Unavailable", "")),
        (
            "an error in the stream",
            vec![Act::Send(
                [stream_head(), piece("{\"error\":\"x\"}\n"), piece("")].concat(),
            )],
        ),
        (
            "an empty stream",
            vec![Act::Send([stream_head(), piece("")].concat())],
        ),
        (
            "a page",
            vec![Act::Send(answer(
                "200 OK",
                "Content-Type: text/html\r\n",
                "<html>Hi</html>",
            ))],
        ),
        ("a cut", vec![Act::Send(stream_head()), Act::Reset]),
    ];
    for (what, acts) in failures {
        let bad = Server::chatting(move |_| acts.clone()).await;
        let good = Server::chatting(|_| {
            let body = "data: {\"choices\":[{\"delta\":{\"content\":\"Yo\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
            vec![Act::Send(answer("200 OK", "", body))]
        })
        .await;
        let models = Models::looked(&settings(&[
            (Ollama, &bad.url),
            (OpenAi, &good.url),
            (Demo, &bad.url),
        ]))
        .await;
        let heard = models.ask().await;
        assert_eq!(
            (heard.text.as_str(), heard.provider),
            ("Yo", Some(OpenAi)),
            "{what}: {:?}",
            heard.error
        );
        assert_eq!(good.chats()[0].body.get("max_tokens"), None);
        models.idle().await;
    }
}

#[tokio::test]
async fn a_failure_after_the_first_token_ends_the_answer() {
    let begun = [stream_head(), piece(&line("one "))].concat();
    for (what, then) in [
        ("a reset", vec![Act::Reset]),
        (
            "a clean end without done",
            vec![Act::Send(piece("")), Act::Close],
        ),
        (
            "an end inside a line",
            vec![Act::Send([piece("{\"mess"), piece("")].concat())],
        ),
        (
            "an error line",
            vec![Act::Send(
                [piece("{\"error\":{\"message\":\"x\"}}\n"), piece("")].concat(),
            )],
        ),
        (
            "garbage",
            vec![Act::Send(
                [piece("\u{0}\u{1}garbage\n"), piece("")].concat(),
            )],
        ),
        (
            "bytes that are no text",
            vec![Act::Send(
                b"1b\r\n{\"message\":{\"content\":\"\xff\"}}\n\r\n0\r\n\r\n".to_vec(),
            )],
        ),
        (
            "load",
            vec![Act::Send(piece(&DONE.replace("stop", "load")))],
        ),
    ] {
        let acts = [vec![Act::Send(begun.clone())], then].concat();
        let server = Server::chatting(move |_| acts.clone()).await;
        let other = Server::chatting(|_| hello()).await;
        let models = Models::looked(&settings(&[
            (Ollama, &server.url),
            (OpenAi, &other.url),
            (Demo, &other.url),
        ]))
        .await;
        let heard = models.ask().await;
        assert_eq!(heard.truncate(), "text=\"one \" Failed", "{what}");
        assert_eq!(
            (server.chats().len(), other.chats().len()),
            (1, 0),
            "{what}"
        );
        models.idle().await;
    }
}

#[tokio::test]
async fn the_demo_answers_where_nobody_is_there_and_only_there() {
    let nowhere = nobody().await;
    let models = Models::looked(&settings(&[(Ollama, &nowhere), (Demo, &nowhere)])).await;
    let heard = models.ask().await;
    assert_eq!(
        (heard.provider, heard.model.as_deref()),
        (Some(Demo), Some("demo"))
    );
    assert!(heard.text.contains("not a language model") && heard.text.contains("ollama pull tiny"));

    let broken = Server::chatting(|_| status("500 Internal Server Error", "")).await;
    let models = Models::looked(&settings(&[(Ollama, &broken.url), (Demo, &nowhere)])).await;
    assert_eq!(models.ask().await.truncate(), "Failed");
}

#[tokio::test]
async fn the_demo_answers_too_when_nobody_is_found_while_asking() {
    let nowhere = nobody().await;
    let models = Models::unlooked(&settings(&[(Ollama, &nowhere), (Demo, &nowhere)]));
    let route = models.llm.resolve(None).unwrap();
    assert_eq!(route.provider, Ollama);
    let mut answering = models
        .llm
        .enqueue(&route, &common::identity::UserId::parse("a").unwrap())
        .unwrap();
    answering.begin(Arc::new(crate::support::Say("Hi")));
    assert_eq!(Heard::all(answering).await.provider, Some(Demo));
}

#[tokio::test]
async fn dropping_the_wait_for_the_next_progress_loses_nothing() {
    let pause = || Act::Wait(Duration::from_millis(30));
    let server = Server::chatting(move |_| {
        let mut acts = vec![pause(), Act::Send(stream_head())];
        for word in ["a", "b", "c"] {
            acts.extend([pause(), Act::Send(piece(&line(word)))]);
        }
        acts.extend([pause(), Act::Send([piece(DONE), piece("")].concat())]);
        acts
    })
    .await;
    let models = Models::looked(&settings(&[(Ollama, &server.url)])).await;
    let mut answering = models.enter("alice").unwrap();
    let mut text = String::new();
    let listening = async {
        loop {
            let Ok(progress) =
                tokio::time::timeout(Duration::from_millis(1), answering.next()).await
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
    tokio::time::timeout(crate::support::SOON, listening)
        .await
        .unwrap();
    assert_eq!((text.as_str(), server.chats().len()), ("abc", 1));
}

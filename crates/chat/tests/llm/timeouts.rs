//! Timeouts, retries and the circuit breaker.

use std::time::{Duration, Instant};

use chat::llm::ModelError;
use common::config::{
    self, Provider,
    ProviderKind::{Ollama, OpenAi},
};
use url::Url;

use crate::{
    fixtures::recorded,
    server::{Action, Server, hello, line, piece, status, stream_head},
    support::{Answer, Service, settings},
};

#[tokio::test]
async fn a_server_that_says_when_to_come_back_is_believed_for_a_few_seconds() {
    for (value, is_retried, passed_on) in [
        ("1", true, Some(1)),
        ("6", false, Some(6)),
        ("1000000000", false, Some(60)),
        ("Sun, 06 Nov 1994 08:49:37 GMT", true, Some(0)),
    ] {
        for said in ["429 Too Many Requests", "503 Service Unavailable"] {
            let header = format!("Retry-After: {value}\r\n");
            let server = Server::chatting(move |_| status(said, &header)).await;
            let mut settings = settings(&[(Ollama, &server.url)]);
            settings.ollama.first_token_timeout = Duration::from_millis(1500);
            let service = Service::probed(&settings).await;
            let start = Instant::now();
            let ModelError::Busy { retry_after } = service.ask().await.error.unwrap() else {
                panic!("{said} {value}");
            };
            assert_eq!(retry_after.map(|wait| wait.as_secs()), passed_on);
            assert_eq!(server.chats().len() > 1, is_retried, "{said} {value}");
            assert_eq!(
                server.chats().len() > 2,
                said.starts_with("429") && value != "1" && is_retried
            );
            assert!(start.elapsed() >= Duration::from_secs(1) || value != "1");
        }
    }
}

#[tokio::test]
async fn a_busy_server_is_asked_again_and_opens_no_breaker() {
    let busy = recorded("ollama-real/17-busy.http");
    let server = Server::chatting(move |before| match before {
        0..4 => busy.clone(),
        _ => hello(),
    })
    .await;
    let mut settings = settings(&[(Ollama, &server.url)]);
    settings.ollama.breaker_failures = 1;
    let service = Service::probed(&settings).await;
    let mut generation = service.enqueue("alice").unwrap();
    tokio::select! {
        _ = generation.next() => panic!("it is busy"),
        () = server.got_chats(2) => {}
    }
    let status = service.llm.status()[0];
    assert_eq!((status.running, status.breaker_open), (1, false));
    assert_eq!(Answer::read(generation).await.text, "Hello");

    let busy = recorded("ollama-real/17-busy.http");
    let server = Server::chatting(move |_| busy.clone()).await;
    settings.ollama.base_url = server.url.clone();
    settings.ollama.first_token_timeout = Duration::from_millis(1200);
    let service = Service::probed(&settings).await;
    assert_eq!(service.ask().await.summary(), "Busy");
    assert!((2..8).contains(&server.chats().len()));
    assert!(!service.llm.status()[0].breaker_open);
}

#[tokio::test]
async fn a_port_that_accepts_and_says_nothing_holds_no_request() {
    let server = Server::start(|_, _| vec![Action::Hold]).await;
    let mut settings = settings(&[(Ollama, &server.url)]);
    settings.ollama.first_token_timeout = Duration::from_secs(60);
    settings.ollama.connect_timeout = Duration::from_millis(100);
    let service = Service::unprobed(&settings);
    let start = Instant::now();
    assert_eq!(service.ask().await.summary(), "Unavailable");
    assert!(start.elapsed() < Duration::from_secs(8));
}

/// Changes one setting.
type Change = fn(&mut Provider);

fn changed(url: &Url, change: Change) -> config::Llm {
    let mut settings = settings(&[(Ollama, url)]);
    change(&mut settings.ollama);
    settings
}

#[tokio::test]
async fn each_wait_has_its_own_patience() {
    const SHORT: Duration = Duration::from_millis(200);
    let first: Change = |ollama| ollama.first_token_timeout = SHORT;
    let idle: Change = |ollama| ollama.idle_timeout = SHORT;
    let total: Change = |ollama| ollama.total_timeout = 2 * SHORT;
    let begun = Action::Send([stream_head(), piece(&line("one "))].concat());
    let endless = vec![Action::Send(stream_head()), Action::Flood(piece(&line("x")))];
    for (what, change, actions, truncate) in [
        ("nothing comes", first, vec![Action::Hold], "Timeout"),
        ("only the head comes", first, vec![Action::Send(stream_head()), Action::Hold], "Timeout"),
        ("it falls silent", idle, vec![begun, Action::Hold], "text=\"one \" Timeout"),
        ("it never ends", total, endless, "Timeout"),
    ] {
        let server = Server::chatting(move |_| actions.clone()).await;
        let service = Service::probed(&changed(&server.url, change)).await;
        let start = Instant::now();
        let mut answer = service.ask().await;
        if what == "it never ends" {
            assert!(answer.text.len() > 10);
            answer.text.clear();
        }
        assert_eq!(answer.summary(), truncate, "{what}");
        assert!(start.elapsed() >= SHORT && start.elapsed() < Duration::from_secs(5), "{what}");
        server.saw_closed(1, Duration::from_secs(1)).await;
        assert_eq!(server.chats().len(), 1);
        service.idle().await;
    }
}

#[tokio::test]
async fn one_wait_for_the_first_token_holds_over_both_tries() {
    let died = piece("{\"error\":\"llama-server process no longer running\"}\n");
    let server = Server::chatting(move |before| match before {
        0 => {
            let wait = Action::Wait(Duration::from_millis(1500));
            vec![Action::Send(stream_head()), wait, Action::Send(died.clone())]
        }
        _ => vec![Action::Hold],
    })
    .await;
    let patience: Change = |ollama| ollama.first_token_timeout = Duration::from_secs(2);
    let service = Service::probed(&changed(&server.url, patience)).await;
    let start = Instant::now();
    assert_eq!(service.ask().await.summary(), "Timeout");
    let waited = start.elapsed().as_millis();
    assert!((2000..3000).contains(&waited) && server.chats().len() == 2, "{waited}");
}

#[tokio::test]
async fn a_line_without_an_end_is_given_up_at_its_cap() {
    let endless = vec![Action::Send(stream_head()), Action::Flood(piece(&"x".repeat(1 << 16)))];
    let server = Server::chatting(move |_| endless.clone()).await;
    let service = Service::probed(&settings(&[(Ollama, &server.url)])).await;
    assert_eq!(service.ask().await.summary(), "Failed");
    server.saw_closed(1, Duration::from_secs(1)).await;
}

#[tokio::test]
async fn the_breaker_opens_on_outages_in_a_row_and_says_so_before_anything_is_asked() {
    let server = Server::chatting(|_| status("503 Service Unavailable", "")).await;
    let mut settings = settings(&[(Ollama, &server.url)]);
    settings.ollama.breaker_failures = 4;
    let service = Service::probed(&settings).await;
    for _ in 0..2 {
        assert_eq!(service.ask().await.summary(), "Unavailable");
    }
    assert_eq!(server.chats().len(), 4);
    assert!(service.llm.status()[0].breaker_open);
    assert!(matches!(service.llm.resolve(None), Err(ModelError::Unavailable(_))));
    service.until(|llm| llm.resolve(None).is_ok()).await;
    assert_eq!(service.ask().await.summary(), "Unavailable");
    assert_eq!(server.chats().len(), 5, "one probe");
    assert!(service.llm.resolve(None).is_err());
}

#[tokio::test]
async fn failures_that_are_no_outages_leave_the_breaker_closed() {
    let server = Server::chatting(|_| status("500 Internal Server Error", "")).await;
    let mut settings = settings(&[(Ollama, &server.url)]);
    settings.ollama.breaker_failures = 1;
    let service = Service::probed(&settings).await;
    for _ in 0..3 {
        assert_eq!(service.ask().await.summary(), "Failed");
    }
    assert!(!service.llm.status()[0].breaker_open);
}

#[tokio::test]
async fn a_finished_answer_does_not_wait_for_ever_for_its_end_mark() {
    let frame =
        "data: {\"choices\":[{\"delta\":{\"content\":\"Yo\"},\"finish_reason\":\"length\"}]}\n\n";
    let server = Server::chatting(move |_| {
        vec![Action::Send([stream_head(), piece(frame)].concat()), Action::Hold]
    })
    .await;
    let service = Service::probed(&settings(&[(OpenAi, &server.url)])).await;
    let start = Instant::now();
    assert_eq!(service.ask().await.summary(), "text=\"Yo\" Length ?");
    assert!(start.elapsed() < Duration::from_secs(5));
    server.saw_closed(1, Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_finished_answer_waits_as_long_as_something_comes() {
    let frame = |text: &str| {
        piece(&format!(
            "data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":\"stop\"}}]}}\n\n"
        ))
    };
    let usage = "data: {\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}\n\n";
    let wait = Action::Wait(Duration::from_millis(1300));
    let server = Server::chatting(move |_| {
        vec![
            Action::Send([stream_head(), frame("a")].concat()),
            wait.clone(),
            Action::Send(frame("b")),
            wait.clone(),
            Action::Send(piece(": still here\n\n")),
            wait.clone(),
            Action::Send(piece(usage)),
            Action::Hold,
        ]
    })
    .await;
    let service = Service::probed(&settings(&[(OpenAi, &server.url)])).await;
    assert_eq!(service.ask().await.summary(), "text=\"ab\" Stop 7+3");
}

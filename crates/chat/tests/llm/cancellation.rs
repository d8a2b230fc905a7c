//! Dropping a generation at any moment closes the connection to the model server and gives its place back.

use std::{sync::Arc, time::Duration};

use chat::{
    llm::ChatRequest,
    llm::{Chunk, Prompt},
};
use common::{
    config::ProviderKind::{Ollama, OpenAi},
    identity::UserId,
    shutdown::Shutdown,
};

use crate::{
    server::{Action, Server, hello, line, piece, stream_head},
    support::{Answer, Service, settings},
};

const AT_ONCE: Duration = Duration::from_secs(1);

#[tokio::test]
async fn leaving_closes_the_connection_whatever_the_server_has_said() {
    for (what, actions) in [
        ("before the head", vec![Action::Hold]),
        ("before the first token", vec![Action::Send(stream_head()), Action::Hold]),
        (
            "inside a line",
            vec![Action::Send([stream_head(), piece("{\"mess")].concat()), Action::Hold],
        ),
        (
            "in mid-stream",
            vec![Action::Send([stream_head(), piece(&line("one"))].concat()), Action::Hold],
        ),
    ] {
        for kind in [Ollama, OpenAi] {
            let actions = actions.clone();
            let server = Server::chatting(move |_| actions.clone()).await;
            let service = Service::probed(&settings(&[(kind, &server.url)])).await;
            let mut generation = service.enqueue("alice").unwrap();
            let arrived = async {
                server.got_chats(1).await;
                if what == "in mid-stream" && kind == Ollama {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                progress = generation.next() => assert!(progress.unwrap().contains(&Chunk::Text("one".to_owned()))),
                () = arrived => {}
            }
            assert_eq!(service.llm.status()[0].running, 1);
            drop(generation);
            server.saw_closed(1, AT_ONCE).await;
            assert_eq!(service.llm.status()[0].running, 0, "{what}");
        }
    }
}

#[tokio::test]
async fn leaving_the_queue_asks_nothing_and_lets_the_next_one_move_up() {
    let server =
        Server::chatting(|before| if before == 0 { vec![Action::Hold] } else { hello() }).await;
    let mut settings = settings(&[(Ollama, &server.url)]);
    settings.ollama.max_concurrency = 1.try_into().unwrap();
    let service = Service::probed(&settings).await;
    let mut running = service.enqueue("alice").unwrap();
    let (mut leaving, mut staying) =
        (service.enqueue("bob").unwrap(), service.enqueue("carol").unwrap());
    assert_eq!(leaving.next().await.unwrap(), [Chunk::Queued { position: 0 }]);
    assert_eq!(staying.next().await.unwrap(), [Chunk::Queued { position: 1 }]);
    drop(leaving);
    assert_eq!(staying.next().await.unwrap(), [Chunk::Queued { position: 0 }]);
    tokio::select! {
        _ = running.next() => panic!("the server says nothing"),
        () = server.got_chats(1) => {}
    }
    drop(running);
    server.saw_closed(1, AT_ONCE).await;
    assert_eq!(Answer::read(staying).await.text, "Hello");
    assert_eq!(server.chats().len(), 2);
    service.idle().await;
}

#[tokio::test]
async fn leaving_while_a_retry_is_waited_for_gives_the_place_back() {
    let server = Server::chatting(|_| {
        crate::server::status("503 Service Unavailable", "Retry-After: 5\r\n")
    })
    .await;
    let service = Service::probed(&settings(&[(Ollama, &server.url)])).await;
    let mut generation = service.enqueue("alice").unwrap();
    tokio::select! {
        _ = generation.next() => panic!("the retry is 5 s away"),
        () = server.got_chats(1) => {}
    }
    drop(generation);
    service.idle().await;
}

#[tokio::test]
async fn a_hundred_answers_dropped_at_any_moment_leave_no_place_taken() {
    let server = Server::chatting(|before| match before % 4 {
        0 => vec![Action::Hold],
        1 => vec![Action::Send(stream_head()), Action::Hold],
        2 => vec![Action::Send([stream_head(), piece(&line("x"))].concat()), Action::Hold],
        _ => hello(),
    })
    .await;
    let service = Service::probed(&settings(&[(Ollama, &server.url)])).await;
    for round in 0..100_u64 {
        let mut generation = service.enqueue(&format!("u{}", round % 7)).unwrap();
        let _ = tokio::time::timeout(Duration::from_micros(round * 37), generation.next()).await;
    }
    service.idle().await;
    assert_eq!(service.llm.status()[0].running, 0);
}

/// A prompt that cannot be made.
struct Impossible;

impl Prompt for Impossible {
    fn fit(&self, _: &str, _: u32) -> ChatRequest {
        panic!("on purpose")
    }
}

#[tokio::test]
async fn a_panic_on_the_way_gives_the_place_back() {
    let server = Server::chatting(|_| hello()).await;
    let service = Service::probed(&settings(&[(Ollama, &server.url)])).await;
    let route = service.llm.resolve(None).unwrap();
    let generation = service.llm.enqueue(&route, &UserId::parse("alice").unwrap()).unwrap();
    let mut generation = generation.begin(Arc::new(Impossible));
    let turn = Shutdown::new().spawn(async move { generation.next().await });
    assert!(turn.await.unwrap_err().is_panic());
    service.idle().await;
}

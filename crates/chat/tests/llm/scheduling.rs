//! Who is served when: bounded, in turn, and full at once.

use std::sync::{Arc, Mutex};

use chat::llm::ModelError;
use common::config::ProviderKind::{Ollama, OpenAi};
use futures_util::future::join_all;

use crate::{
    server::{Server, hello, status},
    support::{Heard, Models, settings},
};

#[tokio::test]
async fn a_user_with_many_turns_delays_another_by_one_a_slot() {
    let server = Server::chatting(|_| hello()).await;
    let mut settings = settings(&[(Ollama, &server.url)]);
    settings.ollama.max_concurrency = 2.try_into().unwrap();
    let models = Models::looked(&settings).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut turns: Vec<_> = (0..40)
        .map(|_| ("greedy", models.enter("greedy").unwrap()))
        .collect();
    turns.push(("modest", models.enter("modest").unwrap()));
    let told = turns.into_iter().map(|(user, answering)| {
        let order = order.clone();
        async move {
            assert_eq!(Heard::all(answering).await.text, "Hello");
            order.lock().unwrap().push(user);
        }
    });
    join_all(told).await;
    let order = order.lock().unwrap().clone();
    let place = order.iter().position(|user| *user == "modest").unwrap();
    // Two ran already, and one of the other's went ahead on each slot at most.
    assert!(place <= 4, "served as number {place} of {}", order.len());
    models.idle().await;
}

#[tokio::test]
async fn no_more_run_than_may_and_what_does_not_fit_is_refused_at_once() {
    let server = Server::chatting(|_| vec![crate::server::Act::Hold]).await;
    let mut settings = settings(&[(Ollama, &server.url)]);
    settings.ollama.max_concurrency = 2.try_into().unwrap();
    settings.ollama.queue = 3;
    let models = Models::looked(&settings).await;
    let mut held: Vec<_> = (0..5).map(|_| models.enter("alice").unwrap()).collect();
    assert!(matches!(models.enter("bob"), Err(ModelError::QueueFull)));
    let asking = join_all(held.iter_mut().take(2).map(|answering| answering.next()));
    tokio::select! {
        _ = asking => panic!("the server says nothing"),
        () = server.got_chats(2) => {}
    }
    let status = models.llm.status()[0];
    assert_eq!(
        (status.running, status.waiting, server.chats().len()),
        (2, 3, 2)
    );
    held.pop();
    assert!(models.enter("bob").is_ok());
    drop(held);
    models.idle().await;
}

#[tokio::test]
async fn the_next_provider_has_a_queue_of_its_own() {
    let bad = Server::chatting(|_| status("500 Internal Server Error", "")).await;
    let full = Server::chatting(|_| vec![crate::server::Act::Hold]).await;
    let mut settings = settings(&[(Ollama, &bad.url), (OpenAi, &full.url)]);
    settings.openai.max_concurrency = 1.try_into().unwrap();
    settings.openai.queue = 0;
    let models = Models::looked(&settings).await;
    let mut first = models.enter("alice").unwrap();
    tokio::select! {
        _ = first.next() => panic!("the second server says nothing"),
        () = full.got_chats(1) => {}
    }
    let status = models.llm.status();
    assert_eq!((status[0].running, status[1].running), (0, 1));
    assert_eq!(models.ask().await.truncate(), "Failed");
    drop(first);
    models.idle().await;
}

//! The queue in front of a provider: bounds and fairness.

use std::sync::{Arc, Mutex};

use chat::llm::ModelError;
use common::config::ProviderKind::{Ollama, OpenAi};
use futures_util::future::join_all;

use crate::{
    server::{Server, hello, status},
    support::{Answer, Service, settings},
};

#[tokio::test]
async fn a_user_with_many_requests_delays_another_by_one_a_slot() {
    let server = Server::chatting(|_| hello()).await;
    let mut settings = settings(&[(Ollama, &server.url)]);
    settings.ollama.max_concurrency = 2.try_into().unwrap();
    let service = Service::probed(&settings).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut turns: Vec<_> =
        (0..40).map(|_| ("greedy", service.enqueue("greedy").unwrap())).collect();
    turns.push(("modest", service.enqueue("modest").unwrap()));
    let told = turns.into_iter().map(|(user, generation)| {
        let order = order.clone();
        async move {
            assert_eq!(Answer::read(generation).await.text, "Hello");
            order.lock().unwrap().push(user);
        }
    });
    join_all(told).await;
    let order = order.lock().unwrap().clone();
    let place = order.iter().position(|user| *user == "modest").unwrap();
    // Two ran already, and one of the other's went ahead on each slot at most.
    assert!(place <= 4, "served as number {place} of {}", order.len());
    service.idle().await;
}

#[tokio::test]
async fn concurrency_and_queue_are_bounded_for_all_and_for_each_user() {
    let server = Server::chatting(|_| vec![crate::server::Action::Hold]).await;
    let mut settings = settings(&[(Ollama, &server.url)]);
    settings.ollama.max_concurrency = 2.try_into().unwrap();
    settings.ollama.queue = 3;
    let service = Service::probed(&settings).await;
    let mut held: Vec<_> = (0..4).map(|_| service.enqueue("alice").unwrap()).collect();
    assert!(matches!(service.enqueue("alice"), Err(ModelError::QueueFull)));
    held.push(service.enqueue("bob").unwrap());
    assert!(matches!(service.enqueue("carol"), Err(ModelError::QueueFull)));
    let asking = join_all(held.iter_mut().take(2).map(|generation| generation.next()));
    tokio::select! {
        _ = asking => panic!("the server says nothing"),
        () = server.got_chats(2) => {}
    }
    let status = service.llm.status()[0];
    assert_eq!((status.running, status.waiting, server.chats().len()), (2, 3, 2));
    held.pop();
    assert!(service.enqueue("carol").is_ok());
    drop(held);
    service.idle().await;
}

#[tokio::test]
async fn the_next_provider_has_a_queue_of_its_own() {
    let bad = Server::chatting(|_| status("500 Internal Server Error", "")).await;
    let full = Server::chatting(|_| vec![crate::server::Action::Hold]).await;
    let mut settings = settings(&[(Ollama, &bad.url), (OpenAi, &full.url)]);
    settings.openai.max_concurrency = 1.try_into().unwrap();
    settings.openai.queue = 0;
    let service = Service::probed(&settings).await;
    let mut first = service.enqueue("alice").unwrap();
    tokio::select! {
        _ = first.next() => panic!("the second server says nothing"),
        () = full.got_chats(1) => {}
    }
    let status = service.llm.status();
    assert_eq!((status[0].running, status[1].running), (0, 1));
    assert_eq!(service.ask().await.summary(), "Failed");
    drop(first);
    service.idle().await;
}

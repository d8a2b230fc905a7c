//! How connections end: at a stop, when the client leaves, and when they become something else.

use std::time::{Duration, Instant};

use axum::{
    Router,
    extract::ws::{Message, WebSocketUpgrade},
    routing::get,
};
use common::{
    http::{ConnectionLimits, HostPolicy, Layers, health, wrap},
    shutdown::Shutdown,
};
use tokio::{io::AsyncReadExt, time::sleep};

use crate::{
    connections::{HEAD, short},
    site::{Site, server_settings},
};

#[tokio::test]
async fn while_draining_it_answers_and_closes_and_then_it_ends() {
    let shutdown = Shutdown::new();
    let health = health::Health::builder("Chat", shutdown.clone()).build();
    let router =
        wrap(health::routes(health), Layers::new("test", HostPolicy::any(), &server_settings()));
    let site = Site::serving(router, ConnectionLimits::default(), shutdown).await;
    let mut kept = site.connect().await;
    kept.send(b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(kept.answer().await.status, 200);

    site.shutdown.drain();
    for raw in [&mut kept, &mut site.connect().await] {
        raw.send(b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let answer = raw.answer_then_end().await;
        assert_eq!((answer.status, answer.header("connection")), (503, Some("close")));
        assert_eq!(answer.json()["missing"][0], "draining");
    }

    let idle = site.connect().await;
    let begun = Instant::now();
    site.shutdown.stop();
    site.shutdown.finished().await;
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    drop(idle);
}

#[tokio::test]
async fn an_answer_without_end_is_ended_by_the_stop() {
    let site = Site::open().await;
    let mut raw = site.connect().await;
    raw.send(b"GET /flood HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut first = [0; 16];
    raw.0.read_exact(&mut first).await.unwrap();
    let begun = Instant::now();
    site.shutdown.stop();
    site.shutdown.finished().await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_websocket_is_held_to_no_limit_of_requests_and_keeps_its_place() {
    let socket = get(async |upgrade: WebSocketUpgrade| {
        upgrade.on_upgrade(async |mut socket| {
            sleep(HEAD * 3).await;
            let _sent = socket.send(Message::text("late")).await;
            // Until the client has gone.
            while let Some(Ok(_)) = socket.recv().await {}
        })
    });
    let limits = ConnectionLimits { idle: HEAD, max_connections: 1, ..short() };
    let router = wrap(
        Router::new().route("/ws", socket),
        Layers::new("test", HostPolicy::any(), &server_settings()),
    );
    let site = Site::serving(router, limits, Shutdown::new()).await;
    let mut raw = site.connect().await;
    raw.send(
        b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
          sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    .await;
    let mut got = Vec::new();
    while !got.ends_with(b"late") {
        let mut buffer = [0; 1024];
        let n = raw.0.read(&mut buffer).await.unwrap();
        assert!(n > 0, "cut: {}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&buffer[..n]);
    }
    assert!(got.starts_with(b"HTTP/1.1 101 "));
    assert!(site.connect().await.read_to_end().await.is_empty(), "the socket counts as open");
    drop(raw);
    for _ in 0..200 {
        if site.ask("GET /nowhere", &[]).await.status == 404 {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("the socket's place did not come back");
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_handler() {
    struct Ended(tokio::sync::mpsc::Sender<()>);
    impl Drop for Ended {
        fn drop(&mut self) {
            let _told = self.0.try_send(());
        }
    }
    let (told, mut ended) = tokio::sync::mpsc::channel(1);
    let waiting = get(async move || {
        let _ended = Ended(told);
        std::future::pending::<&'static str>().await
    });
    let site = Site::serving(Router::new().route("/wait", waiting), short(), Shutdown::new()).await;
    let mut raw = site.connect().await;
    raw.send(b"GET /wait HTTP/1.1\r\nhost: a\r\n\r\n").await;
    sleep(HEAD).await;
    assert!(ended.try_recv().is_err());
    drop(raw);
    tokio::time::timeout(Duration::from_secs(2), ended.recv()).await.unwrap();
}

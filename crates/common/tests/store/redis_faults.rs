//! Redis' bad days: every call ends in time, nothing is half done, and the way back needs no restart.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use common::{
    config::StoreUrl,
    http::CheckFailure,
    store::{Committed, Op, Quota, Read, Store, Txn},
};
use test_redis::{RedisServer, free_port};

use crate::{
    Opened, at, bytes, done, is_unavailable, items, key, opened, push, set, txn, value, within,
};

/// A call may take a second, and what the machine needs on top of it.
pub const CALL: Duration = Duration::from_millis(1200);
pub const BACK: Duration = Duration::from_secs(2);

/// A store on that port, whoever listens there.
fn redis_at(port: u16) -> StoreUrl {
    at(format!("redis://127.0.0.1:{port}/0"))
}

pub fn connect(server: &RedisServer) -> Opened {
    opened(&at(server.url()), None, None)
}

pub async fn works(store: &Store) -> bool {
    store.commit(txn([set("works", "yes")])).await.is_ok() && value_or_none(store).await
}

async fn value_or_none(store: &Store) -> bool {
    store.read(vec![Read::Value(key("works"))]).await.is_ok()
}

/// One call of each kind, each of which must fail within the limit.
async fn all_unavailable(store: &Store) {
    let quota = Quota { burst: 5, period: Duration::from_secs(1) };
    let begun = Instant::now();
    let (read, commit, apply, admit, ping) = tokio::join!(
        store.read(vec![Read::Value(key("v"))]),
        store.commit(txn([set("v", "1")])),
        store.apply(vec![Op::PushExisting(key("l"), bytes("x"))]),
        store.admit("c:{alice}:0:rate", quota, 1),
        store.ping(),
    );
    assert!(begun.elapsed() <= CALL, "{:?}", begun.elapsed());
    assert!(is_unavailable(&read), "{read:?}");
    assert!(is_unavailable(&commit), "{commit:?}");
    assert!(is_unavailable(&apply), "{apply:?}");
    assert!(is_unavailable(&admit), "{admit:?}");
    assert!(is_unavailable(&ping), "{ping:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_down_at_the_start_is_found_once_it_is_there() {
    let port = free_port();
    let begun = Instant::now();
    let opened = opened(&redis_at(port), None, None);
    assert!(begun.elapsed() < Duration::from_millis(200), "opening waits for nobody");
    all_unavailable(&opened.store).await;
    let _server = RedisServer::start_on(port, &[]);
    within(BACK, "it is found", || works(&opened.store)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_and_started_again_is_found_and_lost_nothing() {
    let server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let opened = connect(&server);
    done(&opened.store, (0..100).map(|n| push("l", &n.to_string()))).await;
    server.kill();
    all_unavailable(&opened.store).await;
    server.restart();
    within(BACK, "it is back", || works(&opened.store)).await;
    assert_eq!(items(&opened.store, "l").await.len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_between_two_calls_costs_no_reader_an_error() {
    let server = RedisServer::start(&[]);
    let opened = connect(&server);
    for _ in 0..3 {
        assert!(works(&opened.store).await);
        server.kill();
        server.restart();
        opened.store.read(vec![Read::Value(key("v"))]).await.expect("a read");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_redis_costs_one_wait_and_then_none() {
    let server = RedisServer::start(&[]);
    let opened = connect(&server);
    assert!(works(&opened.store).await);
    server.freeze();
    all_unavailable(&opened.store).await;
    // From here on calls fail at once, but for one that tries from time to time.
    let (mut slow, begun) = (0, Instant::now());
    let mut calls = 0;
    while begun.elapsed() < Duration::from_secs(3) {
        let call = Instant::now();
        let said = opened.store.commit(txn([set("v", "1")])).await;
        assert!(is_unavailable(&said), "{said:?}");
        assert!(call.elapsed() <= CALL, "{:?}", call.elapsed());
        slow += u32::from(call.elapsed() > Duration::from_millis(50));
        calls += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(slow <= 1, "{slow} of {calls} calls had to wait");
    server.thaw();
    within(BACK, "it is back", || works(&opened.store)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_timed_out_and_is_repeated_is_done_once() {
    let server = RedisServer::start(&[]);
    let opened = connect(&server);
    assert!(works(&opened.store).await);
    let append = Txn::durable()
        .check(common::store::Check::FieldAbsent(key("h"), "m1".into()))
        .op(Op::FieldSet(key("h"), "m1".into(), bytes("")))
        .op(push("l", "m1"));
    server.freeze();
    assert!(is_unavailable(&opened.store.commit(append.clone()).await));
    server.thaw();
    let said = || async { opened.store.commit(append.clone()).await.is_ok() };
    within(BACK, "it is back", said).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(items(&opened.store, "l").await, ["m1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_connections_are_replaced_without_piling_up() {
    let server = RedisServer::start(&[]);
    let opened = connect(&server);
    for _ in 0..20 {
        within(BACK, "it works", || works(&opened.store)).await;
        server.tell("CLIENT KILL TYPE normal SKIPME yes");
    }
    within(BACK, "it works", || works(&opened.store)).await;
    let clients = server.tell("CLIENT LIST").lines().filter(|line| line.starts_with("id=")).count();
    assert!(clients <= 3, "{clients} connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_moved_behind_the_same_name_is_found() {
    // The old master becomes a replica and keeps its connections; the new one listens at the same address.
    let old = RedisServer::start(&[]);
    let opened = connect(&old);
    assert!(works(&opened.store).await);
    let port = old.port();
    old.kill();
    let _new = RedisServer::start_on(port, &[]);
    within(BACK, "the new one is found", || works(&opened.store)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_takes_and_says_nothing_is_unavailable_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let silent = std::thread::spawn(move || {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            // The test ends it by sending its first byte.
            let mut first = [0];
            let end = stream.peek(&mut first).is_ok_and(|n| n == 1 && first[0] == b'!');
            kept.push(stream);
            if end {
                break;
            }
        }
        drop(kept);
    });
    let opened = opened(&redis_at(port), None, None);
    for _ in 0..4 {
        all_unavailable(&opened.store).await;
    }
    drop(opened);
    std::io::Write::write_all(&mut TcpStream::connect(("127.0.0.1", port)).unwrap(), b"!").unwrap();
    silent.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_in_mid_answer_is_replaced() {
    let server = RedisServer::start(&[]);
    let (target, listener) = (server.port(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    // Lets each connection's first 600 bytes of answers through, then resets it.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(client), Ok(redis)) = (stream, TcpStream::connect(("127.0.0.1", target)))
            else {
                return;
            };
            let (mut up, mut down) = (client.try_clone().unwrap(), redis.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut up, &mut down));
            std::thread::spawn(move || {
                let (mut limited, mut client) = (redis.take(600), client);
                std::io::copy(&mut limited, &mut client).ok();
                client.shutdown(std::net::Shutdown::Both).ok();
            });
        }
    });
    let opened = opened(&redis_at(port), None, None);
    let mut fine = 0;
    for _ in 0..100 {
        let begun = Instant::now();
        fine += u32::from(opened.store.read(vec![Read::Value(key("v"))]).await.is_ok());
        assert!(begun.elapsed() <= CALL);
    }
    assert!(fine >= 50, "{fine} of 100 reads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_shortens_a_call_and_shuts_no_gate() {
    let server = RedisServer::start(&[]);
    let opened = connect(&server);
    assert!(works(&opened.store).await);
    server.freeze();
    let begun = Instant::now();
    let said = opened.store.by(begun + Duration::from_millis(100)).ping().await;
    assert!(is_unavailable(&said));
    assert!(begun.elapsed() < Duration::from_millis(300), "{:?}", begun.elapsed());
    server.thaw();
    opened.store.ping().await.expect("the gate is open");
    let over = opened.store.by(Instant::now() - Duration::from_millis(1));
    assert!(is_unavailable(&over.commit(txn([set("v", "1")])).await));
    opened.store.ping().await.expect("the gate is open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_leaves_in_the_middle_harms_nobody() {
    let server = RedisServer::start(&[]);
    let opened = connect(&server);
    let store = &opened.store;
    for n in 0..200 {
        let call = store.commit(txn([push("l", &n.to_string())]));
        tokio::select! {
            biased;
            () = tokio::task::yield_now() => {}
            said = call => assert_eq!(said.unwrap(), Committed::Applied),
        }
        let name = n.to_string();
        done(store, [set(&name, &name)]).await;
        assert_eq!(
            value(store, &name).await.as_deref(),
            Some(name.as_str()),
            "each gets its own answer"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_connection_is_noticed_and_replaced() {
    let server = RedisServer::start(&[]);
    let proxy = Proxy::before(server.port());
    let opened = opened(&redis_at(proxy.port), None, None);
    assert!(works(&opened.store).await);
    // What is connected hears nothing any more, and is told nothing; whoever connects anew is served.
    proxy.lose_all();
    let begun = Instant::now();
    assert!(is_unavailable(&opened.store.ping().await));
    assert!(begun.elapsed() <= CALL);
    within(Duration::from_secs(4), "it is noticed", || works(&opened.store)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_speaks_no_tls_is_unavailable_over_tls() {
    let server = RedisServer::start(&[]);
    let secure = StoreUrl::Redis(format!("rediss://127.0.0.1:{}/0", server.port()).into());
    let opened = opened(&secure, None, None);
    all_unavailable(&opened.store).await;
    // It waits for more of the handshake, so that only the look in the background finds out.
    let said = || async {
        let error = opened.store.ping().await.expect_err("no TLS");
        CheckFailure::of_store(&error).shown == "the TLS connection fails"
    };
    within(Duration::from_secs(3), "the reason is told", said).await;
}

/// Passes bytes on between a store and its Redis, until it loses connections without a word.
struct Proxy {
    port: u16,
    era: Arc<AtomicU32>,
}

impl Proxy {
    fn before(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let era = Arc::new(AtomicU32::new(0));
        let now = era.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(client), Ok(redis)) = (stream, TcpStream::connect(("127.0.0.1", target)))
                else {
                    return;
                };
                let born = now.load(Ordering::SeqCst);
                for (from, to) in
                    [(client.try_clone().unwrap(), redis.try_clone().unwrap()), (redis, client)]
                {
                    let now = now.clone();
                    std::thread::spawn(move || {
                        pass_on(from, to, || now.load(Ordering::SeqCst) == born)
                    });
                }
            }
        });
        Self { port, era }
    }

    fn lose_all(&self) {
        self.era.fetch_add(1, Ordering::SeqCst);
    }
}

/// Copies while `alive`; after that it reads on and says nothing.
fn pass_on(mut from: TcpStream, mut to: TcpStream, alive: impl Fn() -> bool) {
    let mut buffer = [0; 4096];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 {
            break;
        }
        if alive() && to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    if alive() {
        to.shutdown(std::net::Shutdown::Both).ok();
    }
}

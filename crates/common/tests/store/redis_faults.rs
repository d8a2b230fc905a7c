//! Redis' bad days: every call ends in time, nothing is half done, and the way back needs no restart.

use std::{
    io::Read as _,
    net::TcpListener,
    time::{Duration, Instant},
};

use common::store::{Committed, Found, Op, Quota, Read, Store, StoreError, Txn};

use crate::{
    Opened, bytes, done, is_unavailable, items, key, one, opened, push,
    redis_server::{RedisServer, free_port, url},
    set, txn, value, within,
};

/// A call may take a second, and what the machine needs on top of it.
const CALL: Duration = Duration::from_millis(1200);
const BACK: Duration = Duration::from_secs(2);

fn connect(server: &RedisServer) -> Opened {
    opened(&server.url(), None, None)
}

async fn works(store: &Store) -> bool {
    store.commit(txn([set("works", "yes")])).await.is_ok() && value_or_none(store).await
}

async fn value_or_none(store: &Store) -> bool {
    store.read(vec![Read::Value(key("works"))]).await.is_ok()
}

/// One call of each kind, each of which must fail within the limit.
async fn all_unavailable(store: &Store) {
    let quota = Quota {
        burst: 5,
        period: Duration::from_secs(1),
    };
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
    let opened = opened(&url(port, ""), None, None);
    assert!(
        begun.elapsed() < Duration::from_millis(200),
        "opening waits for nobody"
    );
    all_unavailable(&opened.store).await;
    let _server = RedisServer::start_on(port);
    within(BACK, "it is found", || works(&opened.store)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_and_started_again_is_found_and_lost_nothing() {
    let mut server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
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
    let mut server = RedisServer::start(&[]);
    let opened = connect(&server);
    for _ in 0..3 {
        assert!(works(&opened.store).await);
        server.kill();
        server.restart();
        opened
            .store
            .read(vec![Read::Value(key("v"))])
            .await
            .expect("a read");
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
    let clients = server
        .tell("CLIENT LIST")
        .lines()
        .filter(|line| line.starts_with("id="))
        .count();
    assert!(clients <= 3, "{clients} connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten_scripts_are_sent_again() {
    let server = RedisServer::start(&[]);
    let opened = connect(&server);
    let quota = Quota {
        burst: 100,
        period: Duration::from_secs(3600),
    };
    for n in 1..=5 {
        server.tell("SCRIPT FLUSH");
        done(&opened.store, [push("l", "x")]).await;
        let answer = opened
            .store
            .admit("c:{alice}:0:rate", quota, 1)
            .await
            .unwrap();
        assert_eq!(answer.remaining, 100 - n);
    }
    assert_eq!(items(&opened.store, "l").await.len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_refuses_whole_and_takes_what_makes_room() {
    let server = RedisServer::start(&["--maxmemory-policy", "noeviction"]);
    let opened = connect(&server);
    let store = &opened.store;
    done(
        store,
        [
            set("v", "1"),
            push("l", "a"),
            Op::FieldSet(key("h"), "f".into(), bytes("1")),
        ],
    )
    .await;
    server.tell("CONFIG SET maxmemory 1");
    let growing = [
        vec![push("l", "no"), set("w", "no")],
        vec![Op::ItemSet(key("l"), 0, bytes("no")), set("w", "no")],
        vec![Op::FieldAdd(key("h"), "f".into(), 1), push("l", "no")],
        vec![Op::MemberSet(key("i"), "m".into(), 1), set("w", "no")],
    ];
    for ops in growing {
        let said = store.commit(txn(ops.clone())).await;
        assert!(
            matches!(said, Err(StoreError::Full(_))),
            "{ops:?}: {said:?}"
        );
    }
    let said = store
        .apply(vec![Op::PushExisting(key("l"), bytes("no"))])
        .await;
    assert!(matches!(said, Err(StoreError::Full(_))), "{said:?}");
    assert_eq!(value(store, "v").await.as_deref(), Some("1"));
    assert_eq!(items(store, "l").await, ["a"]);
    assert_eq!(value(store, "w").await, None);
    // Deleting makes room, so it passes, and whole.
    done(store, [Op::Delete(key("v")), push("l", "b")]).await;
    assert_eq!(
        (value(store, "v").await, items(store, "l").await.len()),
        (None, 2)
    );
    server.tell("CONFIG SET maxmemory 0");
    done(store, [set("w", "yes")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_cannot_save_refuses_whole() {
    let server = RedisServer::start(&["--save", "3600 1"]);
    let opened = connect(&server);
    done(&opened.store, [push("l", "a")]).await;
    // A folder that takes no file makes the next background save fail, after which Redis refuses writes.
    server.break_saving();
    server.tell("BGSAVE");
    let store = &opened.store;
    let full = || async {
        matches!(
            store.commit(txn([push("l", "b"), set("v", "1")])).await,
            Err(StoreError::Full(_))
        )
    };
    within(Duration::from_secs(5), "writes are refused", full).await;
    assert_eq!(
        value(store, "v").await.is_some(),
        items(store, "l").await.len() > 1,
        "both or none"
    );
    server.tell("CONFIG SET stop-writes-on-bgsave-error no");
    done(store, [set("w", "yes")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_refuses_writes_until_it_is_promoted() {
    let server = RedisServer::start(&[]);
    let opened = connect(&server);
    let store = &opened.store;
    done(store, [set("v", "1")]).await;
    server.tell(&format!("REPLICAOF 127.0.0.1 {}", free_port()));
    for _ in 0..50 {
        let said = store.commit(txn([set("v", "2")])).await;
        assert!(is_unavailable(&said), "{said:?}");
    }
    server.tell("REPLICAOF NO ONE");
    within(BACK, "it is promoted", || works(store)).await;
    assert_eq!(value(store, "v").await.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_moved_behind_the_same_name_is_found() {
    // The old master becomes a replica and keeps its connections; the new one listens at the same address.
    let mut old = RedisServer::start(&[]);
    let opened = connect(&old);
    assert!(works(&opened.store).await);
    let port = old.port();
    old.kill();
    let _new = RedisServer::start_on(port);
    within(BACK, "the new one is found", || works(&opened.store)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_changes_is_unavailable_and_never_told() {
    let server = RedisServer::start(&["--requirepass", "canary-first"]);
    let opened = opened(&server.url_as(":canary-first@"), None, None);
    let store = &opened.store;
    assert!(works(store).await);
    let admin = |command: &str| server.tell_as("canary-first", command);
    admin("ACL SETUSER chat on >canary-second ~* &* +@all");
    admin("ACL SETUSER default >canary-third <canary-first");
    server.tell_as("canary-third", "CLIENT KILL TYPE normal SKIPME yes");
    let refused = || async { is_unavailable(&store.ping().await) };
    within(BACK, "the login is refused", refused).await;
    for _ in 0..20 {
        let said = format!(
            "{:?} {:?}",
            store.ping().await,
            store.commit(txn([set("v", "1")])).await
        );
        assert!(
            said.contains("Unavailable") && !said.contains("canary"),
            "{said}"
        );
    }
    assert!(!format!("{store:?}").contains("canary"));
    server.tell_as("canary-third", "ACL SETUSER default >canary-first");
    within(BACK, "the login works again", || works(store)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_that_is_taken_is_unavailable_until_it_is_given_back() {
    let server = RedisServer::start(&["--user", "chat", "on", ">canary", "~*", "&*", "+@all"]);
    let opened = opened(&server.url_as("chat:canary@"), None, None);
    let store = &opened.store;
    assert!(works(store).await);
    server.tell("ACL SETUSER chat -evalsha -eval");
    let said = store.commit(txn([set("v", "1")])).await;
    assert!(
        is_unavailable(&said) && !format!("{said:?}").contains("canary"),
        "{said:?}"
    );
    server.tell("ACL SETUSER chat resetkeys ~other*");
    let said = store
        .read(vec![Read::Value(key("v")), Read::Value(key("w"))])
        .await;
    assert!(is_unavailable(&said), "{said:?}");
    server.tell("ACL SETUSER chat ~* +@all");
    within(BACK, "it is given back", || works(store)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_loading_is_unavailable_until_it_is_ready() {
    let mut server = RedisServer::start(&["--appendonly", "yes", "--enable-debug-command", "yes"]);
    let opened = connect(&server);
    server.tell("DEBUG POPULATE 20000 filler 100");
    server.tell("BGREWRITEAOF");
    within(Duration::from_secs(10), "rewritten", || async {
        server
            .tell("INFO persistence")
            .contains("aof_rewrite_in_progress:0")
    })
    .await;
    done(&opened.store, [push("l", "a")]).await;
    server.tell("CONFIG SET appendfsync always");
    done(&opened.store, [push("l", "b")]).await;
    server.kill();
    // 100 microseconds a key: it loads for about two seconds.
    server.slow_loading(100);
    server.restart_unready();
    let loading = || async {
        server
            .tell_if_up("PING")
            .is_some_and(|said| said.contains("LOADING"))
    };
    within(Duration::from_secs(5), "it loads", loading).await;
    for _ in 0..5 {
        let begun = Instant::now();
        let said = opened.store.ping().await;
        assert!(is_unavailable(&said), "{said:?}");
        assert!(begun.elapsed() <= CALL);
    }
    let up = || async {
        server
            .tell_if_up("PING")
            .is_some_and(|said| said.contains("PONG"))
    };
    within(Duration::from_secs(30), "it has loaded", up).await;
    within(BACK, "it works", || works(&opened.store)).await;
    assert_eq!(items(&opened.store, "l").await, ["a", "b"]);
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
            let end = stream
                .peek(&mut first)
                .is_ok_and(|n| n == 1 && first[0] == b'!');
            kept.push(stream);
            if end {
                break;
            }
        }
        drop(kept);
    });
    let opened = opened(&url(port, ""), None, None);
    for _ in 0..4 {
        all_unavailable(&opened.store).await;
    }
    drop(opened);
    std::io::Write::write_all(
        &mut std::net::TcpStream::connect(("127.0.0.1", port)).unwrap(),
        b"!",
    )
    .unwrap();
    silent.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_in_mid_answer_is_replaced() {
    let server = RedisServer::start(&[]);
    let (target, listener) = (server.port(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    // Lets each connection's first 300 bytes of answers through, then resets it.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(client), Ok(redis)) =
                (stream, std::net::TcpStream::connect(("127.0.0.1", target)))
            else {
                return;
            };
            let (mut up, mut down) = (client.try_clone().unwrap(), redis.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut up, &mut down));
            std::thread::spawn(move || {
                let (mut limited, mut client) = (redis.take(300), client);
                std::io::copy(&mut limited, &mut client).ok();
                client.shutdown(std::net::Shutdown::Both).ok();
            });
        }
    });
    let opened = opened(&url(port, ""), None, None);
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
    let said = opened
        .store
        .by(begun + Duration::from_millis(100))
        .ping()
        .await;
    assert!(is_unavailable(&said));
    assert!(
        begun.elapsed() < Duration::from_millis(300),
        "{:?}",
        begun.elapsed()
    );
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
async fn an_eviction_policy_that_may_lose_data_is_warned_of() {
    let server = RedisServer::start(&["--maxmemory-policy", "allkeys-lru"]);
    let opened = connect(&server);
    let warning = opened.store.eviction_warning().await.expect("a warning");
    assert!(warning.contains("allkeys-lru"), "{warning}");
    server.tell("ACL SETUSER default -config");
    assert_eq!(opened.store.eviction_warning().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_bucket_leaves_nothing_in_redis() {
    let server = RedisServer::start(&[]);
    let opened = connect(&server);
    let quota = Quota {
        burst: 10,
        period: Duration::from_millis(300),
    };
    assert!(
        opened
            .store
            .admit("c:{alice}:0:rate", quota, 10)
            .await
            .unwrap()
            .allowed
    );
    let empty = || async { server.tell("DBSIZE") == ":0" };
    assert!(!empty().await);
    within(BACK, "it is gone", empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_none_is_refused_without_repeating_it() {
    for address in [
        "",
        "canary",
        "http://u:canary@host/",
        "redis://:canary@host:99999/",
        "redis://:canary@/x/y",
    ] {
        let url = common::config::StoreUrl::Redis(address.into());
        if let Err(error) = Store::open(&url, &common::shutdown::Shutdown::new()) {
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }
    let none = common::config::StoreUrl::Redis("canary".into());
    assert!(Store::open(&none, &common::shutdown::Shutdown::new()).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_in_redis_is_a_plain_list_newest_last() {
    let server = RedisServer::start(&[]);
    let opened = connect(&server);
    done(&opened.store, [push("l", "first"), push("l", "second")]).await;
    assert_eq!(
        server.tell("LRANGE c:{alice}:0:l 0 -1"),
        "*2\r\n$5\r\nfirst\r\n$6\r\nsecond"
    );
    assert_eq!(
        one(&opened.store, Read::Length(key("l"))).await,
        Found::Count(2)
    );
}

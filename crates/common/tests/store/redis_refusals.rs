//! What a Redis that answers may refuse, what it keeps, and what it is asked for.

use std::time::{Duration, Instant};

use common::{
    http::CheckFailure,
    store::{Bucket, Committed, Found, Op, Quota, Read, Store, StoreError, eviction_warning},
};
use test_redis::{RedisServer, free_port};

use crate::{
    at, bytes, done, is_unavailable, items, key, one, opened, push,
    redis_faults::{BACK, CALL, connect, works},
    set, txn, value, within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten_scripts_are_sent_again() {
    let server = RedisServer::start(&[]);
    let opened = connect(&server);
    let quota = Quota { burst: 100, period: Duration::from_secs(3600) };
    for n in 1..=5 {
        server.tell("SCRIPT FLUSH");
        done(&opened.store, [push("l", "x")]).await;
        let answer = opened.store.admit("c:{alice}:0:rate", quota, 1).await.unwrap();
        assert_eq!(answer.remaining, 101 - 2 * n);
        let bucket = Bucket { key: "c:{alice}:0:rate".into(), quota };
        let both = opened.store.admit_and_commit(&bucket, txn([push("l", "y")])).await.unwrap();
        assert_eq!(both.0.remaining, 100 - 2 * n);
        assert_eq!(both.1, Some(Committed::Applied));
    }
    assert_eq!(items(&opened.store, "l").await.len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_refuses_whole_and_takes_what_makes_room() {
    let server = RedisServer::start(&["--maxmemory-policy", "noeviction"]);
    let opened = connect(&server);
    let store = &opened.store;
    done(store, [set("v", "1"), push("l", "a"), Op::FieldSet(key("h"), "f".into(), bytes("1"))])
        .await;
    server.tell("CONFIG SET maxmemory 1");
    let growing = [
        vec![push("l", "no"), set("w", "no")],
        vec![Op::ItemSet(key("l"), 0, bytes("no")), set("w", "no")],
        vec![Op::FieldAdd(key("h"), "f".into(), 1), push("l", "no")],
        vec![Op::MemberSet(key("i"), "m".into(), 1), set("w", "no")],
    ];
    for ops in growing {
        let bucket = Bucket {
            key: key("rate"),
            quota: Quota { burst: 1, period: Duration::from_secs(3600) },
        };
        let said = store.admit_and_commit(&bucket, txn(ops.clone())).await;
        assert!(matches!(said, Err(StoreError::Full(_))), "{ops:?}: {said:?}");
        let said = store.commit(txn(ops.clone())).await;
        assert!(matches!(said, Err(StoreError::Full(_))), "{ops:?}: {said:?}");
    }
    let said = store.apply(vec![Op::PushExisting(key("l"), bytes("no"))]).await;
    assert!(matches!(said, Err(StoreError::Full(_))), "{said:?}");
    assert_eq!(value(store, "v").await.as_deref(), Some("1"));
    assert_eq!(items(store, "l").await, ["a"]);
    assert_eq!(value(store, "w").await, None);
    // Deleting makes room, so it passes, and whole.
    done(store, [Op::Delete(key("v")), push("l", "b")]).await;
    assert_eq!((value(store, "v").await, items(store, "l").await.len()), (None, 2));
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
        matches!(store.commit(txn([push("l", "b"), set("v", "1")])).await, Err(StoreError::Full(_)))
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
    // It answers, but what asks for its health must hear that it is of no use, without a word of a write.
    let quiet = connect(&server);
    for store in [store, &quiet.store] {
        let refused = store.ping().await.expect_err("it takes no writes");
        let shown = CheckFailure::of_store(&refused).shown;
        assert_eq!(shown, "it is a replica and takes no writes");
    }
    server.tell("ACL SETUSER default -info");
    quiet.store.ping().await.expect("where INFO is forbidden, only writes tell");
    server.tell("ACL SETUSER default +info");
    server.tell("REPLICAOF NO ONE");
    within(BACK, "it is promoted", || works(store)).await;
    quiet.store.ping().await.expect("it is promoted");
    assert_eq!(value(store, "v").await.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_changes_is_unavailable_and_never_told() {
    let server = RedisServer::start(&["--requirepass", "canary-first"]);
    let opened = opened(&at(server.url_as(":canary-first@")), None, None);
    let store = &opened.store;
    assert!(works(store).await);
    let admin = |command: &str| server.tell_as("canary-first", command);
    admin("ACL SETUSER chat on >canary-second ~* &* +@all");
    admin("ACL SETUSER default >canary-third <canary-first");
    server.tell_as("canary-third", "CLIENT KILL TYPE normal SKIPME yes");
    let refused = || async { is_unavailable(&store.ping().await) };
    within(BACK, "the login is refused", refused).await;
    for _ in 0..20 {
        let said =
            format!("{:?} {:?}", store.ping().await, store.commit(txn([set("v", "1")])).await);
        assert!(said.contains("Unavailable") && !said.contains("canary"), "{said}");
    }
    assert!(!format!("{store:?}").contains("canary"));
    server.tell_as("canary-third", "ACL SETUSER default >canary-first");
    within(BACK, "the login works again", || works(store)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_that_is_taken_is_unavailable_until_it_is_given_back() {
    let server = RedisServer::start(&["--user", "chat", "on", ">canary", "~*", "&*", "+@all"]);
    let opened = opened(&at(server.url_as("chat:canary@")), None, None);
    let store = &opened.store;
    assert!(works(store).await);
    server.tell("ACL SETUSER chat -evalsha -eval");
    let said = store.commit(txn([set("v", "1")])).await;
    assert!(is_unavailable(&said) && !format!("{said:?}").contains("canary"), "{said:?}");
    server.tell("ACL SETUSER chat resetkeys ~other*");
    let said = store.read(vec![Read::Value(key("v")), Read::Value(key("w"))]).await;
    assert!(is_unavailable(&said), "{said:?}");
    server.tell("ACL SETUSER chat ~* +@all");
    within(BACK, "it is given back", || works(store)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_loading_is_unavailable_until_it_is_ready() {
    let server = RedisServer::start(&["--appendonly", "yes", "--enable-debug-command", "yes"]);
    let opened = connect(&server);
    server.tell("DEBUG POPULATE 20000 filler 100");
    server.tell("BGREWRITEAOF");
    within(Duration::from_secs(10), "rewritten", || async {
        server.tell("INFO persistence").contains("aof_rewrite_in_progress:0")
    })
    .await;
    done(&opened.store, [push("l", "a")]).await;
    server.tell("CONFIG SET appendfsync always");
    done(&opened.store, [push("l", "b")]).await;
    server.kill();
    // 100 microseconds a key: it loads for about two seconds.
    server.slow_loading(100);
    server.restart_unready();
    let loading =
        || async { server.tell_if_up("PING").is_some_and(|said| said.contains("LOADING")) };
    within(Duration::from_secs(5), "it loads", loading).await;
    for _ in 0..5 {
        let begun = Instant::now();
        let said = opened.store.ping().await;
        assert!(is_unavailable(&said), "{said:?}");
        assert!(begun.elapsed() <= CALL);
    }
    let up = || async { server.tell_if_up("PING").is_some_and(|said| said.contains("PONG")) };
    within(Duration::from_secs(30), "it has loaded", up).await;
    within(BACK, "it works", || works(&opened.store)).await;
    assert_eq!(items(&opened.store, "l").await, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eviction_policy_that_may_lose_data_is_warned_of() {
    let server = RedisServer::start(&["--maxmemory-policy", "allkeys-lru"]);
    let opened = connect(&server);
    let warning = eviction_warning(&opened.store).await.expect("a warning");
    assert!(warning.contains("allkeys-lru"), "{warning}");
    server.tell("ACL SETUSER default -info");
    assert_eq!(eviction_warning(&opened.store).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_bucket_leaves_nothing_in_redis() {
    let server = RedisServer::start(&[]);
    let opened = connect(&server);
    let quota = Quota { burst: 10, period: Duration::from_millis(300) };
    assert!(opened.store.admit("c:{alice}:0:rate", quota, 10).await.unwrap().allowed);
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
    assert_eq!(server.tell("LRANGE c:{alice}:0:l 0 -1"), "*2\r\n$5\r\nfirst\r\n$6\r\nsecond");
    assert_eq!(one(&opened.store, Read::Length(key("l"))).await, Found::Count(2));
}

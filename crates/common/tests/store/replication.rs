//! `store.durability = "replicated"`: a write counts once every replica that is connected has it.

use std::time::{Duration, Instant};

use common::{
    clock::Clock,
    config::{Durability, StoreUrl},
    shutdown::Shutdown,
    store::{Check, Committed, Op, Store, StoreHealth, Txn, fsync_problem},
};
use test_redis::{RedisCluster, RedisServer, SentinelGroup, wait_until};

use crate::{bytes, is_unavailable, redis_faults::CALL};

const PATIENCE: Duration = Duration::from_secs(20);

fn replicated(url: String) -> Store {
    let url = StoreUrl::Redis(url.into());
    let (clock, shutdown) = (Clock::system(), Shutdown::new());
    Store::open_with(&url, Durability::Replicated, clock, &shutdown).unwrap()
}

fn first(key: &str) -> Txn {
    let set = Op::Set { key: key.to_owned(), value: bytes("1"), ttl: None };
    Txn::durable().check(Check::Absent(key.to_owned())).op(set)
}

fn pair() -> (RedisServer, RedisServer) {
    let master = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let of = format!("127.0.0.1 {}", master.port());
    let replica = RedisServer::start(&["--replicaof", &of]);
    wait_until(PATIENCE, "the replica follows", || {
        master.tell("INFO replication").contains("state=online")
    });
    // It is sent nothing before it has acknowledged that once, which may take it a second.
    master.tell("SET first 1");
    wait_until(PATIENCE, "the replica has a write", || replica.tell("EXISTS first").contains(":1"));
    (master, replica)
}

#[tokio::test]
async fn what_counts_is_on_every_replica() {
    let (master, replica) = pair();
    let store = replicated(master.url());
    for n in 0..20 {
        let key = format!("c:{{u}}:{n}");
        assert_eq!(store.commit(first(&key)).await.unwrap(), Committed::Applied);
        assert!(replica.tell(&format!("EXISTS {key}")).contains(":1"));
    }
    assert_eq!(store.ping().await.unwrap(), StoreHealth::Whole);
    assert_eq!(fsync_problem(&store).await.unwrap(), None);
    master.tell("CONFIG SET appendfsync everysec");
    let (_, problem) = fsync_problem(&store).await.unwrap().unwrap();
    assert!(problem.contains("appendfsync is everysec"), "{problem}");
}

#[tokio::test]
async fn a_replica_that_does_not_answer_leaves_the_outcome_unknown_in_time() {
    let (master, replica) = pair();
    let store = replicated(master.url());
    replica.freeze();
    let begun = Instant::now();
    let said = store.commit(first("c:{u}:k")).await;
    assert!(is_unavailable(&said) && begun.elapsed() < CALL, "{said:?}");
    // What is not acknowledged to anybody does not wait.
    let quick = Txn { durable: false, ..first("c:{u}:quick") };
    assert_eq!(store.commit(quick).await.unwrap(), Committed::Applied);
    // The repetition finds the step done: that counts only once the replica has it.
    let said = store.commit(first("c:{u}:k")).await;
    assert!(is_unavailable(&said), "{said:?}");
    replica.thaw();
    let begun = Instant::now();
    let said = loop {
        match store.commit(first("c:{u}:k")).await {
            Ok(said) => break said,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
    };
    assert_eq!(said, Committed::Refused(0));
    assert!(replica.tell("EXISTS c:{u}:k").contains(":1"));
}

#[tokio::test]
async fn without_a_replica_nothing_is_written() {
    let (master, replica) = pair();
    let store = replicated(master.url());
    replica.kill();
    wait_until(PATIENCE, "the replica is gone", || {
        master.tell("INFO replication").contains("connected_slaves:0")
    });
    let said = store.commit(first("c:{u}:k")).await;
    assert!(is_unavailable(&said), "{said:?}");
    assert!(master.tell("EXISTS c:{u}:k").contains(":0"));
    let why = store.ping().await.unwrap_err().to_string();
    assert!(why.contains("no replica is connected"), "{why}");
}

/// Sentinels promote one replica while the other still follows the old master, which knows of nothing.
#[tokio::test]
async fn what_counts_survives_a_switch_by_sentinels() {
    let group = SentinelGroup::start_with(&["--appendonly", "yes", "--appendfsync", "always"], "");
    let store = replicated(group.url());
    let (mut counted, begun) = (Vec::new(), Instant::now());
    let old = group.master().port();
    let (mut is_asked, mut counted_since) = (false, 0);
    for n in 0.. {
        let key = format!("c:{{u}}:{n}");
        if store.commit(first(&key)).await.is_ok() {
            counted.push(key);
            counted_since += u32::from(group.master().port() != old);
        }
        if !is_asked && counted.len() >= 20 {
            // No replica is fit for it before the Sentinel has heard from one.
            is_asked = group.sentinels[0].tell("SENTINEL FAILOVER mymaster") == "+OK";
        }
        if counted_since >= 20 {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{} counted", counted.len());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let master = group.master();
    for key in counted {
        assert!(master.tell(&format!("EXISTS {key}")).contains(":1"), "{key} is lost");
    }
}

#[tokio::test]
async fn a_second_replica_that_is_gone_stops_what_counts_for_a_while() {
    let (master, replica) = pair();
    let second = RedisServer::start(&["--replicaof", &format!("127.0.0.1 {}", master.port())]);
    let has = |count| master.tell("INFO replication").matches("state=online").count() == count;
    wait_until(PATIENCE, "both follow", || has(2));
    let store = replicated(master.url());
    let mut n = 0;
    let mut counts = async || {
        n += 1;
        store.commit(first(&format!("c:{{u}}:{n}"))).await.is_ok()
    };
    while !counts().await {}
    second.kill();
    wait_until(PATIENCE, "it is gone", || has(1));
    let gone = Instant::now();
    assert!(!counts().await, "it may have been promoted");
    while !counts().await {
        assert!(gone.elapsed() < PATIENCE);
    }
    assert!(gone.elapsed() > Duration::from_secs(3), "{:?}", gone.elapsed());
    drop(replica);
}

#[tokio::test]
async fn a_cluster_replicates_each_write_in_its_own_shard() {
    let cluster = RedisCluster::start();
    let store = replicated(cluster.url());
    for user in 0..30 {
        let key = format!("c:{{user-{user}}}:k");
        let begun = Instant::now();
        while let Err(error) = store.commit(first(&key)).await {
            assert!(begun.elapsed() < PATIENCE, "{error}");
        }
    }
    assert_eq!(store.ping().await.unwrap(), StoreHealth::Whole);
}

/// Of a slot that is being moved, keys that were moved are written where they are now, while others are still to come.
#[tokio::test]
async fn a_write_to_a_slot_that_is_being_moved_does_not_stop_the_move() {
    let cluster = RedisCluster::start();
    let store = replicated(cluster.url());
    store.commit(first("c:{u}:k")).await.unwrap();
    let from = cluster.master_of("c:{u}:k");
    let mut masters = cluster.with_role(true);
    masters.retain(|node| node.port() != from.port());
    let (to, slot) = (masters[0], from.tell("CLUSTER KEYSLOT c:{u}:k"));
    let id = |node: &RedisServer| {
        let answer = node.tell("CLUSTER MYID");
        answer.lines().last().unwrap().trim().to_owned()
    };
    let set = |node: &RedisServer, role: &str, other: &RedisServer| {
        let slot = slot.trim_start_matches(':');
        let said = node.tell(&format!("CLUSTER SETSLOT {slot} {role} {}", id(other)));
        assert_eq!(said, "+OK");
    };
    let move_key = |key: &str| from.tell(&format!("MIGRATE 127.0.0.1 {} {key} 0 5000", to.port()));
    set(to, "IMPORTING", from);
    set(from, "MIGRATING", to);
    assert_eq!(move_key("c:{u}:k"), "+OK");
    let write = Op::Set { key: "c:{u}:k".to_owned(), value: bytes("2"), ttl: None };
    assert_eq!(store.commit(Txn::durable().op(write)).await.unwrap(), Committed::Applied);
    assert_eq!(move_key("c:{u}:replicated"), "+OK");
    set(to, "NODE", to);
    set(from, "NODE", to);
    assert!(to.tell("GET c:{u}:k").contains('2'));
}

//! The contract on a Redis Cluster and behind Sentinels, and their bad days.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use common::{
    clock::Clock,
    config::Durability,
    shutdown::Shutdown,
    store::{Check, Op, Read, Store, StoreHealth, Txn},
};
use test_redis::{RedisCluster, RedisServer, SentinelGroup};

use crate::{
    Claim, Opened, at, atomicity, bytes, contract, done, expiry, indexes, is_unavailable, opened,
    push, rates,
    redis_faults::{BACK, CALL},
    refusals, txn, within,
};

/// A failover may take that long: the node timeout, an election, and what the machine needs on top of it.
const FAILOVER: Duration = Duration::from_secs(20);

async fn holds(store: &Store, flush: impl Fn()) {
    let claims: [&[Claim]; 6] = [
        contract::CLAIMS,
        atomicity::CLAIMS,
        expiry::CLAIMS,
        indexes::CLAIMS,
        rates::CLAIMS,
        refusals::CLAIMS,
    ];
    for claim in claims.into_iter().flatten() {
        flush();
        eprintln!("{}", claim.name);
        (claim.run)(store).await;
    }
}

fn connect(url: String) -> Opened {
    opened(&at(url), None, None)
}

fn user_key(user: usize) -> String {
    format!("c:{{user-{user}}}:0:l")
}

/// Appends a number to the list of each of 30 users, once, repeating what is unknown. Returns how many calls failed.
async fn append_until_done(store: &Store, number: usize) -> usize {
    let mut failed = 0;
    for user in 0..30 {
        let key = user_key(user);
        let append = Txn::durable()
            .check(Check::LengthIs(key.clone(), number as u64))
            .op(Op::Push(key, bytes(&number.to_string())));
        let begun = Instant::now();
        loop {
            let call = Instant::now();
            let said = store.commit(append.clone()).await;
            assert!(call.elapsed() <= CALL, "{:?}", call.elapsed());
            match said {
                Ok(_) => break,
                Err(_) => failed += 1,
            }
            assert!(begun.elapsed() < FAILOVER, "{said:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    failed
}

async fn length(store: &Store, user: usize) -> u64 {
    let read = vec![Read::Length(user_key(user))];
    store.read(read).await.expect("a read").count(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_on_a_cluster() {
    let cluster = RedisCluster::start();
    let opened = connect(cluster.url());
    holds(&opened.store, || cluster.flush()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_behind_sentinels() {
    let group = SentinelGroup::start();
    let opened = connect(group.url());
    holds(&opened.store, || group.flush()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_of_a_cluster_is_replaced_and_costs_others_nothing() {
    let cluster = RedisCluster::start();
    let opened = connect(cluster.url());
    let store = &opened.store;
    append_until_done(store, 0).await;
    cluster.wait_whole();
    let victim = cluster.master_of(&user_key(0));
    let others: Vec<_> = (0..30)
        .filter(|user| cluster.master_of(&user_key(*user)).port() != victim.port())
        .collect();
    victim.kill();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        for user in &others {
            let call = Instant::now();
            length(store, *user).await;
            assert!(call.elapsed() < Duration::from_millis(500), "{:?}", call.elapsed());
        }
    }
    let health = store.ping().await.expect("some answer");
    assert!(matches!(health, StoreHealth::Degraded(_)), "{health:?}");
    assert!(store.was_away(&user_key(0), Duration::from_secs(10)));
    assert!(!store.was_away(&user_key(others[0]), Duration::from_secs(10)));
    for number in 1..5 {
        append_until_done(store, number).await;
    }
    assert!(store.was_away(&user_key(0), Duration::from_secs(60)), "its replica took over");
    victim.restart();
    let whole = || async { store.ping().await.is_ok_and(|health| health == StoreHealth::Whole) };
    within(FAILOVER, "all answer", whole).await;
    for user in 0..30 {
        assert_eq!(length(store, user).await, 5);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_node_of_a_cluster_refuses_only_its_own_calls() {
    let cluster = RedisCluster::start();
    let opened = connect(cluster.url());
    let store = &opened.store;
    append_until_done(store, 0).await;
    let frozen = cluster.master_of(&user_key(0));
    let other = (0..30).find(|user| cluster.master_of(&user_key(*user)).port() != frozen.port());
    let other = other.expect("30 users lie on several nodes");
    frozen.freeze();
    let begun = Instant::now();
    let said = store.read(vec![Read::Length(user_key(0))]).await;
    assert!(is_unavailable(&said), "{said:?}");
    assert!(begun.elapsed() <= CALL, "{:?}", begun.elapsed());
    let begun = Instant::now();
    length(store, other).await;
    assert!(begun.elapsed() < Duration::from_millis(300), "{:?}", begun.elapsed());
    // Reads of many users bring what the others hold.
    let reads = (0..30).map(|user| Read::Length(user_key(user))).collect();
    let each = store.read_each(reads).await.expect("some");
    assert!(each.iter().any(Result::is_err) && each.iter().any(Result::is_ok));
    let ops = (0..30).map(|user| Op::PushExisting(user_key(user), bytes("x"))).collect();
    let each = store.apply_each(ops).await.expect("some");
    assert!(each.iter().any(Result::is_err) && each.iter().any(|said| matches!(said, Ok(true))));
    // Its replica takes over; it comes back as a replica.
    within(FAILOVER, "its slots are served", || async {
        store.read(vec![Read::Length(user_key(0))]).await.is_ok()
    })
    .await;
    frozen.thaw();
    cluster.wait_whole();
    within(BACK, "all answer", || async { store.ping().await.is_ok() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_move_under_load_and_nothing_is_lost_or_doubled() {
    slots_move_under_load(Durability::Local).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_move_under_load_while_writes_wait_for_replicas() {
    slots_move_under_load(Durability::Replicated).await;
}

async fn slots_move_under_load(durability: Durability) {
    let cluster = RedisCluster::start();
    let shutdown = Shutdown::new();
    let url = at(cluster.url());
    let store = Store::open_with(&url, durability, Clock::system(), &shutdown).expect("it opens");
    append_until_done(&store, 0).await;
    let from = cluster.master_of(&user_key(0));
    let mut masters = cluster.with_role(true);
    masters.retain(|node| node.port() != from.port());
    let mut moving = cluster.reshard(from, masters[0], 4000);
    let mut moving = moving.stdout(Stdio::null()).spawn().expect("redis-cli");
    let mut number = 1;
    while moving.try_wait().expect("a child").is_none() {
        append_until_done(&store, number).await;
        number += 1;
    }
    assert!(moving.wait().expect("a child").success(), "all slots are moved");
    append_until_done(&store, number).await;
    for user in 0..30 {
        let key = user_key(user);
        let read = Read::Items { key, start: 0, stop: -1 };
        let mut found = store.read(vec![read]).await.expect("a read");
        let expected: Vec<_> = (0..=number).map(|n| bytes(&n.to_string())).collect();
        assert_eq!(found.items(0), expected);
    }
    shutdown.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_behind_sentinels_is_replaced() {
    let group = SentinelGroup::start();
    let opened = connect(group.url());
    append_until_done(&opened.store, 0).await;
    let master = group.master();
    master.kill();
    for number in 1..4 {
        append_until_done(&opened.store, number).await;
    }
    assert!(opened.store.was_away(&user_key(0), Duration::from_secs(60)));
    assert_ne!(group.master().port(), master.port());
    master.restart();
    append_until_done(&opened.store, 4).await;
    assert_eq!(length(&opened.store, 0).await, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_a_cluster_are_bounded() {
    let cluster = RedisCluster::start();
    let opened = connect(cluster.url());
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..300 {
        let store = opened.store.clone();
        tasks.spawn(async move { done(&store, [Op::Push(user_key(n), bytes("x"))]).await });
    }
    tasks.join_all().await;
    for node in &cluster.nodes {
        let clients = node.tell("CLIENT LIST");
        let ours = clients.lines().filter(|line| line.contains("lib-name=redis-rs")).count();
        // Two workers and the test's own thread.
        assert!(ours <= 3, "{ours} connections: {clients}");
    }
}

async fn reason(url: String) -> String {
    let opened = connect(url);
    let said = opened.store.ping().await;
    said.expect_err("it cannot be used").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wrong_scheme_is_told_with_the_right_one() {
    let alone = RedisServer::start(&[]);
    let node = RedisServer::start(&["--cluster-enabled", "yes"]);
    let group = SentinelGroup::start();
    let sentinel = &group.sentinels[0];
    for (url, expected) in [
        (node.url(), "use redis+cluster://"),
        (sentinel.url(), "use redis+sentinel://"),
        (format!("redis+cluster://{}", sentinel.address()), "use redis+sentinel://"),
        (format!("redis+sentinel://{}/mymaster", node.address()), "use redis+cluster://"),
        (format!("redis+cluster://{}", alone.address()), "use redis://"),
        (format!("redis+sentinel://{}/mymaster", alone.address()), "use redis://"),
        (format!("redis+sentinel://{}/other", sentinel.address()), "No such master"),
    ] {
        let reason = reason(url.clone()).await;
        assert!(reason.contains(expected), "{url}: {reason}");
    }
    let refused = connect(node.url()).store.commit(txn([push("l", "x")])).await;
    assert!(is_unavailable(&refused), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_reaches_the_nodes_of_a_cluster_and_the_master_of_sentinels() {
    let login = ["--requirepass", "canary", "--masterauth", "canary"];
    let group = SentinelGroup::start_with(&login, "sentinel auth-pass mymaster canary\n");
    let url = group.url().replace("://", "://:canary@");
    let opened = connect(url);
    done(&opened.store, [push("l", "x")]).await;
    let wrong = reason(group.url().replace("://", "://:wrong@")).await;
    assert!(wrong.contains("WRONGPASS") || wrong.contains("refused"), "{wrong}");
}

//! The embedded store's own promises: what is acknowledged is on disk, and the file is its owner's alone.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use common::{
    config::StoreUrl,
    shutdown::Shutdown,
    store::{Check, Committed, Found, Op, Quota, Read, Store, StoreError, Txn},
};

use crate::{
    bytes, done, field, fields, in_memory, items, key, member, members, one, push, set, txn, value,
    within,
};

fn open(dir: &Path) -> Result<Store, StoreError> {
    Store::open(&StoreUrl::Embedded(dir.into()), &Shutdown::new())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_after_it_was_closed_and_opened() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let minute = Some(Duration::from_secs(60));
    done(
        &store,
        [
            set("v", "1"),
            push("l", "a"),
            field("h", "f", "1"),
            member("i", "m", 1),
            Op::Expire(key("h"), minute),
        ],
    )
    .await;
    store.commit(Txn::relaxed().op(push("l", "relaxed"))).await.unwrap();
    drop(store);
    let store = open(dir.path()).unwrap();
    assert_eq!(value(&store, "v").await.as_deref(), Some("1"));
    assert_eq!(items(&store, "l").await, ["a", "relaxed"]);
    assert_eq!(fields(&store, "h").await, [("f".into(), "1".into())]);
    done(&store, [push("m", "new"), member("i", "n", 2)]).await;
    assert_eq!(items(&store, "l").await, ["a", "relaxed"], "a new list is not an old one");
    assert_eq!(members(&store, "i").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expired_while_it_was_closed_is_absent() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    done(&store, [push("l", "a"), Op::Expire(key("l"), Some(Duration::from_millis(30)))]).await;
    drop(store);
    tokio::time::sleep(Duration::from_millis(40)).await;
    let store = open(dir.path()).unwrap();
    assert_eq!(one(&store, Read::Length(key("l"))).await, Found::Count(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_one_on_the_same_folder_is_told_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let error = open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    drop(first);
    open(dir.path()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folder_and_file_are_for_their_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("deep/data");
    let _store = open(&data).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    assert_eq!(mode(&data.join("chatbot.redb")), 0o600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_no_store_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("chatbot.redb"), "not a database").unwrap();
    let error = open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("chatbot.redb cannot be opened"), "{error}");
}

/// The environment variable that makes [`the_writer_that_is_killed`] write.
const KILLED: &str = "STORE_TEST_WRITES_INTO";

/// The one that makes it write one relaxed change, and end without a word a second later.
const RELAXED: &str = "STORE_TEST_RELAXED";

/// Run by the test below in a process of its own; alone, it has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_writer_that_is_killed() {
    let Some(dir) = std::env::var_os(KILLED) else {
        return;
    };
    let store = open(Path::new(&dir)).unwrap();
    if std::env::var_os(RELAXED).is_some() {
        let last = Txn::relaxed().op(set("v", "relaxed"));
        store.commit(last).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        std::process::abort();
    }
    for n in 0.. {
        let pair = Txn {
            durable: true,
            ..txn([push("l", &n.to_string()), field("h", "n", &n.to_string())])
        };
        store.commit(pair).await.unwrap();
        store.commit(Txn::relaxed().op(push("relaxed", "x"))).await.unwrap();
        #[expect(clippy::print_stdout, reason = "the other process reads it")]
        {
            println!("acknowledged {n}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let mut least = 0;
    for round in 1..=4 {
        std::fs::remove_dir_all(dir.path().join("data")).ok();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "embedded::the_writer_that_is_killed", "--nocapture"])
            .env(KILLED, dir.path().join("data"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
        let mut last = 0;
        for line in lines {
            // The test harness writes onto the same line first.
            if let Some((_, n)) = line.split_once("acknowledged ") {
                last = n.parse().unwrap();
                if last == 20 * round {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        let store = open(&dir.path().join("data")).unwrap();
        let list = items(&store, "l").await;
        assert!(list.len() > last, "{} of {} are there", list.len(), last + 1);
        assert_eq!(list, (0..list.len()).map(|n| n.to_string()).collect::<Vec<_>>());
        let relaxed = items(&store, "relaxed").await.len();
        assert!(
            relaxed + 1 >= list.len(),
            "what is relaxed is on disk with what is durable after it"
        );
        assert_eq!(
            fields(&store, "h").await,
            [("n".into(), (list.len() - 1).to_string())],
            "pairs are whole"
        );
        least = least.max(last);
    }
    assert!(least >= 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_long_list_holds_nobody_up() {
    let opened = in_memory();
    let store = &opened.store;
    for _ in 0..20 {
        store
            .commit((0..5000).fold(Txn::relaxed(), |txn, n| txn.op(push("long", &n.to_string()))))
            .await
            .unwrap();
    }
    let begun = std::time::Instant::now();
    done(store, [Op::Delete(key("long")), set("v", "1")]).await;
    let deleted = begun.elapsed();
    assert_eq!(one(store, Read::Length(key("long"))).await, Found::Count(0));
    done(store, [push("long", "again")]).await;
    let mut slowest = Duration::ZERO;
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        let call = std::time::Instant::now();
        done(store, [set("v", "1")]).await;
        slowest = slowest.max(call.elapsed());
    }
    assert_eq!(items(store, "long").await, ["again"]);
    assert!(
        deleted < Duration::from_millis(300) && slowest < Duration::from_millis(300),
        "{deleted:?}, {slowest:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_durable_writers_share_their_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let mut set = tokio::task::JoinSet::new();
    for n in 0..500 {
        let store = store.clone();
        set.spawn(async move {
            let first = Txn::durable().check(Check::Absent(key(&n.to_string()))).op(Op::Set {
                key: key(&n.to_string()),
                value: bytes("x"),
                ttl: None,
            });
            assert_eq!(store.commit(first).await.unwrap(), Committed::Applied);
        });
    }
    set.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buckets_are_forgotten_at_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let quota = Quota { burst: 1, period: Duration::from_secs(60) };
    let store = open(dir.path()).unwrap();
    assert!(store.admit("b", quota, 1).await.unwrap().allowed);
    assert!(!store.admit("b", quota, 1).await.unwrap().allowed);
    drop(store);
    assert!(open(dir.path()).unwrap().admit("b", quota, 1).await.unwrap().allowed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_work_on_while_the_process_shuts_down() {
    let (dir, shutdown) = (tempfile::tempdir().unwrap(), Shutdown::new());
    let store = Store::open(&StoreUrl::Embedded(dir.path().into()), &shutdown).unwrap();
    shutdown.stop();
    within(Duration::from_secs(1), "tasks end", || async {
        tokio::time::timeout(Duration::from_millis(200), shutdown.finished()).await.is_ok()
    })
    .await;
    done(&store, [set("v", "last")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_relaxed_is_on_disk_a_second_later() {
    let dir = tempfile::tempdir().unwrap();
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::the_writer_that_is_killed"])
        .env(KILLED, dir.path())
        .env(RELAXED, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!ended.success());
    let store = open(dir.path()).unwrap();
    assert_eq!(value(&store, "v").await.as_deref(), Some("relaxed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_without_time_left_does_nothing() {
    let opened = in_memory();
    let over = opened.store.by(std::time::Instant::now());
    let said = over.commit(txn([set("v", "no")])).await;
    assert!(matches!(said, Err(StoreError::Unavailable(_))), "{said:?}");
    opened.store.ping().await.unwrap();
    assert_eq!(value(&opened.store, "v").await, None);
}

//! The promises of the storage seam: one contract that every backend is held to, and each backend's bad days.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod atomicity;
mod contract;
mod embedded;
mod expiry;
mod indexes;
mod model;
mod rates;
mod redis_deployments;
mod redis_faults;
mod redis_refusals;
mod refusals;
mod replication;

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use common::{
    config::StoreUrl,
    shutdown::Shutdown,
    store::{Bytes, Committed, Found, Op, Read, Store, StoreError, Txn},
};
use tempfile::TempDir;
use test_redis::RedisServer;

/// A store with what must live as long as it.
struct Opened {
    store: Store,
    shutdown: Shutdown,
    _server: Option<RedisServer>,
    _dir: Option<TempDir>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

fn opened(url: &StoreUrl, server: Option<RedisServer>, dir: Option<TempDir>) -> Opened {
    let shutdown = Shutdown::new();
    let store = Store::open(url, &shutdown).expect("the store opens");
    Opened { store, shutdown, _server: server, _dir: dir }
}

fn on_redis() -> Opened {
    let server = RedisServer::start(&[]);
    opened(&at(server.url()), Some(server), None)
}

fn at(url: impl Into<String>) -> StoreUrl {
    StoreUrl::Redis(url.into().into())
}

/// A claim that holds on every store.
struct Claim {
    name: &'static str,
    run: for<'a> fn(&'a Store) -> Pin<Box<dyn Future<Output = ()> + 'a>>,
}

fn in_memory() -> Opened {
    opened(&StoreUrl::Memory, None, None)
}

fn in_a_file() -> Opened {
    let dir = tempfile::tempdir().expect("a folder");
    opened(&StoreUrl::Embedded(dir.path().join("data")), None, Some(dir))
}

/// Runs each claim on every backend that starts at once.
macro_rules! on_every_backend {
    ($($claim:ident),+ $(,)?) => {
        /// For stores whose start takes long, which all claims share.
        pub(crate) const CLAIMS: &[crate::Claim] = &[
            $(crate::Claim { name: stringify!($claim), run: |store| Box::pin($claim(store)) }),+
        ];
        mod on_redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                let opened = crate::on_redis();
                super::$claim(&opened.store).await;
            })+
        }
        mod in_memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                let opened = crate::in_memory();
                super::$claim(&opened.store).await;
            })+
        }
        mod in_a_file {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                let opened = crate::in_a_file();
                super::$claim(&opened.store).await;
            })+
        }
    };
}
use on_every_backend;

fn key(name: &str) -> String {
    format!("c:{{alice}}:0:{name}")
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn set(name: &str, value: &str) -> Op {
    Op::Set { key: key(name), value: bytes(value), ttl: None }
}

fn push(name: &str, value: &str) -> Op {
    Op::Push(key(name), bytes(value))
}

fn field(name: &str, field: &str, value: &str) -> Op {
    Op::FieldSet(key(name), field.into(), bytes(value))
}

fn member(name: &str, member: &str, score: i64) -> Op {
    Op::MemberSet(key(name), member.into(), score)
}

fn txn(ops: impl IntoIterator<Item = Op>) -> Txn {
    ops.into_iter().fold(Txn::durable(), Txn::op)
}

/// Commits what has no checks.
async fn done(store: &Store, ops: impl IntoIterator<Item = Op>) {
    assert_eq!(store.commit(txn(ops)).await.expect("a commit"), Committed::Applied);
}

async fn one(store: &Store, read: Read) -> Found {
    store.read(vec![read]).await.expect("a read").found.remove(0)
}

async fn value(store: &Store, name: &str) -> Option<String> {
    match one(store, Read::Value(key(name))).await {
        Found::Value(value) => value.map(|value| String::from_utf8(value.to_vec()).expect("text")),
        found => panic!("not a value: {found:?}"),
    }
}

async fn items(store: &Store, name: &str) -> Vec<String> {
    match one(store, Read::Items { key: key(name), start: 0, stop: -1 }).await {
        Found::Items(items) => {
            items.iter().map(|item| String::from_utf8(item.to_vec()).expect("text")).collect()
        }
        found => panic!("not a list: {found:?}"),
    }
}

async fn fields(store: &Store, name: &str) -> Vec<(String, String)> {
    match one(store, Read::Fields(key(name))).await {
        Found::Fields(fields) => {
            let text = |value: Bytes| String::from_utf8(value.to_vec()).expect("text");
            let mut fields: Vec<_> =
                fields.into_iter().map(|(field, value)| (field, text(value))).collect();
            fields.sort();
            fields
        }
        found => panic!("not a hash: {found:?}"),
    }
}

async fn members(store: &Store, name: &str) -> Vec<(String, i64)> {
    match one(store, Read::Newest { key: key(name), before: None, limit: 1000 }).await {
        Found::Members(members) => members,
        found => panic!("not an index: {found:?}"),
    }
}

/// Waits until something is so, for at most `limit`.
async fn within<F: Future<Output = bool>>(
    limit: Duration,
    what: &str,
    mut so: impl FnMut() -> F,
) -> Duration {
    let begun = Instant::now();
    while !so().await {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begun.elapsed()
}

fn is_unavailable<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Unavailable(_)))
}

//! Throw-away Redis servers for tests: one, a Cluster, or a master with replicas and Sentinels. Each listens on a free port, lives in
//! a temporary folder, and is killed when it is dropped.
//!
//! `TEST_REDIS_SERVER` names another program than `redis-server`: Valkey, or an older Redis.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod certificates;
mod cluster;
mod sentinel;
mod server;

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

pub use self::{
    certificates::Certificates, cluster::RedisCluster, sentinel::SentinelGroup, server::RedisServer,
};

/// Where a server listens for TLS that was given [`Certificates`], beside its own port.
pub fn tls_port(port: u16) -> u16 {
    port.wrapping_add(5_000)
}

/// A port that was free just now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}

/// Waits until something is so.
///
/// # Panics
/// When it is not so within the limit.
pub fn wait_until(limit: Duration, what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

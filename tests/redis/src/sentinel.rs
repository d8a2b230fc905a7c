//! A master with two replicas, and three Sentinels that watch them.

use std::time::Duration;

use crate::{Certificates, RedisServer, tls_port, wait_until};

/// What the Sentinels call it.
const SERVICE: &str = "mymaster";

/// How long the servers may take to know each other, and a failover.
const LIMIT: Duration = Duration::from_secs(30);

/// A master, two replicas, three Sentinels; a master that is gone for 1 s is replaced.
pub struct SentinelGroup {
    pub servers: Vec<RedisServer>,
    pub sentinels: Vec<RedisServer>,
}

impl SentinelGroup {
    pub fn start() -> Self {
        Self::start_with(&[], "")
    }

    /// With further settings for the master and its replicas, and for the Sentinels.
    pub fn start_with(args: &[&str], settings: &str) -> Self {
        Self::start_as(args, &["--sentinel"], settings, |port| port)
    }

    /// Whose servers speak TLS with each other and with clients.
    pub fn start_tls(certificates: &Certificates) -> Self {
        let args = certificates.args();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Self::start_as(&args, &[&["--sentinel"], &args[..]].concat(), "", tls_port)
    }

    /// `known_as` is the port under which servers know each other.
    fn start_as(
        args: &[&str],
        sentinel_args: &[&str],
        settings: &str,
        known_as: fn(u16) -> u16,
    ) -> Self {
        let fast = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"];
        let args = [&fast[..], args].concat();
        let master = RedisServer::start(&args);
        let port = known_as(master.port()).to_string();
        let of_master = format!("127.0.0.1 {port}");
        let of_master = [&args[..], &["--replicaof", &of_master]].concat();
        let replicas = [RedisServer::start(&of_master), RedisServer::start(&of_master)];
        let sentinel = || {
            RedisServer::start_with(sentinel_args, |dir| {
                let all = format!(
                    "sentinel monitor {SERVICE} 127.0.0.1 {port} 2\n\
                     sentinel down-after-milliseconds {SERVICE} 1000\n\
                     sentinel failover-timeout {SERVICE} 3000\n{settings}"
                );
                std::fs::write(dir.join("sentinel.conf"), all).expect("a file");
            })
        };
        let group = Self {
            sentinels: vec![sentinel(), sentinel(), sentinel()],
            servers: std::iter::once(master).chain(replicas).collect(),
        };
        group.wait_whole();
        group
    }

    /// Its address as a setting.
    pub fn url(&self) -> String {
        let addresses: Vec<_> = self.sentinels.iter().map(RedisServer::address).collect();
        format!("redis+sentinel://{}/{SERVICE}/0", addresses.join(","))
    }

    /// Its address for clients that speak TLS.
    pub fn tls_url(&self) -> String {
        let port = |one: &RedisServer| format!("127.0.0.1:{}", tls_port(one.port()));
        let addresses: Vec<_> = self.sentinels.iter().map(port).collect();
        format!("rediss+sentinel://{}/{SERVICE}/0", addresses.join(","))
    }

    /// Waits until every Sentinel knows the others and both replicas.
    pub fn wait_whole(&self) {
        wait_until(LIMIT, "the Sentinels know each other", || {
            self.sentinels.iter().all(|sentinel| {
                let info = sentinel.tell("INFO sentinel");
                info.contains("slaves=2,sentinels=3")
            })
        });
    }

    /// The master by the first Sentinel that answers.
    ///
    /// # Panics
    /// When none knows one.
    pub fn master(&self) -> &RedisServer {
        let command = format!("SENTINEL GET-MASTER-ADDR-BY-NAME {SERVICE}");
        let answers = self.sentinels.iter().filter_map(|one| one.tell_if_up(&command));
        let port = answers.into_iter().find_map(|answer| {
            let port = answer.lines().last()?;
            port.trim().parse::<u16>().ok()
        });
        let is_it = |server: &&RedisServer| {
            port.is_some_and(|port| [server.port(), tls_port(server.port())].contains(&port))
        };
        self.servers.iter().find(is_it).expect("a master")
    }

    /// Forgets all data.
    pub fn flush(&self) {
        self.master().tell("FLUSHALL");
    }
}

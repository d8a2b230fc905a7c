//! A Redis Cluster of three masters, each with a replica.

use std::{
    collections::HashMap,
    net::TcpListener,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{Certificates, RedisServer, free_port, tls_port, wait_until};

/// The highest port whose cluster bus, 10,000 above it, is a port.
const LAST_PORT: u16 = 55_535;

/// How long the nodes may take to know each other, and a failover.
const LIMIT: Duration = Duration::from_secs(30);

/// Three masters and three replicas; a node that is gone for 2 s is replaced.
pub struct RedisCluster {
    pub nodes: Vec<RedisServer>,
}

impl RedisCluster {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further settings for every node.
    ///
    /// # Panics
    /// When the nodes or the cluster do not start.
    pub fn start_with(args: &[&str]) -> Self {
        let nodes: Vec<_> = (0..6).map(|_| node(args)).collect();
        let addresses = nodes.iter().map(RedisServer::address);
        let made = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(addresses)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .output()
            .expect("redis-cli, which comes with redis-server");
        let said = String::from_utf8_lossy(&made.stdout);
        assert!(made.status.success(), "{said}");
        let cluster = Self { nodes };
        cluster.wait_whole();
        cluster
    }

    /// Whose nodes also listen for TLS, and speak it with each other.
    pub fn start_tls(certificates: &Certificates) -> Self {
        let args = certificates.args();
        let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
        args.extend(["--tls-cluster", "yes"]);
        Self::start_with(&args)
    }

    /// Its address for clients that speak TLS.
    pub fn tls_url(&self) -> String {
        let port = |node: &RedisServer| format!("127.0.0.1:{}", tls_port(node.port()));
        let addresses: Vec<_> = self.nodes.iter().map(port).collect();
        format!("rediss+cluster://{}", addresses.join(","))
    }

    /// Its address as a setting, with every node.
    pub fn url(&self) -> String {
        let addresses: Vec<_> = self.nodes.iter().map(RedisServer::address).collect();
        format!("redis+cluster://{}", addresses.join(","))
    }

    /// Waits until all nodes agree who serves what, say that all is well, and every replica has what was written before.
    pub fn wait_whole(&self) {
        // Under load a replica never has all that was written by now.
        let mut written: HashMap<u16, Option<u64>> = HashMap::new();
        let mut is_whole = |node: &RedisServer| {
            let info = node.tell("CLUSTER INFO");
            let replication = node.tell("INFO replication");
            let is_synced = match replication.contains("role:master") {
                true => {
                    let now = number_after(&replication, "master_repl_offset:");
                    let before = *written.entry(node.port()).or_insert(now);
                    replication.contains("state=online")
                        && number_after(&replication, ",offset=") >= before
                }
                false => replication.contains("master_link_status:up"),
            };
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:6") && is_synced
        };
        wait_until(LIMIT, "the cluster is whole", || {
            let mut views = self.nodes.iter().map(masters_by);
            let first = views.next();
            views.all(|view| Some(view) == first) && self.nodes.iter().all(&mut is_whole)
        });
    }

    /// The master that serves the key.
    ///
    /// # Panics
    /// When no node knows one.
    pub fn master_of(&self, key: &str) -> &RedisServer {
        let up = self.nodes.iter().find_map(|node| {
            let slot = node.tell_if_up(&format!("CLUSTER KEYSLOT {key}"))?;
            Some((slot.trim_start_matches(':').parse().ok()?, node.tell("CLUSTER NODES")))
        });
        let (slot, nodes): (u16, String) = up.expect("a node that answers");
        let port = nodes.lines().find_map(|line| master_line(line, slot));
        let port = port.expect("a master of the slot");
        let is_it = |node: &&RedisServer| node.port() == port;
        self.nodes.iter().find(is_it).expect("one of ours")
    }

    /// The nodes that are masters, or those that are not. Each must answer.
    pub fn with_role(&self, is_master: bool) -> Vec<&RedisServer> {
        let has_role = |node: &&RedisServer| node.tell("ROLE").contains("master") == is_master;
        self.nodes.iter().filter(has_role).collect()
    }

    /// What moves that many slots from one master to another, key by key.
    pub fn reshard(&self, from: &RedisServer, to: &RedisServer, slots: u16) -> Command {
        let id = |node: &RedisServer| {
            let answer = node.tell("CLUSTER MYID");
            answer.lines().last().unwrap_or_default().trim().to_owned()
        };
        let mut command = Command::new("redis-cli");
        command
            .args(["--cluster", "reshard", &from.address(), "--cluster-yes"])
            .args(["--cluster-from", &id(from), "--cluster-to", &id(to)])
            .args(["--cluster-slots", &slots.to_string(), "--cluster-pipeline", "1"]);
        command
    }

    /// Ends the move of a slot that was broken off; gives what redis-cli says.
    pub fn fix(&self) -> String {
        let mut fix = Command::new("redis-cli");
        fix.args(["--cluster", "fix", &self.nodes[0].address()]);
        // It asks before it gives slots to nodes that never had them: no.
        let said = fix.stdin(Stdio::null()).output().expect("redis-cli").stdout;
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Forgets all data.
    pub fn flush(&self) {
        for node in &self.nodes {
            node.tell("FLUSHALL");
        }
    }
}

/// The number behind the first of these words.
fn number_after(text: &str, word: &str) -> Option<u64> {
    let (_, rest) = text.split_once(word)?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// The masters and their slots as a node knows them.
fn masters_by(node: &RedisServer) -> Vec<String> {
    let nodes = node.tell("CLUSTER NODES");
    let lines = nodes.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let masters = lines.filter(|line| line.get(2).is_some_and(|flags| flags.contains("master")));
    let mut slots: Vec<_> =
        masters.map(|line| format!("{} {:?}", line[0], line.get(8..))).collect();
    slots.sort();
    slots
}

/// The port of the master in a line of CLUSTER NODES, if it serves that slot.
fn master_line(line: &str, slot: u16) -> Option<u16> {
    let words: Vec<_> = line.split(' ').collect();
    let flags = words.get(2)?;
    if !flags.contains("master") || flags.split(',').any(|flag| flag == "fail") {
        return None;
    }
    let serves = words.iter().skip(8).any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else {
            return false;
        };
        (first..=last).contains(&slot)
    });
    let address = words.get(1)?.split('@').next()?;
    serves.then(|| address.rsplit(':').next()?.parse().ok())?
}

fn node(args: &[&str]) -> RedisServer {
    let mut all = vec![
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        "2000",
        "--cluster-require-full-coverage",
        "no",
        "--repl-diskless-sync-delay",
        "0",
        "--repl-ping-replica-period",
        "1",
    ];
    all.extend(args);
    let is_tls = args.contains(&"--tls-cluster");
    for _ in 0..100 {
        let port = free_port();
        let bus = port.saturating_add(10_000);
        let bus_is_free = port <= LAST_PORT && TcpListener::bind(("127.0.0.1", bus)).is_ok();
        if !bus_is_free {
            continue;
        }
        // Otherwise it is counted from the port for TLS.
        let bus = bus.to_string();
        let mut all = all.clone();
        if is_tls {
            all.extend(["--cluster-port", &bus]);
        }
        if let Some(node) = RedisServer::try_start(port, &all, &|_| {}) {
            return node;
        }
    }
    panic!("no port for a node of a cluster");
}

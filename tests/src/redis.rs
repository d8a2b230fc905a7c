//! A Redis of its own, as settings of ours and clients of it see it: one server, or with `TEST_REDIS=sentinel` or `cluster` a group.

use redis::{Value, aio::MultiplexedConnection};
use test_redis::{RedisCluster, RedisServer, SentinelGroup};

/// What is special about a Redis.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// Every write is on disk before it is answered: what `kill` must not lose.
    pub durable: bool,
    /// `maxmemory`, such as `3mb`; the policy stays `noeviction`.
    pub max_memory: Option<String>,
    /// `requirepass`.
    pub password: Option<String>,
    pub configuration: String,
    /// How many bytes a file of its may have: a disk that is full, until [`Redis::give_room`].
    pub file_limit: Option<u64>,
}

/// A throw-away Redis; killed when dropped.
pub struct Redis {
    servers: Servers,
    options: RedisOptions,
}

enum Servers {
    Single(RedisServer),
    Sentinel(SentinelGroup),
    Cluster(RedisCluster),
}

impl Redis {
    pub async fn start() -> Self {
        Self::start_with(RedisOptions::default()).await
    }

    /// Starts one.
    ///
    /// # Panics
    /// When there is no redis-server on this machine; the message says how to get it.
    pub async fn start_with(options: RedisOptions) -> Self {
        let args = arguments(&options);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let is_plain = options.configuration.is_empty() && options.password.is_none();
        let servers = match std::env::var("TEST_REDIS").as_deref() {
            Ok("sentinel") if is_plain => Servers::Sentinel(SentinelGroup::start_with(&args, "")),
            Ok("cluster") if is_plain => Servers::Cluster(RedisCluster::start_with(&args)),
            _ => Servers::Single(single(&options, &args)),
        };
        let redis = Self { servers, options };
        if redis.options.file_limit.is_some() {
            redis.server().limit_files(redis.options.file_limit);
        }
        redis
    }

    /// The server, of what only one can be asked.
    fn server(&self) -> &RedisServer {
        match &self.servers {
            Servers::Single(server) => server,
            Servers::Sentinel(group) => group.master(),
            Servers::Cluster(_) => panic!("this test is for one Redis: leave it out"),
        }
    }

    /// Its address as a setting.
    pub fn url(&self) -> String {
        match &self.servers {
            Servers::Single(server) => self.url_at(server.port()),
            Servers::Sentinel(group) => group.url(),
            Servers::Cluster(cluster) => cluster.url(),
        }
    }

    /// Its address as a setting, reached through another port (a proxy's).
    pub fn url_at(&self, port: u16) -> String {
        match &self.options.password {
            Some(password) => format!("redis://:{password}@127.0.0.1:{port}/0"),
            None => format!("redis://127.0.0.1:{port}/0"),
        }
    }

    /// Its `address:port`.
    pub fn address(&self) -> String {
        self.server().address()
    }

    pub fn freeze(&self) {
        self.server().freeze();
    }

    pub fn thaw(&self) {
        self.server().thaw();
    }

    pub fn kill(&self) {
        self.server().kill();
    }

    pub fn give_room(&self) {
        self.server().limit_files(None);
    }

    /// Starts it again on the same port with the same data, and waits until it answers.
    pub async fn restart(&self) {
        self.server().restart();
    }

    /// Runs one command, as redis-cli would; on a Cluster on every master, and what they list is one list.
    pub async fn cli(&self, command: &[&str]) -> Value {
        let mut answers = Vec::new();
        for mut connection in self.masters().await {
            let mut command_line = redis::cmd(command[0]);
            let answer = command_line.arg(&command[1..]).query_async(&mut connection).await;
            answers.push(answer.expect("redis takes the command"));
        }
        answers
            .into_iter()
            .reduce(|all, more| match (all, more) {
                (Value::Array(all), Value::Array(more)) => Value::Array([all, more].concat()),
                (_, last) => last,
            })
            .expect("a master")
    }

    /// Every key with its type and, as text, what it holds: to search a whole store for what must not be in it.
    pub async fn dump(&self) -> String {
        let mut all = String::new();
        for mut connection in self.masters().await {
            dump(&mut connection, &mut all).await;
        }
        all
    }

    async fn masters(&self) -> Vec<MultiplexedConnection> {
        let urls = match &self.servers {
            Servers::Single(server) => vec![self.url_at(server.port())],
            Servers::Sentinel(group) => vec![group.master().url()],
            Servers::Cluster(cluster) => {
                cluster.with_role(true).into_iter().map(RedisServer::url).collect()
            }
        };
        let mut connections = Vec::new();
        for url in urls {
            let client = redis::Client::open(url).expect("an address");
            let connection = client.get_multiplexed_async_connection().await;
            connections.push(connection.expect("redis answers"));
        }
        connections
    }
}

fn single(options: &RedisOptions, args: &[&str]) -> RedisServer {
    // Read from where it works: after --dir.
    let args = [args, &["--include", FURTHER]].concat();
    RedisServer::start_with(&args, |folder| {
        std::fs::write(folder.join(FURTHER), &options.configuration).unwrap();
    })
}

async fn dump(connection: &mut MultiplexedConnection, all: &mut String) {
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query_async(connection).await.unwrap();
    for key in keys {
        let kind: String = redis::cmd("TYPE").arg(&key).query_async(connection).await.unwrap();
        let read: &[&str] = match kind.as_str() {
            "string" => &["GET"],
            "list" => &["LRANGE", "0", "-1"],
            "hash" => &["HGETALL"],
            "set" => &["SMEMBERS"],
            "zset" => &["ZRANGE", "0", "-1"],
            _ => &["XRANGE", "-", "+"],
        };
        let mut command = redis::cmd(read[0]);
        let held = command.arg(&key).arg(&read[1..]).query_async(connection).await;
        let held: Value = held.unwrap();
        all.push_str(&format!("{} {kind} {}\n", String::from_utf8_lossy(&key), written(&held)));
    }
}

fn written(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Array(items) | Value::Set(items) => {
            items.iter().map(written).collect::<Vec<_>>().join(" ")
        }
        Value::Map(pairs) => pairs
            .iter()
            .map(|(k, v)| format!("{} {}", written(k), written(v)))
            .collect::<Vec<_>>()
            .join(" "),
        other => format!("{other:?}"),
    }
}

/// A file in its folder, which its configuration includes.
const FURTHER: &str = "further.conf";

fn arguments(options: &RedisOptions) -> Vec<String> {
    let mut arguments = vec!["--maxmemory-policy", "noeviction"];
    if options.durable {
        arguments.extend(["--appendonly", "yes", "--appendfsync", "always"]);
    }
    if let Some(limit) = &options.max_memory {
        arguments.extend(["--maxmemory", limit]);
    }
    if let Some(password) = &options.password {
        arguments.extend(["--requirepass", password]);
    }
    arguments.into_iter().map(str::to_owned).collect()
}

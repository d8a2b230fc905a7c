//! A redis-server of its own: started in a temporary folder, frozen, killed and started again at will.

use std::{
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use redis::{Value, aio::MultiplexedConnection};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tempfile::TempDir;

use crate::{eventually, free_port};

const MISSING: &str =
    "redis-server is missing: `apt-get install redis-server` (scripts/test.sh does it)";

/// What is special about a Redis.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// Every write is on disk before it is answered: what `kill` must not lose.
    pub durable: bool,
    /// `maxmemory`, such as `3mb`; the policy stays `noeviction`.
    pub max_memory: Option<String>,
    /// `requirepass`.
    pub password: Option<String>,
    /// Further lines of its configuration.
    pub configuration: String,
    /// How many bytes a file of its may have: a disk that is full, until [`Redis::give_room`].
    pub file_limit: Option<u64>,
}

/// A throw-away redis-server; killed when dropped.
pub struct Redis {
    folder: TempDir,
    port: u16,
    options: RedisOptions,
    child: Mutex<Child>,
}

impl Redis {
    /// Starts one that keeps nothing on disk.
    pub async fn start() -> Self {
        Self::start_with(RedisOptions::default()).await
    }

    /// Starts one.
    ///
    /// # Panics
    /// When there is no redis-server on this machine; the message says how to get it.
    pub async fn start_with(options: RedisOptions) -> Self {
        // The port may be taken between the look and the start: then another.
        for _ in 0..10 {
            let (folder, port) = (TempDir::new().unwrap(), free_port());
            let child = Mutex::new(spawn(&folder, port, &options));
            let redis = Self {
                folder,
                port,
                options: options.clone(),
                child,
            };
            if redis.wait_up().await {
                if options.file_limit.is_some() {
                    redis.limit_files(options.file_limit);
                }
                return redis;
            }
        }
        panic!("redis-server does not start");
    }

    /// Its address as a setting.
    pub fn url(&self) -> String {
        self.url_at(self.port)
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
        format!("127.0.0.1:{}", self.port)
    }

    /// SIGSTOP: connections stay, nothing answers.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().ok();
        child.wait().ok();
    }

    /// Takes the limit of its files away.
    pub fn give_room(&self) {
        self.limit_files(None);
    }

    fn limit_files(&self, most: Option<u64>) {
        let pid = i32::try_from(self.child.lock().unwrap().id()).unwrap();
        let limit = Rlimit {
            current: most,
            maximum: None,
        };
        prlimit(Pid::from_raw(pid), Resource::Fsize, limit).expect("its limit can be set");
    }

    /// Starts it again on the same port with the same data, and waits until it answers.
    pub async fn restart(&self) {
        self.kill();
        *self.child.lock().unwrap() = spawn(&self.folder, self.port, &self.options);
        assert!(self.wait_up().await, "redis-server does not come back");
    }

    /// Runs one command, as redis-cli would.
    pub async fn cli(&self, command: &[&str]) -> Value {
        let mut connection = self.connect().await.expect("redis answers");
        redis::cmd(command[0])
            .arg(&command[1..])
            .query_async(&mut connection)
            .await
            .expect("redis takes the command")
    }

    /// Every key with its type and, as text, what it holds: to search a whole store for what must not be in it.
    pub async fn dump(&self) -> String {
        let mut connection = self.connect().await.expect("redis answers");
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS")
            .arg("*")
            .query_async(&mut connection)
            .await
            .unwrap();
        let mut all = String::new();
        for key in keys {
            let kind: String = redis::cmd("TYPE")
                .arg(&key)
                .query_async(&mut connection)
                .await
                .unwrap();
            let read: &[&str] = match kind.as_str() {
                "string" => &["GET"],
                "list" => &["LRANGE", "0", "-1"],
                "hash" => &["HGETALL"],
                "set" => &["SMEMBERS"],
                "zset" => &["ZRANGE", "0", "-1"],
                _ => &["XRANGE", "-", "+"],
            };
            let held: Value = redis::cmd(read[0])
                .arg(&key)
                .arg(&read[1..])
                .query_async(&mut connection)
                .await
                .unwrap();
            all.push_str(&format!(
                "{} {kind} {}\n",
                String::from_utf8_lossy(&key),
                written(&held)
            ));
        }
        all
    }

    async fn connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        redis::Client::open(self.url())?
            .get_multiplexed_async_connection()
            .await
    }

    async fn wait_up(&self) -> bool {
        eventually(
            Duration::from_secs(20),
            "redis-server answers PING",
            || async {
                if let Some(status) = self.child.lock().unwrap().try_wait().unwrap() {
                    assert_ne!(status.code(), Some(127), "{MISSING}");
                    return Some(false);
                }
                let mut connection = self.connect().await.ok()?;
                let answer: String = redis::cmd("PING").query_async(&mut connection).await.ok()?;
                (answer == "PONG").then_some(true)
            },
        )
        .await
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.lock().unwrap().id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
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

fn spawn(folder: &TempDir, port: u16, options: &RedisOptions) -> Child {
    // Past the limit a write is to fail, as on a full disk, not to end the process.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec redis-server \"$@\"", "sh"]);
    command.args([
        "--bind",
        "127.0.0.1",
        "--port",
        &port.to_string(),
        "--save",
        "",
        "--daemonize",
        "no",
    ]);
    command.args([
        "--dir",
        folder.path().to_str().unwrap(),
        "--maxmemory-policy",
        "noeviction",
    ]);
    if options.durable {
        command.args(["--appendonly", "yes", "--appendfsync", "always"]);
    }
    if let Some(limit) = &options.max_memory {
        command.args(["--maxmemory", limit]);
    }
    if let Some(password) = &options.password {
        command.args(["--requirepass", password]);
    }
    let further = folder.path().join("further.conf");
    std::fs::write(&further, &options.configuration).unwrap();
    command.arg("--include").arg(further);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

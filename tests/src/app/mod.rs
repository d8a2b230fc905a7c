//! The whole thing as a test sees it: processes with a store and a model server of their own.

mod builder;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use serde_json::Value;
use tempfile::TempDir;

pub use self::builder::Builder;
use self::builder::variable;
use crate::{
    Client, FakeModel, Forge, PATIENCE, Process, Proxy, Redis, eventually, models::MODEL, raw,
};

/// What a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `auth` and `chat` on Redis.
    Redis,
    /// `chatbot` on its embedded store, in a folder.
    Embedded,
    /// `chatbot` on its embedded store, in memory.
    Memory,
}

/// Where a process of ours listens.
#[derive(Clone, Copy, Debug)]
struct Doors {
    public: SocketAddr,
    admin: SocketAddr,
}

/// Running services. Everything ends when it is dropped.
pub struct TestApp {
    backend: Backend,
    /// The Redis, where there is one.
    pub redis: Option<Redis>,
    /// The wire to Redis, where the test asked for one.
    pub store_proxy: Option<Proxy>,
    pub model: FakeModel,
    auth_process: Option<Process>,
    auth_doors: Option<Doors>,
    chats: Vec<(Process, Doors)>,
    environment: BTreeMap<String, String>,
    folder: TempDir,
}

impl TestApp {
    /// Starts the usual: one `auth` and one `chat`, or `chatbot`.
    pub async fn start(backend: Backend) -> Self {
        Self::builder(backend).start().await
    }

    /// Says what is unusual before the start.
    pub fn builder(backend: Backend) -> Builder {
        Builder::new(backend)
    }

    /// The public address of an instance of `chat`.
    pub fn chat(&self, number: usize) -> SocketAddr {
        self.chats[number].1.public
    }

    /// The admin address of an instance of `chat`.
    pub fn chat_admin(&self, number: usize) -> SocketAddr {
        self.chats[number].1.admin
    }

    /// The public address of `auth`.
    ///
    /// # Panics
    /// When it was not started.
    pub fn auth(&self) -> SocketAddr {
        self.auth_doors().public
    }

    /// The admin address of `auth`.
    pub fn auth_admin(&self) -> SocketAddr {
        self.auth_doors().admin
    }

    /// An instance of `chat` (or `chatbot`) as a process.
    pub fn chat_process(&self, number: usize) -> &Process {
        &self.chats[number].0
    }

    /// `auth` (or `chatbot`) as a process.
    pub fn auth_process(&self) -> &Process {
        self.auth_process.as_ref().unwrap_or_else(|| &self.chats[0].0)
    }

    /// The Redis.
    ///
    /// # Panics
    /// When the test runs on the embedded store.
    pub fn redis(&self) -> &Redis {
        self.redis.as_ref().expect("a test on Redis")
    }

    /// Where the signing keys are.
    pub fn keys_dir(&self) -> PathBuf {
        self.folder.path().join("keys")
    }

    /// The environment of the processes, to start more of the kind.
    pub fn environment(&self) -> BTreeMap<String, String> {
        self.environment.clone()
    }

    /// Somebody without a token, at the first `chat`.
    pub fn stranger(&self) -> Client {
        let auth = self.auth_doors.map_or(self.chat(0), |doors| doors.public);
        Client::stranger(self.chat(0), auth)
    }

    /// Waits for as long as an answer without a reader goes on: until one that was begun now is given up. The model must
    /// not end it before.
    pub async fn grace_passes(&self) {
        const UNREAD: &str = "nobody reads this";
        let given_up = || {
            let chats = self.model.chats();
            let unread = chats.iter().filter(|chat| chat.last_message() == UNREAD);
            unread.filter(|chat| chat.ended.is_some()).count()
        };
        let before = given_up();
        let nobody = self.login("nobody").await;
        nobody.stream("unread", UNREAD).await.started().await;
        eventually(PATIENCE, "an answer without a reader is given up", || async {
            (given_up() > before).then_some(())
        })
        .await;
    }

    /// Logs in by user id alone; the client calls the first `chat`.
    pub async fn login(&self, user: &str) -> Client {
        self.stranger().log_in(user).await
    }

    /// A forge after the pattern of that client's token.
    pub async fn forge(&self, client: &Client) -> Forge {
        let keys = self.stranger().at_auth().get("/.well-known/jwks.json").await.expect(200);
        Forge::new(client.token(), &self.keys_dir(), &keys)
    }

    /// One more instance of `chat`; gives its number.
    pub async fn start_chat(&mut self) -> usize {
        let auth = format!("http://{}", self.auth());
        self.start_chat_at(&auth).await
    }

    /// One more `chat`, without a number, whose store is at that URL.
    pub fn spawn_chat_on(&self, store: String) -> Process {
        let mut environment = self.environment.clone();
        environment.insert(variable("store.url"), store);
        environment.insert(variable("chat.auth_url"), format!("http://{}", self.auth()));
        Process::spawn("chat", &[], &environment)
    }

    /// Starts an instance again that was ended: the same number, another port.
    pub async fn restart_chat(&mut self, number: usize) {
        self.chats[number].0.kill();
        if self.backend == Backend::Redis {
            let last = self.start_chat().await;
            self.chats.swap_remove(number);
            assert_eq!(last, self.chats.len());
        } else {
            self.chats.clear();
            self.start_processes(1).await;
        }
        self.wait_ready().await;
    }

    /// Starts `auth` again that was ended, on the same port.
    pub async fn restart_auth(&mut self) {
        let address = self.auth();
        self.auth_process().kill();
        let mut environment = self.environment.clone();
        environment.insert(variable("auth.listen"), address.to_string());
        let process = Process::spawn("auth", &[], &environment);
        let doors = doors(&process, "auth").await;
        (self.auth_process, self.auth_doors) = (Some(process), Some(doors));
        ready(doors.public).await;
    }

    /// How many instances of `chat` there are.
    pub fn instances(&self) -> usize {
        self.chats.len()
    }

    /// Waits until every service says that it is ready.
    pub async fn wait_up(&self) {
        if let Some(doors) = self.auth_doors {
            ready(doors.public).await;
        }
        for (_, doors) in &self.chats {
            ready(doors.public).await;
        }
    }

    /// Waits until every service is ready and every `chat` knows the usual model.
    pub async fn wait_ready(&self) {
        self.wait_up().await;
        let somebody = self.login("the-harness").await;
        for (_, doors) in &self.chats {
            let client = somebody.at(doors.public);
            eventually(PATIENCE, "chat knows the model", || async {
                let models = client.get("/chat/models").await;
                let known = |model: &Value| model["id"] == MODEL;
                (models.status == 200 && models.json()["models"].as_array()?.iter().any(known))
                    .then_some(())
            })
            .await;
        }
    }

    /// The sum of a measurement's series on the admin port of an instance; only those with that label where one is named.
    pub async fn measured(&self, number: usize, name: &str, label: &str) -> f64 {
        measured_at(&self.stranger().at(self.chat_admin(number)), name, label).await
    }

    pub fn logs(&self) -> String {
        self.auth_process
            .iter()
            .map(Process::log_text)
            .chain(self.chats.iter().map(|(process, _)| process.log_text()))
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn auth_doors(&self) -> Doors {
        self.auth_doors.expect("auth was started")
    }

    async fn start_processes(&mut self, chats: usize) {
        if self.backend == Backend::Redis {
            if chats > 0 {
                let process = Process::spawn("auth", &[], &self.environment);
                self.auth_doors = Some(doors(&process, "auth").await);
                self.auth_process = Some(process);
            }
            for _ in 0..chats {
                self.start_chat().await;
            }
            return;
        }
        let process = Process::spawn("chatbot", &[], &self.environment);
        let (auth, chat) = (doors(&process, "auth").await, doors(&process, "chat").await);
        self.chats.push((process, chat));
        self.auth_doors = Some(auth);
    }

    async fn start_chat_at(&mut self, auth: &str) -> usize {
        let mut environment = self.environment.clone();
        environment.entry(variable("chat.auth_url")).or_insert_with(|| auth.to_owned());
        let process = Process::spawn("chat", &[], &environment);
        let doors = doors(&process, "chat").await;
        self.chats.push((process, doors));
        self.chats.len() - 1
    }
}

async fn doors(process: &Process, service: &str) -> Doors {
    Doors {
        public: process.address(service, false).await,
        admin: process.address(service, true).await,
    }
}

async fn ready(address: SocketAddr) {
    eventually(Duration::from_secs(30), &format!("{address} is ready"), || async {
        let reply = raw::ask(
            address,
            "GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        )
        .await;
        (reply.status == 200).then_some(())
    })
    .await;
}

/// [`TestApp::measured`], of the process whose admin port this client talks to.
pub async fn measured_at(admin: &Client, name: &str, label: &str) -> f64 {
    let text = admin.get("/metrics").await.text();
    let series = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let rest = series.strip_prefix(name)?;
        let is_it = (rest.is_empty() || rest.starts_with('{')) && rest.contains(label);
        is_it.then(|| value.parse::<f64>().unwrap())
    });
    series.sum()
}

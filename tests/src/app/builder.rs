//! What is unusual about the processes of a test, said before they start.

use std::collections::BTreeMap;

use tempfile::TempDir;

use super::{Backend, TestApp};
use crate::{FakeModel, Proxy, Redis, RedisOptions};

/// What to start; see [`TestApp::builder`].
pub struct Builder {
    backend: Backend,
    chats: usize,
    settings: BTreeMap<String, String>,
    redis: RedisOptions,
    proxied: bool,
    auth: bool,
    wait: bool,
}

impl Builder {
    pub(super) fn new(backend: Backend) -> Self {
        let (settings, redis) = (BTreeMap::new(), RedisOptions::default());
        Self { backend, chats: 1, settings, redis, proxied: false, auth: true, wait: true }
    }

    /// How many instances of `chat` (1); Redis only.
    #[must_use]
    pub fn chats(mut self, count: usize) -> Self {
        self.chats = count;
        self
    }

    /// A setting by its name in the settings' own spelling: `chat.lease`, `10s`.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.insert(variable(name), value.to_string());
        self
    }

    /// An environment variable by its own name.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.insert(name.to_owned(), value.to_string());
        self
    }

    #[must_use]
    pub fn redis(mut self, options: RedisOptions) -> Self {
        self.redis = options;
        self
    }

    /// Puts a [`Proxy`] between the services and Redis.
    #[must_use]
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// Starts no `auth`; and waits for nothing.
    #[must_use]
    pub fn without_auth(mut self) -> Self {
        self.auth = false;
        self.without_waiting()
    }

    /// Does not wait until the services are ready and know their models.
    #[must_use]
    pub fn without_waiting(mut self) -> Self {
        self.wait = false;
        self
    }

    pub async fn start(self) -> TestApp {
        let redis = match self.backend {
            Backend::Redis => Some(Redis::start_with(self.redis.clone()).await),
            _ => None,
        };
        let store_proxy = match &redis {
            Some(redis) if self.proxied => Some(Proxy::to(redis.address()).await),
            _ => None,
        };
        let (model, folder) = (FakeModel::ollama().await, TempDir::new().unwrap());
        let store = match (self.backend, &redis, &store_proxy) {
            (_, Some(redis), Some(proxy)) => redis.url_at(proxy.port()),
            (_, Some(redis), None) => redis.url(),
            (Backend::Memory, ..) => "memory:".to_owned(),
            _ => format!("embedded:{}", folder.path().join("store").display()),
        };
        let mut environment =
            usual_settings(&store, &folder.path().join("keys").display().to_string(), &model.url());
        environment.extend(self.settings);
        let mut app = TestApp {
            backend: self.backend,
            redis,
            store_proxy,
            model,
            auth_process: None,
            auth_doors: None,
            chats: Vec::new(),
            environment,
            folder,
        };
        app.start_processes(if self.auth { self.chats } else { 0 }).await;
        if !self.auth {
            app.start_chat_at("http://127.0.0.1:1").await;
        }
        if self.wait {
            app.wait_ready().await;
        }
        app
    }
}

/// The environment variable of a setting.
pub(crate) fn variable(setting: &str) -> String {
    format!("CHATBOT__{}", setting.replace('.', "__").to_uppercase())
}

fn usual_settings(store: &str, keys_dir: &str, model: &str) -> BTreeMap<String, String> {
    let settings = [
        ("auth.listen", "127.0.0.1:0"),
        ("auth.admin_listen", "127.0.0.1:0"),
        ("auth.keys_dir", keys_dir),
        ("chat.listen", "127.0.0.1:0"),
        ("chat.admin_listen", "127.0.0.1:0"),
        ("store.url", store),
        ("llm.providers", "ollama"),
        ("llm.ollama.base_url", model),
        ("rate_limit.requests", "1000000"),
        ("server.max_connections_per_address", "10000"),
        ("telemetry.log_format", "json"),
    ];
    let mut environment: BTreeMap<String, String> =
        settings.iter().map(|(name, value)| (variable(name), (*value).to_owned())).collect();
    // `TEST_SETTINGS=name=value,…`: the same tests with other settings.
    let others = std::env::var("TEST_SETTINGS").unwrap_or_default();
    let others = others.split(',').filter_map(|setting| setting.split_once('='));
    environment.extend(others.map(|(name, value)| (variable(name), value.to_owned())));
    // Coverage runs need the children's counters too.
    environment.extend(std::env::vars().filter(|(name, _)| name == "LLVM_PROFILE_FILE"));
    environment
}

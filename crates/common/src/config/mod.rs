//! The settings: one small struct a section, layered from the compiled-in files to the environment, checked whole.

mod fields;
mod layers;
mod ollama_host;
mod problem;
mod rules;
mod sections;
mod variables;

use std::{
    collections::BTreeMap, fmt, net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration,
};

use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

pub use self::problem::{Problem, Problems};
use self::sections::Reader;

/// Which program asks for its settings: all accept the whole schema, each needs its own part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Auth,
    Chat,
    Chatbot,
}

impl Binary {
    pub fn as_str(self) -> &'static str {
        match self {
            Binary::Auth => "auth",
            Binary::Chat => "chat",
            Binary::Chatbot => "chatbot",
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dev => "dev",
            Self::Stg => "stg",
            Self::Prod => "prod",
        })
    }
}

/// Which set of defaults holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    /// One person's machine: loopback, open login.
    Dev,
    /// A test deployment by compose.
    Stg,
    /// Strangers reach it; unsafe settings end the start.
    Prod,
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// Which defaults these were laid over.
    pub environment: Environment,
    pub auth: Auth,
    pub chat: Chat,
    pub store: StoreSettings,
    pub llm: Llm,
    pub rate_limit: RateLimit,
    pub server: Server,
    pub telemetry: Telemetry,
}

#[derive(Clone, Debug)]
pub struct Auth {
    pub listen: SocketAddr,
    pub admin_listen: SocketAddr,
    pub login: LoginMode,
    pub registration: Registration,
    pub keys_dir: PathBuf,
    pub issuer: String,
    pub audience: String,
    pub access_ttl: Duration,
    /// How long a login can be refreshed, counted from the login.
    pub refresh_ttl: Duration,
    /// Shortest password, in characters.
    pub password_min: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LoginMode {
    /// It does, unless that account has a password.
    Open,
    Password,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    Open,
    /// Nobody but the operator.
    Closed,
}

#[derive(Clone, Debug)]
pub struct Chat {
    pub listen: SocketAddr,
    pub admin_listen: SocketAddr,
    /// Where `auth` is; `None` only in `chatbot`, which hands keys over in memory.
    pub auth_url: Option<Url>,
    /// Browser origins beside our own, exact.
    pub allowed_origins: Vec<String>,
    /// How long a streamed turn goes on when nobody watches it.
    pub disconnect_grace: Duration,
    /// How long a session waits for a dead instance.
    pub lease: Duration,
    pub history_messages: usize,
    pub max_session_messages: u64,
    /// How long an unused session lives; `None` for ever.
    pub session_ttl: Option<Duration>,
    /// The system prompt where neither request nor session has one.
    pub system_prompt: Option<String>,
    pub sockets_per_user: usize,
}

#[derive(Clone, Debug)]
pub struct StoreSettings {
    pub url: StoreUrl,
}

/// Where everything is kept: one of the closed set of backends.
#[derive(Clone, Debug)]
pub enum StoreUrl {
    Redis(SecretString),
    Embedded(PathBuf),
    Memory,
}

#[derive(Clone, Debug)]
pub struct Llm {
    pub providers: Vec<ProviderKind>,
    pub model: String,
    pub ollama: Provider,
    pub openai: Provider,
    pub huggingface: Provider,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    Ollama,
    OpenAi,
    HuggingFace,
    /// Built in; no model.
    Demo,
}

impl ProviderKind {
    /// The name in settings, answers, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            ProviderKind::Ollama => "ollama",
            ProviderKind::OpenAi => "openai",
            ProviderKind::HuggingFace => "huggingface",
            ProviderKind::Demo => "demo",
        }
    }
}

#[derive(Clone)]
pub struct Provider {
    /// Where it is, without the API's own path (`/api`, `/v1` is accepted and kept for OpenAI-compatible ones).
    pub base_url: Url,
    /// Sent as a bearer token where set.
    pub api_key: Option<SecretString>,
    /// The model where request and session name none.
    pub model: Option<String>,
    /// The largest window asked for, in tokens; never above the model's own.
    pub context_window: NonZeroU32,
    /// Turns that run on it at once, from this instance.
    pub max_concurrency: NonZeroU32,
    /// Turns that may wait for a place, on this instance.
    pub queue: u32,
    pub connect_timeout: Duration,
    /// Time from the request to the first token; loading a model is in it.
    pub first_token_timeout: Duration,
    /// Time between two reads after the first token.
    pub idle_timeout: Duration,
    /// Time for the whole answer.
    pub total_timeout: Duration,
    /// Failures in a row that open the breaker; 0 switches it off.
    pub breaker_failures: u32,
}

impl fmt::Debug for Provider {
    /// Without whoever is named in the address, and without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider")
            .field("base_url", &fields::mask_url(&self.base_url))
            .field("model", &self.model)
            .field("context_window", &self.context_window)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
pub struct RateLimit {
    /// A full bucket.
    pub requests: NonZeroU32,
    /// How long an empty bucket takes to fill.
    pub period: Duration,
    /// LLM tokens a user may use in a day (UTC); `None` for no quota.
    pub tokens_per_day: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct Server {
    pub max_connections: usize,
    pub max_connections_per_address: usize,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    pub allowed_hosts: Vec<String>,
    /// How long running answers get at a stop.
    pub drain_timeout: Duration,
}

#[derive(Clone, Debug)]
pub struct Telemetry {
    pub log_format: LogFormat,
    /// What is logged: `RUST_LOG`'s grammar.
    pub log_filter: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    /// One JSON object a line.
    Json,
}

/// The settings, and what `check-config` prints of them.
pub struct Loaded {
    pub settings: Settings,
    printed: String,
}

impl Settings {
    /// The settings of a binary in this environment (the process's variables, by value), or every problem they have.
    ///
    /// Reads the files that the variables name (`CONFIG_DIR`, `NAME_FILE`) and, in production, the modes of the signing keys.
    pub fn load(binary: Binary, variables: &BTreeMap<String, String>) -> Result<Self, Problems> {
        Loaded::load(binary, variables).map(|loaded| loaded.settings)
    }
}

impl Loaded {
    /// As [`Settings::load`], keeping where each value came from.
    pub fn load(binary: Binary, variables: &BTreeMap<String, String>) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let layered = layers::collect(binary, variables, &mut problems);
        let mut reader = Reader::new(&layered.values, &layered.fallback, &mut problems);
        let settings = reader.settings(layered.environment);
        let printed = reader.printed;
        let Some(settings) = settings else {
            return Err(Problems(problems));
        };
        for (setting, wrong) in rules::broken(&settings, binary) {
            // Another value stands in for one that is wrong by itself: no rule can be checked on it.
            if !problems.iter().any(|problem| problem.setting == setting) {
                let origin = layered.values.get(setting).and_then(|value| value.origin());
                problems.push(Problem::new(setting, origin, wrong));
            }
        }
        match problems.is_empty() {
            true => Ok(Self { settings, printed }),
            false => Err(Problems(problems)),
        }
    }
}

/// The effective settings as TOML, secrets masked, with where each value that is not a default came from.
impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "# ENVIRONMENT = {}\n{}",
            self.settings.environment, self.printed
        )
    }
}

//! The settings: one small struct a section, layered from the compiled-in files to the environment, checked whole.

mod kinds;
mod layer;
mod layers;
mod load;
mod ollama_host;
mod problem;
mod read;
mod rules;
mod variables;

use std::{fmt, net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use secrecy::SecretString;
use url::Url;

pub use self::{
    load::Loaded,
    problem::{Problem, Problems},
    rules::readable_by_all,
};

/// Which program asks for its settings: all accept the whole schema, each needs its own part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// Accounts and tokens.
    Auth,
    /// Messages, sessions, streams.
    Chat,
    /// Both in one process.
    Chatbot,
}

impl Binary {
    /// The program's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Binary::Auth => "auth",
            Binary::Chat => "chat",
            Binary::Chatbot => "chatbot",
        }
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

/// Every setting of all three binaries.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which defaults these were laid over.
    pub environment: Environment,
    /// Accounts and tokens.
    pub auth: Auth,
    /// Messages, sessions, streams.
    pub chat: Chat,
    /// Where everything is kept.
    pub store: StoreSettings,
    /// The model servers.
    pub llm: Llm,
    /// How much a user may ask.
    pub rate_limit: RateLimit,
    /// The listeners' own limits.
    pub server: Server,
    /// Logs.
    pub telemetry: Telemetry,
}

/// Accounts and tokens.
#[derive(Clone, Debug)]
pub struct Auth {
    /// The public listener.
    pub listen: SocketAddr,
    /// Metrics and health.
    pub admin_listen: SocketAddr,
    /// Whether a user id alone logs in.
    pub login: LoginMode,
    /// Who may register.
    pub registration: Registration,
    /// Where the signing keys are.
    pub keys_dir: PathBuf,
    /// `iss` of every token.
    pub issuer: String,
    /// `aud` of every token.
    pub audience: String,
    /// How long an access token lives.
    pub access_ttl: Duration,
    /// How long a login can be refreshed, counted from the login.
    pub refresh_ttl: Duration,
    /// Shortest password, in characters.
    pub password_min: usize,
}

/// Whether a user id alone logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginMode {
    /// It does, unless that account has a password.
    Open,
    /// A password is needed.
    Password,
}

/// Who may register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Anybody.
    Open,
    /// Nobody but the operator.
    Closed,
}

/// Messages, sessions, streams.
#[derive(Clone, Debug)]
pub struct Chat {
    /// The public listener.
    pub listen: SocketAddr,
    /// Metrics and health.
    pub admin_listen: SocketAddr,
    /// Where `auth` is; `None` only in `chatbot`, which hands keys over in memory.
    pub auth_url: Option<Url>,
    /// Browser origins beside our own, exact.
    pub allowed_origins: Vec<String>,
    /// How long a streamed turn goes on when nobody watches it.
    pub disconnect_grace: Duration,
    /// How long a session waits for a dead instance.
    pub lease: Duration,
    /// The newest messages looked at for a prompt.
    pub history_messages: usize,
    /// Most messages a session keeps.
    pub max_session_messages: u64,
    /// How long an unused session lives; `None` for ever.
    pub session_ttl: Option<Duration>,
    /// The system prompt where neither request nor session has one.
    pub system_prompt: Option<String>,
    /// Most sockets a user may have open on one instance.
    pub sockets_per_user: usize,
}

/// Where everything is kept.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// The address; it may hold a password.
    pub url: StoreUrl,
}

/// Where everything is kept: one of the closed set of backends.
#[derive(Clone, Debug)]
pub enum StoreUrl {
    /// `redis://` or `rediss://`.
    Redis(SecretString),
    /// `embedded:DIR`.
    Embedded(PathBuf),
    /// `memory:`.
    Memory,
}

/// The model servers.
#[derive(Clone, Debug)]
pub struct Llm {
    /// Which are asked, in that order.
    pub providers: Vec<ProviderKind>,
    /// The model where nothing else names one.
    pub model: String,
    /// Ollama, over its own API.
    pub ollama: Provider,
    /// Any OpenAI-compatible server.
    pub openai: Provider,
    /// The Hugging Face router.
    pub huggingface: Provider,
}

/// A kind of model server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProviderKind {
    /// Ollama.
    Ollama,
    /// OpenAI-compatible.
    OpenAi,
    /// The Hugging Face router.
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

/// One model server.
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
    /// Time to connect.
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
            .field("base_url", &kinds::masked(&self.base_url))
            .field("model", &self.model)
            .field("context_window", &self.context_window)
            .finish_non_exhaustive()
    }
}

/// How much a user may ask.
#[derive(Clone, Debug)]
pub struct RateLimit {
    /// A full bucket.
    pub requests: NonZeroU32,
    /// How long an empty bucket takes to fill.
    pub period: Duration,
    /// LLM tokens a user may use in a day (UTC); `None` for no quota.
    pub tokens_per_day: Option<u64>,
}

/// The listeners' own limits.
#[derive(Clone, Debug)]
pub struct Server {
    /// Open connections of a listener.
    pub max_connections: usize,
    /// Open connections from one address.
    pub max_connections_per_address: usize,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Further names accepted in `Host`.
    pub allowed_hosts: Vec<String>,
    /// How long running answers get at a stop.
    pub drain_timeout: Duration,
}

/// Logs.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// How a line looks.
    pub log_format: LogFormat,
    /// What is logged: `RUST_LOG`'s grammar.
    pub log_filter: String,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

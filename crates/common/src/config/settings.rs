//! Every section of the settings: its fields, their types, and how each is parsed. `config/default.toml` says what a field
//! means and in which unit.

use std::{
    collections::BTreeMap, fmt, net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration,
};

use ipnet::IpNet;
use secrecy::SecretString;
use url::Url;

use super::{
    Binary, ConcurrencyScope, Durability, Environment, LogFormat, LoginMode, ProviderKind,
    Registration, StoreUrl, fields as field, reader::Reader,
};

/// Declares a section. `read` is `None` only where not even the fallback of a wrong value is good.
macro_rules! section {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])* $field:ident: $type:ty = $parser:expr,)* }) => {
        $(#[$meta])*
        pub struct $name { $($(#[doc = $doc])* pub $field: $type),* }

        impl $name {
            fn read(reader: &mut Reader<'_>, section: &str) -> Option<Self> {
                Some(Self { $($field: reader.get(section, stringify!($field), $parser)?),* })
            }
        }
    };
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub environment: Environment,
    pub auth: Auth,
    pub chat: Chat,
    pub store: StoreSettings,
    pub llm: Llm,
    pub rate_limit: RateLimit,
    pub server: Server,
    pub telemetry: Telemetry,
}

impl Settings {
    pub(super) fn read(reader: &mut Reader<'_>, environment: Environment) -> Option<Self> {
        Some(Self {
            environment,
            auth: Auth::read(reader, "auth")?,
            chat: Chat::read(reader, "chat")?,
            store: StoreSettings::read(reader, "store")?,
            llm: Llm::read(reader)?,
            rate_limit: RateLimit::read(reader, "rate_limit")?,
            server: Server::read(reader, "server")?,
            telemetry: Telemetry::read(reader, "telemetry")?,
        })
    }

    /// Where a binary listens, each with the name of its setting.
    pub(crate) fn listeners(&self, binary: Binary) -> Vec<(&'static str, SocketAddr)> {
        let (auth, chat) = (&self.auth, &self.chat);
        let auth = [("auth.listen", auth.listen), ("auth.admin_listen", auth.admin_listen)];
        let chat = [("chat.listen", chat.listen), ("chat.admin_listen", chat.admin_listen)];
        match binary {
            Binary::Auth => auth.to_vec(),
            Binary::Chat => chat.to_vec(),
            Binary::Chatbot => [auth, chat].concat(),
        }
    }
}

section! {
    #[derive(Clone, Debug)]
    Auth {
        listen: SocketAddr = field::address(),
        admin_listen: SocketAddr = field::address(),
        login: LoginMode = field::choice("open, password"),
        registration: Registration = field::choice("open, closed"),
        keys_dir: PathBuf = field::folder(),
        issuer: String = field::text(),
        audience: String = field::text(),
        access_ttl: Duration = field::lifetime(),
        refresh_ttl: Duration = field::lifetime(),
        password_min: usize = field::number(1, 128),
    }
}

/// As many characters as a request body can hold.
const MESSAGE_CHARS_MOST: u64 = 1024 * 1024;

section! {
    #[derive(Clone, Debug)]
    Chat {
        listen: SocketAddr = field::address(),
        admin_listen: SocketAddr = field::address(),
        /// `None` only in `chatbot`, which hands keys over in memory.
        auth_url: Option<Url> = field::own_service().or_none(),
        allowed_origins: Vec<String> = field::origins(),
        disconnect_grace: Duration = field::duration(),
        lease: Duration = field::lease(),
        history_messages: usize = field::count(),
        max_message_chars: usize = field::number(1, MESSAGE_CHARS_MOST),
        max_session_messages: u64 = field::number(2, field::MOST),
        session_ttl: Option<Duration> = field::positive_duration().or_none(),
        system_prompt: Option<String> = field::prose().or_none(),
        sockets_per_user: usize = field::count(),
        ollama_api: bool = field::flag(),
    }
}

section! {
    #[derive(Clone, Debug)]
    StoreSettings {
        url: StoreUrl = field::store_url(),
        durability: Durability = field::choice("local, replicated"),
    }
}

#[derive(Clone, Debug)]
pub struct Llm {
    pub providers: Vec<ProviderKind>,
    pub model: String,
    /// The model that each alias stands for.
    pub aliases: BTreeMap<String, String>,
    pub ollama: Provider,
    pub openai: Provider,
    pub huggingface: Provider,
}

impl Llm {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            providers: reader.get("llm", "providers", field::providers())?,
            model: reader.get("llm", "model", field::model_name())?,
            aliases: reader.get("llm", "aliases", field::aliases())?,
            ollama: Provider::read(reader, "llm.ollama")?,
            openai: Provider::read(reader, "llm.openai")?,
            huggingface: Provider::read(reader, "llm.huggingface")?,
        })
    }

    /// The settings of a provider; the demo has none.
    pub fn provider(&self, kind: ProviderKind) -> Option<&Provider> {
        match kind {
            ProviderKind::Ollama => Some(&self.ollama),
            ProviderKind::OpenAi => Some(&self.openai),
            ProviderKind::HuggingFace => Some(&self.huggingface),
            ProviderKind::Demo => None,
        }
    }
}

section! {
    #[derive(Clone)]
    Provider {
        base_url: Url = field::http_url(),
        api_key: Option<SecretString> = field::secret().or_none(),
        model: Option<String> = field::model_name().or_none(),
        context_window: Option<NonZeroU32> = field::non_zero().or_none(),
        max_concurrency: NonZeroU32 = field::non_zero(),
        concurrency_scope: ConcurrencyScope = field::choice("instance, shared"),
        queue: u32 = field::number(0, field::MOST),
        connect_timeout: Duration = field::positive_duration(),
        first_token_timeout: Duration = field::positive_duration(),
        idle_timeout: Duration = field::positive_duration(),
        total_timeout: Duration = field::positive_duration(),
        breaker_failures: u32 = field::number(0, field::MOST),
        think_tags: bool = field::flag(),
    }
}

impl fmt::Debug for Provider {
    /// Without the user name, the password and the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider")
            .field("base_url", &field::mask_url(&self.base_url))
            .field("model", &self.model)
            .field("context_window", &self.context_window)
            .finish_non_exhaustive()
    }
}

section! {
    #[derive(Clone, Debug)]
    RateLimit {
        requests: NonZeroU32 = field::non_zero(),
        period: Duration = field::positive_duration(),
        tokens_per_day: Option<u64> = field::number(1, i64::MAX.unsigned_abs()).or_none(),
    }
}

section! {
    #[derive(Clone, Debug)]
    Server {
        max_connections: usize = field::count(),
        max_connections_per_address: usize = field::count(),
        trusted_proxies: Vec<IpNet> = field::networks(),
        allowed_hosts: Vec<String> = field::hosts(),
        drain_timeout: Duration = field::duration(),
        inference_body_limit: usize = field::size(),
        body_memory: usize = field::size(),
    }
}

section! {
    #[derive(Clone, Debug)]
    Telemetry {
        log_format: LogFormat = field::choice("text, json"),
        log_filter: String = field::log_filter(),
        capture_content: bool = field::flag(),
    }
}

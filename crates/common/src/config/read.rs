//! Reading the merged layers into the sections' structs, taking note of every value that is not allowed.

use std::collections::BTreeMap;

use config::{Value, ValueKind};

use super::{
    Auth, Chat, Environment, Llm, Provider, RateLimit, Server, Settings, StoreSettings, Telemetry,
    kinds::{self as kind, Kind, Wrong},
    problem::Problem,
};

/// A setting as `check-config` prints it.
pub(super) struct Shown {
    pub(super) section: String,
    pub(super) field: &'static str,
    pub(super) value: toml::Value,
    pub(super) origin: String,
}

/// Takes settings out of the merged layers, one after another.
pub(super) struct Reader<'a> {
    values: &'a BTreeMap<String, Value>,
    fallback: &'a BTreeMap<String, Value>,
    problems: &'a mut Vec<Problem>,
    pub(super) shown: Vec<Shown>,
}

/// Reads every field before giving up on the section, so that each wrong one is noted.
macro_rules! section {
    ($reader:ident, $section:expr, $name:ident { $($field:ident: $kind:expr),* $(,)? }) => {{
        $(let $field = $reader.get($section, stringify!($field), $kind);)*
        (|| Some($name { $($field: $field?),* }))()
    }};
}

impl<'a> Reader<'a> {
    /// A value of `fallback`, where all are good, stands in for a wrong one, so that the rest can be looked at too.
    pub(super) fn new(
        values: &'a BTreeMap<String, Value>,
        fallback: &'a BTreeMap<String, Value>,
        problems: &'a mut Vec<Problem>,
    ) -> Self {
        Self {
            values,
            fallback,
            problems,
            shown: Vec::new(),
        }
    }

    /// Every section. What is wrong is among the problems; `None` only where nothing good stands in for it.
    pub(super) fn settings(&mut self, environment: Environment) -> Option<Settings> {
        let (auth, chat, store) = (self.auth(), self.chat(), self.store());
        let (llm, rate_limit) = (self.llm(), self.rate_limit());
        let (server, telemetry) = (self.server(), self.telemetry());
        Some(Settings {
            environment,
            auth: auth?,
            chat: chat?,
            store: store?,
            llm: llm?,
            rate_limit: rate_limit?,
            server: server?,
            telemetry: telemetry?,
        })
    }

    fn auth(&mut self) -> Option<Auth> {
        section!(
            self,
            "auth",
            Auth {
                listen: kind::address(),
                admin_listen: kind::address(),
                login: kind::login(),
                registration: kind::registration(),
                keys_dir: kind::folder(),
                issuer: kind::text(),
                audience: kind::text(),
                access_ttl: kind::lifetime(),
                refresh_ttl: kind::lifetime(),
                password_min: kind::number(1, 128),
            }
        )
    }

    fn chat(&mut self) -> Option<Chat> {
        section!(
            self,
            "chat",
            Chat {
                listen: kind::address(),
                admin_listen: kind::address(),
                auth_url: kind::own_service().or_none(),
                allowed_origins: kind::origins(),
                disconnect_grace: kind::duration(),
                lease: kind::lease(),
                history_messages: kind::count(),
                max_session_messages: kind::number(2, kind::MOST),
                session_ttl: kind::positive_duration().or_none(),
                system_prompt: kind::prose().or_none(),
                sockets_per_user: kind::count(),
            }
        )
    }

    fn store(&mut self) -> Option<StoreSettings> {
        section!(
            self,
            "store",
            StoreSettings {
                url: kind::store_url()
            }
        )
    }

    fn llm(&mut self) -> Option<Llm> {
        let providers = self.get("llm", "providers", kind::providers());
        let model = self.get("llm", "model", kind::text());
        let ollama = self.provider("llm.ollama");
        let openai = self.provider("llm.openai");
        let huggingface = self.provider("llm.huggingface");
        Some(Llm {
            providers: providers?,
            model: model?,
            ollama: ollama?,
            openai: openai?,
            huggingface: huggingface?,
        })
    }

    fn provider(&mut self, section: &str) -> Option<Provider> {
        section!(
            self,
            section,
            Provider {
                base_url: kind::http_url(),
                api_key: kind::secret().or_none(),
                model: kind::text().or_none(),
                context_window: kind::non_zero(),
                max_concurrency: kind::non_zero(),
                queue: kind::number(0, kind::MOST),
                connect_timeout: kind::positive_duration(),
                first_token_timeout: kind::positive_duration(),
                idle_timeout: kind::positive_duration(),
                total_timeout: kind::positive_duration(),
                breaker_failures: kind::number(0, kind::MOST),
            }
        )
    }

    fn rate_limit(&mut self) -> Option<RateLimit> {
        section!(
            self,
            "rate_limit",
            RateLimit {
                requests: kind::non_zero(),
                period: kind::positive_duration(),
                tokens_per_day: kind::number(1, i64::MAX.unsigned_abs()).or_none(),
            }
        )
    }

    fn server(&mut self) -> Option<Server> {
        section!(
            self,
            "server",
            Server {
                max_connections: kind::count(),
                max_connections_per_address: kind::count(),
                trusted_proxies: kind::networks(),
                allowed_hosts: kind::hosts(),
                drain_timeout: kind::duration(),
            }
        )
    }

    fn telemetry(&mut self) -> Option<Telemetry> {
        section!(
            self,
            "telemetry",
            Telemetry {
                log_format: kind::log_format(),
                log_filter: kind::log_filter()
            }
        )
    }

    fn get<T>(&mut self, section: &str, field: &'static str, kind: Kind<T>) -> Option<T> {
        let name = format!("{section}.{field}");
        let value = self.values.get(&name);
        let origin = value.and_then(Value::origin);
        let nothing = ValueKind::String(String::new());
        let read = value.map_or(&nothing, |value| &value.kind);
        match (kind.read)(read) {
            Ok(value) => {
                let origin = origin.unwrap_or_default().to_owned();
                self.shown.push(Shown {
                    section: section.to_owned(),
                    field,
                    value: (kind.show)(&value),
                    origin,
                });
                Some(value)
            }
            Err(wrong) => {
                let wrong = explain(wrong, &kind, read, origin);
                self.problems
                    .push(Problem::new(name.as_str(), origin, wrong));
                (kind.read)(&self.fallback.get(&name)?.kind).ok()
            }
        }
    }
}

fn explain<T>(wrong: Wrong, kind: &Kind<T>, value: &ValueKind, origin: Option<&str>) -> String {
    let from_file = origin.is_some_and(|name| name.ends_with("_FILE"));
    let what = match wrong {
        Wrong::Unset => "it must be set".to_owned(),
        Wrong::Because(why) => why.to_owned(),
        Wrong::NotAllowed if kind.quotable && !from_file => {
            format!("{} is not allowed", quoted(value))
        }
        Wrong::NotAllowed => "its value is not allowed".to_owned(),
    };
    format!("{what}; allowed: {}", kind.allowed)
}

/// A wrong value as a message quotes it.
fn quoted(value: &ValueKind) -> String {
    match value {
        ValueKind::String(text) => format!("{:?}", text.chars().take(60).collect::<String>()),
        ValueKind::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| quoted(&item.kind)).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

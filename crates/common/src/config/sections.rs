//! Reading every section from the merged layers, and noting every value that is not allowed.

use std::collections::BTreeMap;

use config::Value;

use super::{
    Auth, Chat, Environment, Llm, Provider, RateLimit, Server, Settings, StoreSettings, Telemetry,
    fields::{self as field, FieldParser},
    layers::DEFAULT_ORIGIN,
    problem::Problem,
};

/// The merged layers, what was found wrong in them, and what `check-config` prints of them.
pub(super) struct Reader<'a> {
    values: &'a BTreeMap<String, Value>,
    /// Where every value is good: one of these stands in for a wrong one, so that the rest can be checked, too.
    fallback: &'a BTreeMap<String, Value>,
    problems: &'a mut Vec<Problem>,
    section: String,
    pub(super) printed: String,
}

/// Reads every field before giving up on the section, so that each wrong one is noted.
macro_rules! section {
    ($reader:ident, $section:expr, $name:ident { $($field:ident: $parser:expr),* $(,)? }) => {{
        $(let $field = $reader.get($section, stringify!($field), $parser);)*
        (|| Some($name { $($field: $field?),* }))()
    }};
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        values: &'a BTreeMap<String, Value>,
        fallback: &'a BTreeMap<String, Value>,
        problems: &'a mut Vec<Problem>,
    ) -> Self {
        Self {
            values,
            fallback,
            problems,
            section: String::new(),
            printed: String::new(),
        }
    }

    /// Every section; `None` only where nothing good stands in for a wrong value.
    pub(super) fn settings(&mut self, environment: Environment) -> Option<Settings> {
        let (auth, chat) = (self.auth(), self.chat());
        let store = section!(
            self,
            "store",
            StoreSettings {
                url: field::store_url()
            }
        );
        let llm = self.llm();
        let rate_limit = section!(
            self,
            "rate_limit",
            RateLimit {
                requests: field::non_zero(),
                period: field::positive_duration(),
                tokens_per_day: field::number(1, i64::MAX.unsigned_abs()).or_none(),
            }
        );
        let server = section!(
            self,
            "server",
            Server {
                max_connections: field::count(),
                max_connections_per_address: field::count(),
                trusted_proxies: field::networks(),
                allowed_hosts: field::hosts(),
                drain_timeout: field::duration(),
            }
        );
        let telemetry = section!(
            self,
            "telemetry",
            Telemetry {
                log_format: field::choice("text, json"),
                log_filter: field::log_filter(),
            }
        );
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
                listen: field::address(),
                admin_listen: field::address(),
                login: field::choice("open, password"),
                registration: field::choice("open, closed"),
                keys_dir: field::folder(),
                issuer: field::text(),
                audience: field::text(),
                access_ttl: field::lifetime(),
                refresh_ttl: field::lifetime(),
                password_min: field::number(1, 128),
            }
        )
    }

    fn chat(&mut self) -> Option<Chat> {
        section!(
            self,
            "chat",
            Chat {
                listen: field::address(),
                admin_listen: field::address(),
                auth_url: field::own_service().or_none(),
                allowed_origins: field::origins(),
                disconnect_grace: field::duration(),
                lease: field::lease(),
                history_messages: field::count(),
                max_session_messages: field::number(2, field::MOST),
                session_ttl: field::positive_duration().or_none(),
                system_prompt: field::prose().or_none(),
                sockets_per_user: field::count(),
            }
        )
    }

    fn llm(&mut self) -> Option<Llm> {
        let providers = self.get("llm", "providers", field::providers());
        let model = self.get("llm", "model", field::text());
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
                base_url: field::http_url(),
                api_key: field::secret().or_none(),
                model: field::text().or_none(),
                context_window: field::non_zero(),
                max_concurrency: field::non_zero(),
                queue: field::number(0, field::MOST),
                connect_timeout: field::positive_duration(),
                first_token_timeout: field::positive_duration(),
                idle_timeout: field::positive_duration(),
                total_timeout: field::positive_duration(),
                breaker_failures: field::number(0, field::MOST),
            }
        )
    }

    fn get<T: 'static>(&mut self, section: &str, field: &str, parser: FieldParser<T>) -> Option<T> {
        let name = format!("{section}.{field}");
        let value = self.values.get(&name);
        let origin = value.and_then(Value::origin);
        match parser.parse(value) {
            Ok(parsed) => {
                if self.section != section {
                    self.section = section.to_owned();
                    self.printed.push_str(&format!("\n[{section}]\n"));
                }
                self.printed
                    .push_str(&format!("{field} = {}", parser.show(value)));
                if let Some(origin) = origin.filter(|origin| *origin != DEFAULT_ORIGIN) {
                    self.printed
                        .push_str(&format!("  # {}", origin.escape_debug()));
                }
                self.printed.push('\n');
                Some(parsed)
            }
            Err(wrong) => {
                let fallback = self.fallback.get(&name);
                self.problems.push(Problem::new(name, origin, wrong));
                parser.parse(fallback).ok()
            }
        }
    }
}

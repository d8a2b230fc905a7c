//! Settings: one struct a section, layered from the compiled-in files to the environment. Every problem is reported at once.

mod fields;
mod invalid_setting;
mod layers;
mod ollama_host;
mod reader;
mod rules;
mod settings;
mod variables;

use std::{collections::BTreeMap, fmt, path::PathBuf};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use self::reader::Reader;
pub use self::{
    invalid_setting::{InvalidSetting, InvalidSettings},
    settings::{Auth, Chat, Llm, Provider, RateLimit, Server, Settings, StoreSettings, Telemetry},
};

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    Dev,
    Stg,
    /// Strangers reach it; unsafe settings end the start.
    Prod,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Once the server that took it has it.
    Local,
    /// Once every replica that is connected, at least one, has it.
    Replicated,
}

/// What `max_concurrency` of a provider limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConcurrencyScope {
    Instance,
    /// All instances that use the same store together.
    Shared,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LoginMode {
    /// A user id alone logs in, unless that account has a password.
    Open,
    Password,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    Open,
    Closed,
}

/// Where everything is kept: one of the closed set of backends.
#[derive(Clone, Debug)]
pub enum StoreUrl {
    Redis(SecretString),
    Embedded(PathBuf),
    Memory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    Ollama,
    OpenAi,
    HuggingFace,
    Demo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
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

/// The settings, and what `check-config` prints of them.
pub struct Loaded {
    pub settings: Settings,
    /// Each variable whose value is not used, with the one that sets the same setting to another value.
    pub overridden: Vec<(String, String)>,
    printed: String,
}

impl Loaded {
    /// The settings of a binary in this environment (the process's variables, by value), or every problem they have.
    ///
    /// Reads the files that the variables name (`CONFIG_DIR`, `NAME_FILE`) and, in production, the modes of the signing keys.
    pub fn load(
        binary: Binary,
        variables: &BTreeMap<String, String>,
    ) -> Result<Self, InvalidSettings> {
        let mut problems = Vec::new();
        let layered = layers::collect(binary, variables, &mut problems);
        let mut reader = Reader::new(&layered, &mut problems);
        let settings = Settings::read(&mut reader, layered.environment);
        let printed = reader.printed;
        fields::check_otel(variables, &mut problems);
        let Some(settings) = settings else { return Err(InvalidSettings(problems)) };
        for (setting, wrong) in rules::broken(&settings, binary) {
            // Another value stands in for one that is wrong by itself: no rule can be checked on it.
            if !problems.iter().any(|problem| problem.setting == setting) {
                let origin = layers::find(&layered.values, setting).and_then(config::Value::origin);
                problems.push(InvalidSetting::new(setting, origin, wrong));
            }
        }
        if !problems.is_empty() {
            return Err(InvalidSettings(problems));
        }
        Ok(Self { settings, overridden: layered.overridden, printed })
    }
}

/// The effective settings as TOML, secrets masked, with where each value that is not a default came from.
impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "# ENVIRONMENT = {}\n{}", self.settings.environment, self.printed)?;
        for (unused, used) in &self.overridden {
            writeln!(f, "\n# {unused} is not used: {used} sets the same setting.")?;
        }
        Ok(())
    }
}

//! Which value holds: defaults, files, well-known names, own names, and files that variables name.

use std::{fs, path::Path, time::Duration};

use common::config::{Binary, Environment, LogFormat, LoginMode, ProviderKind, Registration};
use secrecy::ExposeSecret;

use super::{bad, good, redis};

const AUTH_URL: (&str, &str) = ("CHATBOT__CHAT__AUTH_URL", "http://auth:9001");

#[test]
fn nothing_set_gives_the_defaults_of_one_persons_machine() {
    let settings = good(Binary::Chat, &[]);
    assert_eq!(settings.environment, Environment::Dev);
    assert_eq!(settings.chat.listen.to_string(), "127.0.0.1:9002");
    assert_eq!(settings.auth.admin_listen.to_string(), "127.0.0.1:9101");
    assert_eq!(redis(&settings), "redis://127.0.0.1:6379/0");
    assert_eq!(settings.auth.login, LoginMode::Open);
    assert_eq!(settings.auth.registration, Registration::Open);
    assert_eq!(settings.auth.access_ttl, Duration::from_secs(3600));
    assert_eq!(settings.chat.auth_url.unwrap().as_str(), "http://127.0.0.1:9001/");
    assert_eq!(settings.chat.session_ttl, None);
    assert_eq!(settings.llm.providers, [ProviderKind::Ollama, ProviderKind::Demo]);
    assert_eq!(settings.llm.huggingface.base_url.as_str(), "https://router.huggingface.co/v1");
    assert_eq!(settings.rate_limit.requests.get(), 10);
    assert_eq!(settings.telemetry.log_format, LogFormat::Text);
}

#[test]
fn each_environment_has_its_own_defaults() {
    let staging = good(Binary::Chat, &[("ENVIRONMENT", "stg")]);
    assert_eq!(staging.chat.listen.to_string(), "0.0.0.0:9002");
    assert_eq!(staging.auth.login, LoginMode::Open);
    assert_eq!(staging.auth.access_ttl, Duration::from_secs(900));
    assert_eq!(staging.auth.keys_dir, Path::new("/data/keys"));
    assert_eq!(staging.chat.session_ttl, Some(Duration::from_secs(30 * 86_400)));
    assert_eq!(redis(&staging), "redis://redis:6379/0");
    assert_eq!(staging.llm.ollama.base_url.as_str(), "http://ollama:11434/");
    assert_eq!(staging.llm.providers, [ProviderKind::Ollama]);
    assert_eq!(staging.rate_limit.requests.get(), 50);
    assert_eq!(staging.telemetry.log_format, LogFormat::Json);

    let given = [
        ("ENVIRONMENT", "prod"),
        ("REDIS_URL", "redis://store"),
        ("CHATBOT__CHAT__AUTH_URL", "http://auth:9001"),
    ];
    let production = good(Binary::Chat, &given);
    assert_eq!(production.auth.login, LoginMode::Password);
    assert_eq!(production.auth.registration, Registration::Closed);
    assert_eq!(production.auth.admin_listen.to_string(), "0.0.0.0:9101");
    assert_eq!(production.rate_limit.requests.get(), 100);
    assert_eq!(production.chat.session_ttl, None);
}

#[test]
fn later_layers_win() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("dev.toml"),
        "[store]\nurl = 'redis://file'\n[llm]\nmodel = 'file'\n",
    )
    .unwrap();
    let folder = ("CONFIG_DIR", folder.path().to_str().unwrap());
    assert_eq!(redis(&good(Binary::Chat, &[folder, AUTH_URL])), "redis://file");
    let known_name = ("REDIS_URL", "redis://known");
    assert_eq!(redis(&good(Binary::Chat, &[folder, AUTH_URL, known_name])), "redis://known");
    let own_name = ("CHATBOT__STORE__URL", "redis://own");
    let settings = good(Binary::Chat, &[folder, AUTH_URL, known_name, own_name]);
    assert_eq!(redis(&settings), "redis://own");
    assert_eq!(settings.llm.model, "file");
}

#[test]
fn a_file_in_config_dir_replaces_the_compiled_in_one_of_its_name() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("dev.toml"), "[llm]\nproviders = ['demo']\n").unwrap();
    let settings = good(
        Binary::Auth,
        &[("CONFIG_DIR", folder.path().to_str().unwrap()), ("REDIS_URL", "redis://r")],
    );
    assert_eq!(settings.llm.providers, [ProviderKind::Demo]);
    assert_eq!(
        settings.auth.login,
        LoginMode::Password,
        "what only the compiled-in dev.toml said is gone"
    );
}

#[test]
fn well_known_names_set_their_settings() {
    let settings = good(
        Binary::Chat,
        &[
            ("OLLAMA_HOST", "0.0.0.0:8080"),
            ("OPENAI_BASE_URL", "http://vllm:8000/v1/"),
            ("OPENAI_API_KEY", "007"),
            ("HF_TOKEN", "1e5"),
            ("RUST_LOG", "warn,chat=debug"),
        ],
    );
    assert_eq!(settings.llm.ollama.base_url.as_str(), "http://127.0.0.1:8080/");
    assert_eq!(settings.llm.openai.base_url.as_str(), "http://vllm:8000/v1");
    assert_eq!(
        settings.llm.openai.api_key.unwrap().expose_secret(),
        "007",
        "a key is a text, not a number"
    );
    assert_eq!(settings.llm.huggingface.api_key.unwrap().expose_secret(), "1e5");
    assert_eq!(settings.telemetry.log_filter, "warn,chat=debug");
}

#[test]
fn an_empty_well_known_name_sets_nothing() {
    let settings = good(
        Binary::Chat,
        &[("REDIS_URL", ""), ("OLLAMA_HOST", " "), ("RUST_LOG", ""), ("HF_TOKEN", "")],
    );
    assert_eq!(redis(&settings), "redis://127.0.0.1:6379/0");
    assert!(settings.llm.huggingface.api_key.is_none());
}

#[test]
fn lists_are_comma_separated_and_durations_have_units() {
    let settings = good(
        Binary::Chat,
        &[
            ("CHATBOT__LLM__PROVIDERS", "demo, ollama"),
            ("CHATBOT__SERVER__TRUSTED_PROXIES", "10.0.0.5,192.168.0.0/16,::1"),
            ("CHATBOT__SERVER__ALLOWED_HOSTS", "Chat.Example.com"),
            (
                "CHATBOT__CHAT__ALLOWED_ORIGINS",
                "https://App.example.com:443,http://localhost:5173,app://obsidian.md,capacitor://localhost",
            ),
            ("CHATBOT__CHAT__LEASE", "750ms"),
            ("CHATBOT__CHAT__DISCONNECT_GRACE", "0s"),
            ("CHATBOT__AUTH__REFRESH_TTL", "90d"),
            ("CHATBOT__LLM__OLLAMA__QUEUE", "0"),
            ("CHATBOT__RATE_LIMIT__TOKENS_PER_DAY", "50000"),
        ],
    );
    assert_eq!(settings.llm.providers, [ProviderKind::Demo, ProviderKind::Ollama]);
    let proxies: Vec<String> =
        settings.server.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(proxies, ["10.0.0.5/32", "192.168.0.0/16", "::1/128"]);
    assert_eq!(settings.server.allowed_hosts, ["chat.example.com"]);
    assert_eq!(
        settings.chat.allowed_origins,
        [
            "https://app.example.com",
            "http://localhost:5173",
            "app://obsidian.md",
            "capacitor://localhost"
        ]
    );
    assert_eq!(settings.chat.lease, Duration::from_millis(750));
    assert_eq!(settings.chat.disconnect_grace, Duration::ZERO);
    assert_eq!(settings.auth.refresh_ttl, Duration::from_secs(90 * 86_400));
    assert_eq!(settings.llm.ollama.queue, 0);
    assert_eq!(settings.rate_limit.tokens_per_day, Some(50_000));
}

#[test]
fn an_empty_text_unsets_what_may_be_left_out() {
    let given = [
        ("ENVIRONMENT", "stg"),
        ("CHATBOT__CHAT__SESSION_TTL", ""),
        ("CHATBOT__SERVER__ALLOWED_HOSTS", ""),
    ];
    let settings = good(Binary::Chat, &given);
    assert_eq!(settings.chat.session_ttl, None);
    assert!(settings.server.allowed_hosts.is_empty());
    assert!(
        bad(Binary::Chat, &[("CHATBOT__LLM__MODEL", "")])
            .starts_with("llm.model (from CHATBOT__LLM__MODEL): it must be set")
    );
}

#[test]
fn any_variable_can_be_given_as_a_file_and_loses_one_newline() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let settings = good(
        Binary::Chat,
        &[
            ("REDIS_URL_FILE", &file("redis", "redis://:a@store/1\n")),
            ("CHATBOT__LLM__OPENAI__API_KEY_FILE", &file("key", "007\r\n")),
            ("CHATBOT__CHAT__SYSTEM_PROMPT_FILE", &file("prompt", "Be brief.\n\n")),
            ("ENVIRONMENT_FILE", &file("environment", "stg\n")),
            ("OPENAI_API_KEY", ""),
        ],
    );
    assert_eq!(settings.environment, Environment::Stg);
    assert_eq!(redis(&settings), "redis://:a@store/1");
    assert_eq!(settings.llm.openai.api_key.unwrap().expose_secret(), "007");
    assert_eq!(settings.chat.system_prompt.as_deref(), Some("Be brief.\n"));
}

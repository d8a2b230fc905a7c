//! What is printed of the settings, and what never is.

use std::fs;

use common::config::Binary;

use super::{bad, good, shown};

#[test]
fn no_problem_shows_a_secret() {
    for (name, value) in [
        ("REDIS_URL", "redis://:canary@"),
        ("CHATBOT__STORE__URL", "canary"),
        ("CHATBOT__STORE__URL", "redis://:canary@h:notaport"),
        ("CHATBOT__LLM__OPENAI__API_KEY", "canary two"),
        ("HF_TOKEN", "canary\n"),
        ("CHATBOT__LLM__OPENAI__BASE_URL", "canary:canary@host"),
        ("CHATBOT__LLM__OPENAI", "canary"),
    ] {
        let problem = bad(Binary::Chat, &[(name, value)]);
        assert!(!problem.contains("canary"), "{problem}");
    }
}

#[test]
fn nothing_that_is_printed_shows_a_secret() {
    let given = [
        ("REDIS_URL", "rediss://me:canary@store:6380/2"),
        ("OPENAI_API_KEY", "canary"),
        ("HF_TOKEN", "canary"),
        ("OLLAMA_HOST", "https://me:canary@ollama.example.com"),
    ];
    let settings = good(Binary::Chat, &given);
    assert_eq!(
        settings.llm.ollama.base_url.password(),
        Some("canary"),
        "the settings themselves have it"
    );
    let debug = format!("{settings:?}");
    let printed = shown(Binary::Chat, &given);
    assert!(!debug.contains("canary") && !printed.contains("canary"), "{debug}\n{printed}");
    assert!(
        printed.contains("url = \"rediss://********@store:6380/2\"  # REDIS_URL\n"),
        "{printed}"
    );
    assert!(printed.contains("api_key = \"********\"  # HF_TOKEN\n"), "{printed}");
}

#[test]
fn what_check_config_prints_is_toml_that_gives_the_same_settings() {
    let given = [
        ("CHATBOT__CHAT__SYSTEM_PROMPT", "say \"yes\"\nor no"),
        ("CHATBOT__CHAT__LEASE", "1500ms"),
        ("CHATBOT__SERVER__TRUSTED_PROXIES", "10.0.0.0/8"),
        ("CHATBOT__RATE_LIMIT__TOKENS_PER_DAY", "7"),
    ];
    let printed = shown(Binary::Chat, &given);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("dev.toml"), &printed).unwrap();
    let again = good(Binary::Chat, &[("CONFIG_DIR", folder.path().to_str().unwrap())]);
    assert_eq!(format!("{again:?}"), format!("{:?}", good(Binary::Chat, &given)));
    assert!(printed.contains("lease = \"1500ms\"  # CHATBOT__CHAT__LEASE\n"), "{printed}");
    assert!(
        printed.contains("issuer = \"chatbot\"\n"),
        "a default has no origin beside it: {printed}"
    );
}

#[test]
fn a_variable_that_another_one_overrides_is_named() {
    let given = [
        ("REDIS_URL", "redis://one"),
        ("CHATBOT__STORE__URL", "redis://other"),
        ("RUST_LOG", "warn"),
        ("CHATBOT__TELEMETRY__LOG_FILTER", "warn"),
    ];
    let printed = shown(Binary::Chat, &given);
    let named = "# REDIS_URL is not used: CHATBOT__STORE__URL sets the same setting.\n";
    assert!(printed.contains(named) && !printed.contains("RUST_LOG is"), "{printed}");
}

#[test]
fn a_password_that_cuts_the_url_is_said_to_need_encoding() {
    let problem = bad(Binary::Chat, &[("REDIS_URL", "redis://:canary#b@redis:6379/0")]);
    assert!(problem.contains("percent-encoded") && !problem.contains("canary"), "{problem}");
    good(Binary::Chat, &[("REDIS_URL", "redis://:a%23b@redis:6379/0")]);
}

#[test]
fn every_default_is_a_setting_that_something_reads() {
    fn names(table: &toml::Table, prefix: &str) -> Vec<String> {
        let name = |(name, value): (&String, &toml::Value)| match value {
            toml::Value::Table(table) => names(table, &format!("{prefix}{name}.")),
            _ => vec![format!("{prefix}{name}")],
        };
        table.iter().flat_map(name).collect()
    }
    let defaults = include_str!("../../../../config/default.toml");
    let printed = names(&shown(Binary::Chatbot, &[]).parse().unwrap(), "");
    for name in names(&defaults.parse().unwrap(), "") {
        assert!(printed.contains(&name), "{name} has a default and no field");
    }
}

//! The settings as a process meets them: layers, variables, files, and every problem named at once.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use common::config::{
    Binary, Environment, Loaded, LogFormat, LoginMode, Problems, ProviderKind, Registration,
    Settings, StoreUrl,
};
use secrecy::ExposeSecret;

fn variables(given: &[(&str, &str)]) -> BTreeMap<String, String> {
    given
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn load(binary: Binary, given: &[(&str, &str)]) -> Result<Settings, Problems> {
    Settings::load(binary, &variables(given))
}

fn good(binary: Binary, given: &[(&str, &str)]) -> Settings {
    load(binary, given).unwrap()
}

fn bad(binary: Binary, given: &[(&str, &str)]) -> String {
    load(binary, given).unwrap_err().to_string()
}

fn shown(binary: Binary, given: &[(&str, &str)]) -> String {
    Loaded::load(binary, &variables(given))
        .map(|loaded| loaded.to_string())
        .unwrap()
}

fn redis(settings: &Settings) -> &str {
    match &settings.store.url {
        StoreUrl::Redis(url) => url.expose_secret(),
        other => panic!("{other:?}"),
    }
}

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
    assert_eq!(
        settings.chat.auth_url.unwrap().as_str(),
        "http://127.0.0.1:9001/"
    );
    assert_eq!(settings.chat.session_ttl, None);
    assert_eq!(
        settings.llm.providers,
        [ProviderKind::Ollama, ProviderKind::Demo]
    );
    assert_eq!(
        settings.llm.huggingface.base_url.as_str(),
        "https://router.huggingface.co/v1"
    );
    assert_eq!(settings.rate_limit.requests.get(), 10);
    assert_eq!(settings.telemetry.log_format, LogFormat::Text);
}

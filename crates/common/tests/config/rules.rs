//! What must hold between settings: per binary, and in production.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use common::config::{Binary, StoreUrl};

use super::{bad, good, load, redis};

#[test]
fn chatbot_keeps_its_own_store_in_every_environment_unless_told_otherwise() {
    for environment in ["dev", "stg", "prod"] {
        let settings = good(Binary::Chatbot, &[("ENVIRONMENT", environment)]);
        assert!(
            matches!(&settings.store.url, StoreUrl::Embedded(folder) if folder == Path::new("./data")),
            "{environment}"
        );
        assert!(settings.chat.auth_url.is_none());
        let told =
            good(Binary::Chatbot, &[("ENVIRONMENT", environment), ("REDIS_URL", "redis://r")]);
        assert_eq!(redis(&told), "redis://r");
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("stg.toml"), "[store]\nurl = 'memory:'\n").unwrap();
    let told = good(
        Binary::Chatbot,
        &[("ENVIRONMENT", "stg"), ("CONFIG_DIR", folder.path().to_str().unwrap())],
    );
    assert!(matches!(told.store.url, StoreUrl::Memory));
}

#[test]
fn only_chatbot_has_a_store_of_its_own() {
    for url in ["embedded:./data", "memory:"] {
        good(Binary::Chatbot, &[("CHATBOT__STORE__URL", url)]);
        for binary in [Binary::Auth, Binary::Chat] {
            let problem = bad(binary, &[("CHATBOT__STORE__URL", url)]);
            assert!(
                problem.starts_with("store.url (from CHATBOT__STORE__URL)")
                    && problem.contains("chatbot alone"),
                "{problem}"
            );
        }
    }
}

#[test]
fn production_wants_what_the_binary_uses() {
    let names = |binary, given: &[(&str, &str)]| -> Vec<String> {
        load(binary, given).unwrap_err().0.into_iter().map(|problem| problem.setting).collect()
    };
    assert_eq!(names(Binary::Auth, &[("ENVIRONMENT", "prod")]), ["store.url"]);
    assert_eq!(names(Binary::Chat, &[("ENVIRONMENT", "prod")]), ["store.url", "chat.auth_url"]);
    good(Binary::Auth, &[("ENVIRONMENT", "prod"), ("REDIS_URL", "redis://r")]);
    good(Binary::Chatbot, &[("ENVIRONMENT", "prod")]);
}

#[test]
fn production_refuses_open_login_and_easy_passwords_of_the_store() {
    let login = bad(Binary::Chatbot, &[("ENVIRONMENT", "prod"), ("CHATBOT__AUTH__LOGIN", "open")]);
    assert!(
        login.starts_with("auth.login (from CHATBOT__AUTH__LOGIN): open login is refused in prod"),
        "{login}"
    );
    for password in ["changeme", "canary", "aaaaaaaaaaaaaaaa"] {
        let url = format!("redis://:{password}@r");
        let problem = bad(Binary::Auth, &[("ENVIRONMENT", "prod"), ("REDIS_URL", &url)]);
        assert!(
            problem.starts_with("store.url (from REDIS_URL)") && !problem.contains(password),
            "{problem}"
        );
    }
    good(Binary::Auth, &[("ENVIRONMENT", "prod"), ("REDIS_URL", "redis://:x8Jd0-qLw3mZ@r")]);
}

#[test]
fn production_refuses_a_signing_key_that_anybody_can_read() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("20260101T000000-a.pem");
    fs::write(&key, "x").unwrap();
    let given = |environment| {
        [
            ("ENVIRONMENT", environment),
            ("REDIS_URL", "redis://r"),
            ("CHATBOT__AUTH__KEYS_DIR", folder.path().to_str().unwrap()),
        ]
    };
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let problem = bad(Binary::Auth, &given("prod"));
    assert!(
        problem.starts_with("auth.keys_dir (from CHATBOT__AUTH__KEYS_DIR)")
            && problem.contains("-a.pem"),
        "{problem}"
    );
    good(Binary::Auth, &given("dev"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    good(Binary::Auth, &given("prod"));
}

#[test]
fn a_listed_provider_that_needs_a_key_says_so_at_the_start() {
    let listed = ("CHATBOT__LLM__PROVIDERS", "huggingface,openai");
    let problems = bad(Binary::Chat, &[listed]);
    assert!(
        problems.contains("llm.huggingface.api_key") && problems.contains("HF_TOKEN"),
        "{problems}"
    );
    assert!(
        problems.contains("llm.openai.api_key") && problems.contains("OPENAI_API_KEY"),
        "{problems}"
    );
    good(Binary::Auth, &[listed]);
    good(
        Binary::Chat,
        &[listed, ("HF_TOKEN", "k"), ("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")],
    );
}

#[test]
fn the_largest_body_must_fit_into_the_memory_for_bodies() {
    let problem = bad(Binary::Chat, &[("CHATBOT__SERVER__BODY_MEMORY", "1MiB")]);
    assert!(problem.contains("server.body_memory (from CHATBOT__SERVER__BODY_MEMORY): it is below server.inference_body_limit"), "{problem}");
    good(
        Binary::Auth,
        &[
            ("CHATBOT__SERVER__BODY_MEMORY", "1MiB"),
            ("CHATBOT__SERVER__INFERENCE_BODY_LIMIT", "1MiB"),
        ],
    );
}

#[test]
fn two_listeners_of_a_process_cannot_share_a_port() {
    let problem = bad(Binary::Chatbot, &[("CHATBOT__CHAT__ADMIN_LISTEN", "127.0.0.1:9001")]);
    assert!(problem.starts_with("chat.admin_listen (from CHATBOT__CHAT__ADMIN_LISTEN): 127.0.0.1:9001 is also auth.listen"), "{problem}");
    good(Binary::Chat, &[("CHATBOT__CHAT__ADMIN_LISTEN", "127.0.0.1:9001")]);
    // Every binary checks the other service's settings, too.
    for binary in [Binary::Auth, Binary::Chat, Binary::Chatbot] {
        let problem = bad(binary, &[("CHATBOT__AUTH__ADMIN_LISTEN", "127.0.0.1:9001")]);
        assert!(problem.contains("is also auth.listen"), "{problem}");
    }
    good(
        Binary::Chatbot,
        &[("CHATBOT__CHAT__LISTEN", "127.0.0.1:0"), ("CHATBOT__AUTH__LISTEN", "127.0.0.1:0")],
    );
}

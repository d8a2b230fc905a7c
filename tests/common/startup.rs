//! Starts that must not happen, checks before a start, and polite ends.

use std::{collections::BTreeMap, time::Duration};

use tests::{Backend, PATIENCE, Process, TestApp, eventually};

const BINARIES: [&str; 3] = ["auth", "chat", "chatbot"];

fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn every_wrong_setting_is_named_and_the_start_ends_with_78() {
    let wrong = environment(&[
        ("CHATBOT__CHAT__LEASE", "-5s"),
        ("CHATBOT__CHAT__LISTEN", "nowhere"),
        ("CHATBOT__AUTH__LOGIN", "perhaps"),
        ("CHATBOT__LLM__OLLAMA__BASE_URL", "not a url"),
        ("CHATBOT__RATE_LIMIT__REQUESTS", "0"),
        ("CHATBOT__CHAT__TYPO", "1"),
        ("CHATBOT__NOTHING__AT_ALL", "1"),
    ]);
    for binary in BINARIES {
        for arguments in [&["serve"][..], &["check-config"], &[]] {
            let (code, text) = Process::run(binary, arguments, &wrong).await;
            assert_eq!(code, Some(78), "{binary} {arguments:?}: {text}");
            let text = text.to_lowercase();
            for name in ["lease", "listen", "login", "base_url", "requests", "typo", "nothing"] {
                assert!(text.contains(name), "{binary} {arguments:?} does not name {name}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn production_refuses_what_is_unsafe() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys").display().to_string();
    let good = [
        ("ENVIRONMENT", "prod"),
        ("CHATBOT__STORE__URL", "redis://127.0.0.1:1/0"),
        ("CHATBOT__CHAT__AUTH_URL", "http://127.0.0.1:1"),
        ("CHATBOT__AUTH__KEYS_DIR", keys.as_str()),
    ];
    for (name, value, named) in [
        ("CHATBOT__AUTH__LOGIN", "open", "login"),
        ("CHATBOT__CHAT__ALLOWED_ORIGINS", "*", "allowed_origins"),
        ("CHATBOT__STORE__URL", "", "store.url"),
    ] {
        let mut settings = environment(&good);
        settings.insert(name.to_owned(), value.to_owned());
        let (code, text) = Process::run("auth", &["check-config"], &settings).await;
        assert_eq!(code, Some(78), "{name}={value}: {text}");
        assert!(text.contains(named), "{name}={value}: {text}");
    }
    for binary in BINARIES {
        let (code, text) = Process::run(binary, &["check-config"], &environment(&good)).await;
        assert_eq!(code, Some(0), "{binary}: {text}");
    }
    let (code, text) =
        Process::run("chatbot", &["check-config"], &environment(&[("ENVIRONMENT", "prod")])).await;
    assert_eq!(code, Some(0), "{text}");
    for (binary, needs) in [("auth", vec!["store.url"]), ("chat", vec!["store.url", "auth_url"])] {
        let (code, text) =
            Process::run(binary, &["check-config"], &environment(&[("ENVIRONMENT", "prod")])).await;
        assert_eq!(code, Some(78), "{binary}: {text}");
        assert!(needs.iter().all(|name| text.contains(name)), "{binary}: {text}");
    }
}

#[tokio::test]
async fn auth_and_chat_need_a_redis_store() {
    for binary in ["auth", "chat"] {
        for url in ["memory:", "embedded:./data", "ftp://x"] {
            let (code, text) =
                Process::run(binary, &[], &environment(&[("CHATBOT__STORE__URL", url)])).await;
            assert_eq!(code, Some(78), "{binary} on {url}: {text}");
            assert!(text.contains("store.url"), "{text}");
        }
    }
}

#[tokio::test]
async fn check_config_masks_secrets_and_shows_what_holds() {
    let secrets = environment(&[
        ("CHATBOT__STORE__URL", "redis://:canary-in-the-url@127.0.0.1:6379/0"),
        ("OPENAI_API_KEY", "canary-of-openai"),
        ("HF_TOKEN", "canary-of-hf"),
        ("CHATBOT__CHAT__LEASE", "17s"),
    ]);
    for binary in ["auth", "chat"] {
        let (code, text) = Process::run(binary, &["check-config"], &secrets).await;
        assert_eq!(code, Some(0), "{binary}: {text}");
        assert!(!text.contains("canary"), "{binary} shows a secret: {text}");
        assert!(text.contains("17s"), "{binary}: {text}");
    }
}

#[tokio::test]
async fn a_setting_can_come_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lease");
    std::fs::write(&file, "19s\n").unwrap();
    let path = file.display().to_string();
    let (code, text) = Process::run(
        "chat",
        &["check-config"],
        &environment(&[("CHATBOT__CHAT__LEASE_FILE", &path)]),
    )
    .await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("19s"), "{text}");
    let gone = environment(&[("CHATBOT__CHAT__LEASE_FILE", "/nowhere/at/all")]);
    assert_eq!(Process::run("chat", &["check-config"], &gone).await.0, Some(78));
}

#[tokio::test]
async fn the_document_can_be_had_without_a_start() {
    for binary in BINARIES {
        let (code, text) = Process::run(binary, &["openapi"], &BTreeMap::new()).await;
        assert_eq!(code, Some(0), "{binary}: {text}");
        let document: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{binary}: {error}"));
        assert!(
            document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")),
            "{binary}"
        );
    }
}

#[tokio::test]
async fn a_port_in_use_ends_the_start_with_a_word_about_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let settings = environment(&[
        ("CHATBOT__STORE__URL", "memory:"),
        ("CHATBOT__CHAT__LISTEN", &address),
        ("CHATBOT__CHAT__ADMIN_LISTEN", "127.0.0.1:0"),
        ("CHATBOT__AUTH__LISTEN", "127.0.0.1:0"),
        ("CHATBOT__AUTH__ADMIN_LISTEN", "127.0.0.1:0"),
        ("CHATBOT__AUTH__KEYS_DIR", tempfile::tempdir().unwrap().path().to_str().unwrap()),
    ]);
    let (code, text) = Process::run("chatbot", &[], &settings).await;
    assert!(code.is_some_and(|code| code != 0), "{text}");
    assert!(text.contains(&address), "{text}");
}

#[tokio::test]
async fn an_idle_service_ends_within_a_second_on_either_signal() {
    for (backend, signal) in [
        (Backend::Redis, rustix::process::Signal::TERM),
        (Backend::Memory, rustix::process::Signal::INT),
    ] {
        let app = TestApp::start(backend).await;
        for process in [app.chat_process(0), app.auth_process()] {
            if process.status().is_none() {
                process.signal(signal);
            }
            assert_eq!(process.wait_exit(Duration::from_millis(1500)).await, Some(0));
        }
    }
}

#[tokio::test]
async fn healthcheck_asks_the_running_service() {
    let app = TestApp::start(Backend::Redis).await;
    let mut settings = app.environment();
    settings.insert("CHATBOT__CHAT__LISTEN".to_owned(), app.chat(0).to_string());
    settings.insert("CHATBOT__CHAT__ADMIN_LISTEN".to_owned(), app.chat_admin(0).to_string());
    settings.insert("CHATBOT__CHAT__AUTH_URL".to_owned(), format!("http://{}", app.auth()));
    assert_eq!(Process::run("chat", &["healthcheck"], &settings).await.0, Some(0));
    app.redis().kill();
    eventually(PATIENCE, "the check fails without Redis", || async {
        let (code, _) = Process::run("chat", &["healthcheck"], &settings).await;
        code.is_some_and(|code| code != 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn check_config_connect_asks_what_the_settings_name() {
    let app = TestApp::start(Backend::Redis).await;
    let folder = tempfile::tempdir().unwrap();
    let data = format!("embedded:{}", folder.path().display());
    for binary in BINARIES {
        let mut settings = app.environment();
        for service in ["AUTH", "CHAT"] {
            for listener in ["LISTEN", "ADMIN_LISTEN"] {
                let name = format!("CHATBOT__{service}__{listener}");
                settings.insert(name, "127.0.0.1:0".to_owned());
            }
        }
        let auth = format!("http://{}", app.auth());
        settings.insert("CHATBOT__CHAT__AUTH_URL".to_owned(), auth);
        if binary == "chatbot" {
            settings.insert("CHATBOT__STORE__URL".to_owned(), data.clone());
        }
        let connect = ["check-config", "--connect"];
        let (code, text) = Process::run(binary, &connect, &settings).await;
        assert_eq!(code, Some(0), "{binary}: {text}");
        for (what, by) in [
            ("ok      store.url", &BINARIES[..]),
            ("ok      auth.listen", &["auth", "chatbot"]),
            ("ok      chat.admin_listen", &["chat", "chatbot"]),
            ("ok      clock of the store", &["auth", "chat"]),
            ("ok      clock of auth", &["chat"]),
            ("ok      model server ollama", &["chat", "chatbot"]),
            ("ok      llm.model", &["chat", "chatbot"]),
        ] {
            let is_said = text.contains(what);
            assert_eq!(is_said, by.contains(&binary), "{binary}, {what}: {text}");
        }
        for (name, wrong, said) in [
            ("STORE__URL", "redis://127.0.0.1:1/0", "store.url: it cannot"),
            ("AUTH__LISTEN", &app.chat(0).to_string(), "this service runs"),
            ("LLM__OLLAMA__BASE_URL", "http://127.0.0.1:1", "ollama serve"),
            ("LLM__MODEL", "absent:1b", "ollama pull absent:1b"),
        ] {
            let concerns = match name {
                "AUTH__LISTEN" => binary != "chat",
                "STORE__URL" => true,
                _ => binary != "auth",
            };
            if !concerns {
                continue;
            }
            let mut settings = settings.clone();
            settings.insert(format!("CHATBOT__{name}"), wrong.to_owned());
            let (code, text) = Process::run(binary, &connect, &settings).await;
            let is_wrong = name != "AUTH__LISTEN";
            assert_eq!(code, Some(i32::from(is_wrong)), "{binary} {name}: {text}");
            assert!(text.contains(said), "{binary} {name}: {text}");
        }
    }
}

#[tokio::test]
async fn the_demo_takes_the_place_of_the_providers() {
    let app = TestApp::start(Backend::Redis).await;
    let mut settings = app.environment();
    settings.insert("CHATBOT__LLM__PROVIDERS".to_owned(), "ollama".to_owned());
    let (code, text) = Process::run("chat", &["--demo", "check-config"], &settings).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("providers = \"demo\""), "{text}");
    let (code, text) = Process::run("auth", &["--demo"], &settings).await;
    assert_eq!(code, Some(2), "{text}");
}

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

#[test]
fn each_environment_has_its_own_defaults() {
    let staging = good(Binary::Chat, &[("ENVIRONMENT", "stg")]);
    assert_eq!(staging.chat.listen.to_string(), "0.0.0.0:9002");
    assert_eq!(staging.auth.login, LoginMode::Open);
    assert_eq!(staging.auth.access_ttl, Duration::from_secs(900));
    assert_eq!(staging.auth.keys_dir, Path::new("/data/keys"));
    assert_eq!(
        staging.chat.session_ttl,
        Some(Duration::from_secs(30 * 86_400))
    );
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
fn an_environment_that_does_not_exist_is_named() {
    let problem = bad(Binary::Auth, &[("ENVIRONMENT", "production")]);
    assert_eq!(
        problem,
        "ENVIRONMENT: \"production\" is no environment; allowed: dev, stg, prod"
    );
    assert_eq!(
        good(Binary::Auth, &[("ENVIRONMENT", "")]).environment,
        Environment::Dev
    );
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
    assert_eq!(
        redis(&good(Binary::Chat, &[folder, AUTH_URL])),
        "redis://file"
    );
    let known_name = ("REDIS_URL", "redis://known");
    assert_eq!(
        redis(&good(Binary::Chat, &[folder, AUTH_URL, known_name])),
        "redis://known"
    );
    let own_name = ("CHATBOT__STORE__URL", "redis://own");
    let settings = good(Binary::Chat, &[folder, AUTH_URL, known_name, own_name]);
    assert_eq!(redis(&settings), "redis://own");
    assert_eq!(settings.llm.model, "file");
}

const AUTH_URL: (&str, &str) = ("CHATBOT__CHAT__AUTH_URL", "http://auth:9001");

#[test]
fn a_file_in_config_dir_replaces_the_compiled_in_one_of_its_name() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("dev.toml"),
        "[llm]\nproviders = ['demo']\n",
    )
    .unwrap();
    let settings = good(
        Binary::Auth,
        &[
            ("CONFIG_DIR", folder.path().to_str().unwrap()),
            ("REDIS_URL", "redis://r"),
        ],
    );
    assert_eq!(settings.llm.providers, [ProviderKind::Demo]);
    assert_eq!(
        settings.auth.login,
        LoginMode::Password,
        "what only the compiled-in dev.toml said is gone"
    );
}

#[test]
fn a_config_dir_without_any_file_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let problem = bad(
        Binary::Auth,
        &[("CONFIG_DIR", folder.path().to_str().unwrap())],
    );
    assert!(
        problem.contains("CONFIG_DIR") && problem.contains("neither default.toml nor dev.toml"),
        "{problem}"
    );
}

#[test]
fn a_broken_file_is_named_with_its_line_and_without_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dev.toml");
    fs::write(&path, "[llm]\nmodel = 'm'\napi_key = canary-123\n").unwrap();
    let problem = bad(
        Binary::Auth,
        &[("CONFIG_DIR", folder.path().to_str().unwrap())],
    );
    assert!(
        problem.contains(path.to_str().unwrap()) && problem.contains("line 3"),
        "{problem}"
    );
    assert!(!problem.contains("canary"), "{problem}");
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
    assert_eq!(
        settings.llm.ollama.base_url.as_str(),
        "http://127.0.0.1:8080/"
    );
    assert_eq!(settings.llm.openai.base_url.as_str(), "http://vllm:8000/v1");
    assert_eq!(
        settings.llm.openai.api_key.unwrap().expose_secret(),
        "007",
        "a key is a text, not a number"
    );
    assert_eq!(
        settings.llm.huggingface.api_key.unwrap().expose_secret(),
        "1e5"
    );
    assert_eq!(settings.telemetry.log_filter, "warn,chat=debug");
}

#[test]
fn an_empty_well_known_name_sets_nothing() {
    let settings = good(
        Binary::Chat,
        &[
            ("REDIS_URL", ""),
            ("OLLAMA_HOST", " "),
            ("RUST_LOG", ""),
            ("HF_TOKEN", ""),
        ],
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
            (
                "CHATBOT__SERVER__TRUSTED_PROXIES",
                "10.0.0.5,192.168.0.0/16,::1",
            ),
            ("CHATBOT__SERVER__ALLOWED_HOSTS", "Chat.Example.com"),
            (
                "CHATBOT__CHAT__ALLOWED_ORIGINS",
                "https://App.example.com:443,http://localhost:5173",
            ),
            ("CHATBOT__CHAT__LEASE", "250ms"),
            ("CHATBOT__CHAT__DISCONNECT_GRACE", "0s"),
            ("CHATBOT__AUTH__REFRESH_TTL", "90d"),
            ("CHATBOT__LLM__OLLAMA__QUEUE", "0"),
            ("CHATBOT__RATE_LIMIT__TOKENS_PER_DAY", "50000"),
        ],
    );
    assert_eq!(
        settings.llm.providers,
        [ProviderKind::Demo, ProviderKind::Ollama]
    );
    let proxies: Vec<String> = settings
        .server
        .trusted_proxies
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(proxies, ["10.0.0.5/32", "192.168.0.0/16", "::1/128"]);
    assert_eq!(settings.server.allowed_hosts, ["chat.example.com"]);
    assert_eq!(
        settings.chat.allowed_origins,
        ["https://app.example.com", "http://localhost:5173"]
    );
    assert_eq!(settings.chat.lease, Duration::from_millis(250));
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
            (
                "CHATBOT__LLM__OPENAI__API_KEY_FILE",
                &file("key", "007\r\n"),
            ),
            (
                "CHATBOT__CHAT__SYSTEM_PROMPT_FILE",
                &file("prompt", "Be brief.\n\n"),
            ),
            ("ENVIRONMENT_FILE", &file("environment", "stg\n")),
            ("OPENAI_API_KEY", ""),
        ],
    );
    assert_eq!(settings.environment, Environment::Stg);
    assert_eq!(redis(&settings), "redis://:a@store/1");
    assert_eq!(settings.llm.openai.api_key.unwrap().expose_secret(), "007");
    assert_eq!(settings.chat.system_prompt.as_deref(), Some("Be brief.\n"));
}

#[test]
fn a_variable_beside_its_file_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    fs::write(&path, "canary-file").unwrap();
    let problem = bad(
        Binary::Chat,
        &[
            ("HF_TOKEN", "canary-variable"),
            ("HF_TOKEN_FILE", path.to_str().unwrap()),
        ],
    );
    assert_eq!(
        problem,
        "llm.huggingface.api_key (from HF_TOKEN): HF_TOKEN and HF_TOKEN_FILE are both set; set one of them"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem() {
    let problem = bad(Binary::Chat, &[("REDIS_URL_FILE", "/nowhere/redis")]);
    assert!(
        problem.starts_with(
            "store.url (from REDIS_URL_FILE): cannot read the file \"/nowhere/redis\""
        ),
        "{problem}"
    );
}

#[test]
fn unknown_variables_are_named_with_the_nearest_name() {
    for (given, meant) in [
        (
            "CHATBOT__LLM__OPENIA__API_KEY",
            "CHATBOT__LLM__OPENAI__API_KEY?",
        ),
        ("CHATBOT__CHAT__LEASES", "CHATBOT__CHAT__LEASE?"),
        ("CHATBOT_LLM_MODEL", "CHATBOT__LLM__MODEL?"),
        ("chatbot__llm__model", "CHATBOT__LLM__MODEL?"),
        ("CHATBOT__STORE_URL", "CHATBOT__STORE__URL?"),
        ("CHATBOT__HF_TOKEN_FIL", "no setting has this name"),
        (
            "CHATBOT__LLM__OLAMA__API_KEY_FILE",
            "CHATBOT__LLM__OLLAMA__API_KEY_FILE?",
        ),
    ] {
        let problem = bad(Binary::Chat, &[(given, "canary")]);
        assert!(
            problem.starts_with(given) && problem.contains(meant),
            "{problem}"
        );
        assert!(!problem.contains("canary"), "{problem}");
    }
}

#[test]
fn variables_that_kubernetes_sets_by_itself_are_left_alone() {
    good(
        Binary::Chat,
        &[
            ("CHATBOT_SERVICE_HOST", "10.0.0.1"),
            ("CHATBOT_PORT_9002_TCP_ADDR", "10.0.0.1"),
        ],
    );
}

#[test]
fn unknown_keys_and_wrong_types_of_a_file_are_named_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dev.toml");
    let content = "[chat]\nlese = '10s'\nlease = 10\n[llm]\nollama = 'x'\nmodel = ['canary']\n[auth]\npassword_min = true\n[moon]\nphase = 1\n";
    fs::write(&path, content).unwrap();
    let path = path.to_str().unwrap();
    let problems = bad(
        Binary::Auth,
        &[
            ("CONFIG_DIR", folder.path().to_str().unwrap()),
            ("REDIS_URL", "redis://r"),
        ],
    );
    for line in [
        format!("chat.lese (from {path}): no setting has this name; did you mean chat.lease?"),
        format!("chat.lease (from {path}): 10 is not allowed; allowed: a duration with its unit"),
        format!("llm.ollama (from {path}): a value stands where the section [llm.ollama] belongs"),
        format!("llm.model (from {path}): [\"canary\"] is not allowed; allowed: a text"),
        format!(
            "auth.password_min (from {path}): true is not allowed; allowed: a whole number from 1 to 128"
        ),
        format!("moon (from {path}): no setting has this name"),
    ] {
        assert!(
            problems.lines().any(|found| found.starts_with(&line)),
            "{line}\nnot in\n{problems}"
        );
    }
    assert_eq!(problems.lines().count(), 6, "{problems}");
}

#[test]
fn every_problem_is_reported_at_once_on_a_line_each() {
    let given = [
        ("ENVIRONMENT", "prod"),
        ("CHATBOT__AUTH__LOGIN", "open"),
        ("CHATBOT__CHAT__LEASE", "0s"),
        ("CHATBOT__CHAT__ALLOWED_ORIGINS", "*"),
        ("CHATBOT__LLM__MODLE", "a\nb"),
        ("CHATBOT__LLM__PROVIDERS", "ollama,gpt\n4"),
        ("CHATBOT__SERVER__MAX_CONNECTIONS", "0"),
    ];
    let problems = load(Binary::Chat, &given).unwrap_err();
    let names: Vec<&str> = problems
        .0
        .iter()
        .map(|problem| problem.setting.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "CHATBOT__LLM__MODLE",
            "chat.allowed_origins",
            "chat.lease",
            "store.url",
            "llm.providers",
            "server.max_connections",
            "chat.auth_url",
            "auth.login"
        ]
    );
    assert_eq!(problems.to_string().lines().count(), names.len());
}

#[test]
fn wrong_values_are_refused_and_not_bent() {
    for (name, value) in [
        ("CHATBOT__AUTH__LISTEN", "9001"),
        ("CHATBOT__AUTH__LISTEN", "127.0.0.1:70000"),
        ("CHATBOT__AUTH__LOGIN", "Open"),
        ("CHATBOT__AUTH__ACCESS_TTL", "0s"),
        ("CHATBOT__AUTH__ACCESS_TTL", "-1s"),
        ("CHATBOT__AUTH__ACCESS_TTL", "15"),
        ("CHATBOT__AUTH__ACCESS_TTL", "99999999999d"),
        ("CHATBOT__AUTH__PASSWORD_MIN", "0"),
        ("CHATBOT__AUTH__PASSWORD_MIN", "129"),
        ("CHATBOT__CHAT__AUTH_URL", "auth:9001"),
        ("CHATBOT__CHAT__AUTH_URL", "ftp://auth"),
        ("CHATBOT__CHAT__AUTH_URL", "http://me:pw@auth:9001"),
        ("CHATBOT__CHAT__ALLOWED_ORIGINS", "https://*.example.com"),
        ("CHATBOT__CHAT__ALLOWED_ORIGINS", "https://example.com/path"),
        ("CHATBOT__CHAT__ALLOWED_ORIGINS", "null"),
        ("CHATBOT__CHAT__ALLOWED_ORIGINS", "example.com"),
        ("CHATBOT__CHAT__HISTORY_MESSAGES", "1.5"),
        ("CHATBOT__STORE__URL", "http://localhost"),
        ("CHATBOT__STORE__URL", "localhost:6379"),
        ("CHATBOT__STORE__URL", "redis://"),
        ("CHATBOT__STORE__URL", "redis://host:6379/zero"),
        ("CHATBOT__LLM__PROVIDERS", ""),
        ("CHATBOT__LLM__PROVIDERS", "ollama,ollama"),
        ("CHATBOT__LLM__OLLAMA__BASE_URL", "localhost:11434"),
        ("CHATBOT__LLM__OLLAMA__BASE_URL", "http://"),
        ("CHATBOT__LLM__OLLAMA__BASE_URL", "http://h/?key=1"),
        ("CHATBOT__LLM__OLLAMA__CONTEXT_WINDOW", "0"),
        ("CHATBOT__LLM__OPENAI__API_KEY", "two words"),
        ("CHATBOT__RATE_LIMIT__REQUESTS", "-1"),
        ("CHATBOT__RATE_LIMIT__TOKENS_PER_DAY", "0"),
        ("CHATBOT__SERVER__TRUSTED_PROXIES", "proxy"),
        ("CHATBOT__SERVER__TRUSTED_PROXIES", "10.0.0.0/33"),
        ("CHATBOT__SERVER__ALLOWED_HOSTS", "chat.example.com:443"),
        ("CHATBOT__SERVER__ALLOWED_HOSTS", "*"),
        ("CHATBOT__TELEMETRY__LOG_FORMAT", "xml"),
        ("CHATBOT__TELEMETRY__LOG_FILTER", "a=b=c"),
        ("OLLAMA_HOST", "tcp://host"),
    ] {
        let problems = load(Binary::Chat, &[(name, value)]).err();
        let problems = problems.unwrap_or_else(|| panic!("{name}={value} is taken"));
        assert_eq!(problems.0.len(), 1, "{name}={value}: {problems}");
        let problem = problems.to_string();
        assert!(
            problem.contains(&format!("(from {name})")) && problem.contains("allowed: "),
            "{problem}"
        );
    }
}

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
    assert!(
        !debug.contains("canary") && !printed.contains("canary"),
        "{debug}\n{printed}"
    );
    assert!(
        printed.contains("url = \"rediss://********@store:6380/2\"  # REDIS_URL\n"),
        "{printed}"
    );
    assert!(
        printed.contains("api_key = \"********\"  # HF_TOKEN\n"),
        "{printed}"
    );
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
    let again = good(
        Binary::Chat,
        &[("CONFIG_DIR", folder.path().to_str().unwrap())],
    );
    assert_eq!(
        format!("{again:?}"),
        format!("{:?}", good(Binary::Chat, &given))
    );
    assert!(
        printed.contains("lease = \"1500ms\"  # CHATBOT__CHAT__LEASE\n"),
        "{printed}"
    );
    assert!(
        printed.contains("issuer = \"chatbot\"\n"),
        "a default has no origin beside it: {printed}"
    );
}

#[test]
fn chatbot_keeps_its_own_store_in_every_environment_unless_told_otherwise() {
    for environment in ["dev", "stg", "prod"] {
        let settings = good(Binary::Chatbot, &[("ENVIRONMENT", environment)]);
        assert!(
            matches!(&settings.store.url, StoreUrl::Embedded(folder) if folder == Path::new("./data")),
            "{environment}"
        );
        assert!(settings.chat.auth_url.is_none());
        let told = good(
            Binary::Chatbot,
            &[("ENVIRONMENT", environment), ("REDIS_URL", "redis://r")],
        );
        assert_eq!(redis(&told), "redis://r");
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("stg.toml"), "[store]\nurl = 'memory:'\n").unwrap();
    let told = good(
        Binary::Chatbot,
        &[
            ("ENVIRONMENT", "stg"),
            ("CONFIG_DIR", folder.path().to_str().unwrap()),
        ],
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
        load(binary, given)
            .unwrap_err()
            .0
            .into_iter()
            .map(|problem| problem.setting)
            .collect()
    };
    assert_eq!(
        names(Binary::Auth, &[("ENVIRONMENT", "prod")]),
        ["store.url"]
    );
    assert_eq!(
        names(Binary::Chat, &[("ENVIRONMENT", "prod")]),
        ["store.url", "chat.auth_url"]
    );
    good(
        Binary::Auth,
        &[("ENVIRONMENT", "prod"), ("REDIS_URL", "redis://r")],
    );
    good(Binary::Chatbot, &[("ENVIRONMENT", "prod")]);
}

#[test]
fn production_refuses_open_login_and_easy_passwords_of_the_store() {
    let login = bad(
        Binary::Chatbot,
        &[("ENVIRONMENT", "prod"), ("CHATBOT__AUTH__LOGIN", "open")],
    );
    assert!(
        login.starts_with("auth.login (from CHATBOT__AUTH__LOGIN): open login is refused in prod"),
        "{login}"
    );
    for password in ["changeme", "canary", "aaaaaaaaaaaaaaaa"] {
        let url = format!("redis://:{password}@r");
        let problem = bad(
            Binary::Auth,
            &[("ENVIRONMENT", "prod"), ("REDIS_URL", &url)],
        );
        assert!(
            problem.starts_with("store.url (from REDIS_URL)") && !problem.contains(password),
            "{problem}"
        );
    }
    good(
        Binary::Auth,
        &[
            ("ENVIRONMENT", "prod"),
            ("REDIS_URL", "redis://:x8Jd0-qLw3mZ@r"),
        ],
    );
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
        &[
            listed,
            ("HF_TOKEN", "k"),
            ("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
        ],
    );
}

#[test]
fn two_listeners_of_a_process_cannot_share_a_port() {
    let problem = bad(
        Binary::Chatbot,
        &[("CHATBOT__CHAT__ADMIN_LISTEN", "127.0.0.1:9001")],
    );
    assert!(problem.starts_with("chat.admin_listen (from CHATBOT__CHAT__ADMIN_LISTEN): 127.0.0.1:9001 is also auth.listen"), "{problem}");
    good(
        Binary::Chat,
        &[("CHATBOT__CHAT__ADMIN_LISTEN", "127.0.0.1:9001")],
    );
    good(
        Binary::Chatbot,
        &[
            ("CHATBOT__CHAT__LISTEN", "127.0.0.1:0"),
            ("CHATBOT__AUTH__LISTEN", "127.0.0.1:0"),
        ],
    );
}

//! Every mistake is named: which setting, from where, what is wrong, what is allowed.

use std::fs;

use common::config::{Binary, Environment};

use super::{bad, good, load};

#[test]
fn an_environment_that_does_not_exist_is_named() {
    let problem = bad(Binary::Auth, &[("ENVIRONMENT", "production")]);
    assert_eq!(problem, "ENVIRONMENT: \"production\" is no environment; allowed: dev, stg, prod");
    assert_eq!(good(Binary::Auth, &[("ENVIRONMENT", "")]).environment, Environment::Dev);
}

#[test]
fn a_config_dir_without_any_file_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let problem = bad(Binary::Auth, &[("CONFIG_DIR", folder.path().to_str().unwrap())]);
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
    let problem = bad(Binary::Auth, &[("CONFIG_DIR", folder.path().to_str().unwrap())]);
    assert!(problem.contains(path.to_str().unwrap()) && problem.contains("line 3"), "{problem}");
    assert!(!problem.contains("canary"), "{problem}");
}

#[test]
fn a_number_of_a_file_that_no_number_type_holds_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dev.toml");
    fs::write(&path, "[llm.ollama]\nqueue = 99999999999999999999\n").unwrap();
    let folder = folder.path().to_str().unwrap();
    let problem = bad(Binary::Auth, &[("CONFIG_DIR", folder), ("REDIS_URL", "redis://r")]);
    assert_eq!(problem, format!("{}: it holds a number that is too large", path.display()));
}

#[test]
fn a_variable_beside_its_file_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    fs::write(&path, "canary-file").unwrap();
    let problem = bad(
        Binary::Chat,
        &[("HF_TOKEN", "canary-variable"), ("HF_TOKEN_FILE", path.to_str().unwrap())],
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
fn a_file_without_an_end_is_a_problem() {
    let problem = bad(Binary::Chat, &[("REDIS_URL_FILE", "/dev/zero")]);
    assert!(problem.contains("it has more than 65536 bytes"), "{problem}");
}

#[test]
fn unknown_variables_are_named_with_the_nearest_name() {
    for (given, meant) in [
        ("CHATBOT__LLM__OPENIA__API_KEY", "CHATBOT__LLM__OPENAI__API_KEY?"),
        ("CHATBOT__CHAT__LEASES", "CHATBOT__CHAT__LEASE?"),
        ("CHATBOT_LLM_MODEL", "CHATBOT__LLM__MODEL?"),
        ("chatbot__llm__model", "CHATBOT__LLM__MODEL?"),
        ("CHATBOT__STORE_URL", "CHATBOT__STORE__URL?"),
        ("CHATBOT__HF_TOKEN_FIL", "no setting has this name"),
        ("CHATBOT__NOPE__X", "no setting has this name"),
        ("CHATBOT__CHAT__NOPE", "no setting has this name"),
        ("CHATBOT__LLM__OLAMA__API_KEY_FILE", "CHATBOT__LLM__OLLAMA__API_KEY_FILE?"),
    ] {
        let problem = bad(Binary::Chat, &[(given, "canary")]);
        assert!(problem.starts_with(given) && problem.ends_with(meant), "{problem}");
        assert!(!problem.contains("canary"), "{problem}");
    }
}

#[test]
fn variables_that_kubernetes_sets_by_itself_are_left_alone() {
    good(
        Binary::Chat,
        &[("CHATBOT_SERVICE_HOST", "10.0.0.1"), ("CHATBOT_PORT_9002_TCP_ADDR", "10.0.0.1")],
    );
}

#[test]
fn unknown_keys_and_wrong_types_of_a_file_are_named_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dev.toml");
    let content = "[chat]\nlese = '10s'\nlease = 10\n[llm]\nollama = 'x'\nmodel = ['canary']\naliases = [{ name = 'a', model = 1.0 }]\n[auth]\npassword_min = true\n[moon]\nphase = 1\n";
    fs::write(&path, content).unwrap();
    let path = path.to_str().unwrap();
    let problems = bad(
        Binary::Auth,
        &[("CONFIG_DIR", folder.path().to_str().unwrap()), ("REDIS_URL", "redis://r")],
    );
    for line in [
        format!("chat.lese (from {path}): no setting has this name; did you mean chat.lease?"),
        format!("chat.lease (from {path}): 10 is not allowed; allowed: a duration with its unit"),
        format!("llm.ollama (from {path}): a value stands where the section [llm.ollama] belongs"),
        format!("llm.model (from {path}): [\"canary\"] is not allowed; allowed: a model's name"),
        format!("llm.aliases (from {path}): [{{ model = 1.0, name = \"a\" }}] is not allowed"),
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
    assert_eq!(problems.lines().count(), 7, "{problems}");
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
    let names: Vec<&str> = problems.0.iter().map(|problem| problem.setting.as_str()).collect();
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
        ("CHATBOT__CHAT__ALLOWED_ORIGINS", "file:///"),
        ("CHATBOT__CHAT__ALLOWED_ORIGINS", "app://obsidian.md/x"),
        ("CHATBOT__CHAT__ALLOWED_ORIGINS", "example.com"),
        ("CHATBOT__CHAT__HISTORY_MESSAGES", "1.5"),
        ("CHATBOT__CHAT__LEASE", "499ms"),
        ("CHATBOT__CHAT__MAX_SESSION_MESSAGES", "1"),
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
        ("CHATBOT__LLM__MODEL", "\"m\""),
        ("CHATBOT__LLM__MODEL", "m # the default"),
        ("CHATBOT__LLM__MODEL", "http://x/y"),
        ("CHATBOT__LLM__MODEL", "a b"),
        ("CHATBOT__LLM__OLLAMA__MODEL", "http://x"),
        ("CHATBOT__LLM__ALIASES", "p=m,q=http://x/y"),
        ("CHATBOT__AUTH__KEYS_DIR", "'./data/keys'"),
        ("CHATBOT__SERVER__ALLOWED_HOSTS", "\"chat.example.com\""),
        ("CHATBOT__STORE__URL", "\"redis://redis:6379/0\""),
        ("CHATBOT__LLM__OPENAI__API_KEY", "\"sk-canary\""),
        ("CHATBOT__STORE__URL", "redis://:a#b@redis:6379/0"),
        ("CHATBOT__STORE__URL", "redis://:a/b@redis:6379/0"),
        ("CHATBOT__STORE__URL", "redis://:a?b@redis:6379/0"),
        ("CHATBOT__LLM__OLLAMA__BASE_URL", "http://ollama:11434/api"),
        ("CHATBOT__LLM__OLLAMA__BASE_URL", "http://ollama:11434/v1/"),
        ("OLLAMA_HOST", "http://ollama:11434/v1"),
        ("OPENAI_BASE_URL", "http://vllm:8000/v1/chat/completions"),
        ("OPENAI_BASE_URL", "http://h/v1/models"),
        ("CHATBOT__LLM__OLLAMA__BASE_URL", "http://h/v1/models/"),
        ("CHATBOT__LLM__OLLAMA__BASE_URL", "http://h/api/tags"),
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
fn wrong_variables_of_opentelemetry_are_problems() {
    for (name, value, wrong) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "does not begin with http://"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "\"http://c:4318\"", "quotation marks"),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "grpc",
            "\"grpc\" is not allowed; allowed: one of http/protobuf",
        ),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "zstd", "allowed: one of gzip"),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "canary",
            "its value is not allowed; allowed: a list, each item name=value",
        ),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "allowed: a whole number"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem", "not supported"),
        ("OTEL_TRACES_SAMPLER", "sometimes", "allowed: one of always_on, "),
        ("OTEL_TRACES_SAMPLER_ARG", "2", "it is not from 0 to 1"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "allowed: one of otlp, none"),
        ("OTEL_SDK_DISABLED", "yes", "allowed: true or false"),
    ] {
        let problem = bad(Binary::Auth, &[(name, value)]);
        assert!(problem.starts_with(name) && problem.contains(wrong), "{problem}");
        assert!(!problem.contains("canary"), "{problem}");
        good(Binary::Auth, &[(name, "")]);
    }
    good(
        Binary::Chat,
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20YQ==,x-tenant=one"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_METRICS_EXPORTER", "none"),
        ],
    );
}

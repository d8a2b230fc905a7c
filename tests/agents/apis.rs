//! Every API with its frameworks, its SDK for Go, and its conformance suite.

use std::collections::BTreeSet;

use serde_json::Value;
use tokio::process::Command;

use crate::{CLAUDE, GPT, MODEL, Service, proxy, run, sources, succeed};

/// The APIs, as the programs in this folder call them, and the model that they ask.
const APIS: [(&str, &str); 4] =
    [("chat_completions", MODEL), ("responses", MODEL), ("messages", CLAUDE), ("ollama", MODEL)];

/// The suites, and which of their checks fail by intent: docs/clients.md says why.
const SUITES: [(&str, &str, &[&str]); 3] = [
    ("open-responses", GPT, &["error-handling"]),
    ("openai-chat", GPT, &["chat-error-handling"]),
    ("anthropic", CLAUDE, &[]),
];

/// Runs a program that checks one API after another.
async fn check_every_api(service: &Service, program: impl Fn() -> Command) {
    for (api, model) in APIS {
        let mut program = program();
        program
            .arg(api)
            .env("BASE_URL", service.url())
            .env("API_KEY", &service.key)
            .env("MODEL", model);
        succeed(&mut program).await;
    }
}

#[tokio::test]
async fn frameworks_get_what_they_need() {
    let service = Service::start().await;
    check_every_api(&service, || {
        let mut python = service.program("python/bin/python");
        python.arg(sources().join("frameworks.py"));
        python
    })
    .await;
}

#[tokio::test]
async fn gos_sdks_get_what_they_need() {
    let service = Service::start().await;
    let with_key = proxy::start(&service).await;
    check_every_api(&service, || {
        let mut clients = service.program("go_clients");
        clients.env("OLLAMA_HOST", with_key.to_string());
        clients
    })
    .await;
}

#[tokio::test]
async fn the_conformance_suites_pass_but_for_what_is_meant() {
    let service = Service::start().await;
    for (format, model, meant) in SUITES {
        let mut suite = service.program("python/bin/llm-comply");
        let url = format!("{}/v1", service.url());
        suite.args(["run", "-u", &url, "-k", &service.key, "-m", model]);
        let (_, said, complaints) = run(suite.args(["--format", format, "--json"])).await;
        let report: Value = serde_json::from_str(&said).unwrap_or_default();
        let results = report["results"].as_array().cloned().unwrap_or_default();
        let of = |status: &str| -> BTreeSet<_> {
            let found = results.iter().filter(|result| result["status"] == status);
            found.filter_map(|result| result["id"].as_str()).collect()
        };
        assert_eq!(of("failed"), meant.iter().copied().collect(), "{format}: {said}{complaints}");
        assert!(of("passed").len() > 7 && of("skipped").is_empty(), "{format}: {said}");
    }
}

//! The command lines of agents and of Ollama, run as people run them: one tool call, and its end.

use std::{fs, net::SocketAddr};

use serde_json::{Value, json};

use crate::{CLAUDE, MODEL, Service, proxy, run, succeed};

#[tokio::test]
async fn codex_runs_a_tool_and_ends() {
    let service = Service::start().await;
    let config = format!(
        "model = \"{MODEL}\"\nmodel_provider = \"chatbot\"\ncheck_for_update_on_startup = false\n\
         [model_providers.chatbot]\nname = \"chatbot\"\nbase_url = \"{}/v1\"\nwire_api = \"responses\"\nenv_key = \"CHATBOT_KEY\"\n\
         [analytics]\nenabled = false\n",
        service.url()
    );
    let settings = service.home.path().join("codex");
    fs::create_dir(&settings).unwrap();
    fs::write(settings.join("config.toml"), config).unwrap();
    let mut codex = service.program("node/node_modules/.bin/codex");
    codex
        .args(["exec", "--skip-git-repo-check", "--json"])
        .arg("--dangerously-bypass-approvals-and-sandbox")
        .args(["--disable", "plugins", "run it by exec_command"])
        .env("CODEX_HOME", &settings)
        .env("CHATBOT_KEY", &service.key);
    let said = succeed(&mut codex).await;
    assert!(said.contains("It ran.") && said.contains("\"turn.completed\""), "{said}");
}

#[tokio::test]
async fn claude_code_runs_a_tool_and_ends() {
    let service = Service::start().await;
    let mut claude =
        service.program("node/node_modules/@anthropic-ai/claude-code-linux-x64/claude");
    claude
        .args(["-p", "run it by Bash", "--model", CLAUDE, "--output-format", "json"])
        .arg("--dangerously-skip-permissions")
        .env("IS_SANDBOX", "1")
        .env("ANTHROPIC_BASE_URL", service.url())
        .env("ANTHROPIC_AUTH_TOKEN", &service.key)
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
        .env("DISABLE_TELEMETRY", "1")
        .env("DISABLE_ERROR_REPORTING", "1")
        .env("DISABLE_AUTOUPDATER", "1");
    let said = succeed(&mut claude).await;
    let result: Value = serde_json::from_str(said.lines().last().unwrap_or_default()).unwrap();
    assert_eq!(
        (&result["is_error"], &result["result"]),
        (&json!(false), &json!("It ran.")),
        "{said}"
    );
    assert_eq!(result["num_turns"], 2, "{said}");
    assert!(result["usage"]["input_tokens"].as_u64().unwrap() > 0, "{said}");
    let chats = service.app.model.chats();
    let prompts: Vec<_> = chats.iter().map(|chat| chat.messages()[0].clone()).collect();
    assert!(
        prompts.len() >= 2 && prompts.iter().all(|prompt| *prompt == prompts[0]),
        "the system prompt stays the same"
    );
}

#[tokio::test]
async fn opencode_runs_a_tool_and_ends() {
    let service = Service::start().await;
    let config = json!({
        "provider": {"chatbot": {
            "npm": "@ai-sdk/openai-compatible",
            "options": {"baseURL": format!("{}/v1", service.url()), "apiKey": service.key},
            "models": {MODEL: {}},
        }},
        "model": format!("chatbot/{MODEL}"),
        "permission": "allow",
    });
    fs::write(service.home.path().join("opencode.json"), config.to_string()).unwrap();
    let mut opencode = service.program("node/node_modules/opencode-linux-x64/bin/opencode");
    let said = succeed(opencode.args(["run", "run it by bash"])).await;
    assert!(said.contains("It ran."), "{said}");
}

/// What Ollama's command line says with these arguments, and whether it succeeds.
async fn ollama(service: &Service, host: SocketAddr, arguments: &[&str]) -> (bool, String) {
    let mut ollama = service.program("ollama");
    ollama.env("OLLAMA_HOST", host.to_string()).args(arguments);
    let (succeeded, said, complaints) = run(&mut ollama).await;
    (succeeded, format!("{said}{complaints}"))
}

#[tokio::test]
async fn ollamas_command_line_works_through_a_proxy_and_is_told_so_without() {
    let service = Service::start().await;
    let with_key = proxy::start(&service).await;
    for (arguments, word) in [
        (&["run", MODEL, "hello there"][..], "You said: hello there"),
        (&["list"], "embed-small"),
        (&["show", MODEL], "65536"),
        (&["ps"], MODEL),
        (&["stop", MODEL], ""),
        (&["--version"], "0.34.0"),
    ] {
        let (succeeded, said) = ollama(&service, with_key, arguments).await;
        assert!(succeeded && said.contains(word), "{arguments:?}: {said}");
    }
    for arguments in [&["rm", MODEL][..], &["cp", MODEL, "other"], &["pull", "other"]] {
        let (succeeded, said) = ollama(&service, with_key, arguments).await;
        assert!(!succeeded && said.contains("operator"), "{arguments:?}: {said}");
    }
    let (succeeded, said) = ollama(&service, service.app.chat(0), &["list"]).await;
    assert!(!succeeded && said.contains("proxy that adds the header"), "{said}");
}

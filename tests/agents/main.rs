//! Agents, frameworks, Go's SDKs and conformance suites as people run them, and a real model server, at pinned versions. They are
//! large to install, so that only scripts/test-full.sh runs them, with the feature `agents`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "tests tell of failures by panicking, and have processes of their own"
)]

mod apis;
mod collector;
mod command_lines;
mod llama_server;
mod proxy;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{Answer, Backend, PATIENCE, TestApp, eventually, within};
use tokio::process::Command;

/// How long installing may take, where it must.
const INSTALLING: Duration = Duration::from_secs(1800);

/// How long one program may take.
const RUNNING: Duration = Duration::from_secs(120);

/// What the only model that talks is called.
const MODEL: &str = "gemma3:1b";

/// A name by which Anthropic's clients believe to know what the model can do.
const CLAUDE: &str = "claude-sonnet-4-local";

/// The same for OpenAI's.
const GPT: &str = "gpt-5-local";

/// What the model server plays: what it answers to a message that contains the text.
fn answers() -> Vec<(&'static str, Answer)> {
    let call = |name: &str, arguments: Value| Answer::new().tool_call(name, arguments).done("stop");
    let command = "echo tool-$((6 * 7))";
    let bash = json!({"command": command, "description": "echo"});
    let animal = json!({"name": "cat", "legs": 4});
    vec![
        (
            "run it by exec_command",
            Answer::new()
                .thinking("I run it.")
                .tool_call("exec_command", json!({"cmd": command}))
                .done("stop"),
        ),
        ("run it by Bash", call("Bash", bash.clone())),
        ("run it by bash", call("bash", bash)),
        ("tool-42", Answer::tokens(["It ", "ran."])),
        ("What is the weather", call("get_weather", json!({"location": "San Francisco"}))),
        ("15 * 37", Answer::new().thinking("15 * 37 = 555.").token("555").done("stop")),
        ("Which animal", call("Animal", animal.clone())),
        ("as a schema", Answer::tokens([animal.to_string()])),
    ]
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("agents")
}

/// Where everything is installed: once, for all runs.
async fn installed() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("agents");
    let mut install = Command::new(sources().join("install.sh"));
    let install = install.arg(&folder).output();
    let output = within(INSTALLING, "the agents are installed", install).await;
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "not installed: {said}");
    folder
}

/// A program with nothing of our environment, and with no way out of this machine.
fn program(path: &Path, home: &Path) -> Command {
    let mut command = Command::new(path);
    command
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap())
        .env("HOME", home)
        .env("HTTPS_PROXY", "http://127.0.0.1:9")
        .env("HTTP_PROXY", "http://127.0.0.1:9")
        .env("NO_PROXY", "127.0.0.1,localhost")
        .current_dir(home)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs a program to its end: whether it succeeded, and what it wrote.
async fn run(command: &mut Command) -> (bool, String, String) {
    let output = within(RUNNING, "the program ends", command.output()).await;
    let output = output.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// Runs a program that succeeds, and returns what it wrote.
async fn succeed(command: &mut Command) -> String {
    let (succeeded, said, complaints) = run(command).await;
    assert!(succeeded, "{command:?}: {said}{complaints}");
    said
}

/// A service whose model server plays [`answers`], and what a program needs to be its client.
struct Service {
    app: TestApp,
    key: String,
    installed: PathBuf,
    home: TempDir,
}

impl Service {
    async fn start() -> Self {
        let installed = installed().await;
        let app = TestApp::builder(Backend::Memory)
            .set("llm.aliases", format!("{CLAUDE}={MODEL},{GPT}={MODEL}"))
            .set("llm.ollama.context_window", 65_536)
            .set("rate_limit.requests", 1000)
            .start()
            .await;
        app.model.have(&[(MODEL, 65_536), ("embed-small", 2048)]);
        for (text, answer) in answers() {
            app.model.answer_to(text, answer);
        }
        let alice = app.login("alice").await;
        eventually(PATIENCE, "both models are known", || async {
            let models = alice.get("/v1/models").await.expect(200);
            models.to_string().contains("embed-small").then_some(())
        })
        .await;
        let made = alice.at(app.auth()).post("/auth/keys", &json!({"name": "agent"})).await;
        let key = made.expect(201)["key"].as_str().unwrap().to_owned();
        Self { app, key, installed, home: TempDir::new().unwrap() }
    }

    fn url(&self) -> String {
        format!("http://{}", self.app.chat(0))
    }

    /// One of the installed programs.
    fn program(&self, path: &str) -> Command {
        program(&self.installed.join(path), self.home.path())
    }
}

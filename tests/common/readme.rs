//! The commands of README.md, as they stand there.

use std::{path::Path, process::Command, time::Duration};

use tests::{Answer, Backend, TestApp, within};

const MISSING: &str = "websocat is missing: scripts/tools.sh installs it into target/venv (tests/python/requirements.txt)";

/// What stands in the code blocks of the walk, one script a block.
fn walk() -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(file).unwrap();
    let walk = text.split("<!-- walk: begin -->").nth(1).unwrap();
    let walk = walk.split("<!-- walk: end -->").next().unwrap();
    let blocks = walk.split("```sh\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

/// Runs the walk against these services, and gives what it printed.
async fn run(app: &TestApp, script: String) -> String {
    let folder = tempfile::tempdir().unwrap();
    let script = script
        .replace("127.0.0.1:9001", &app.auth().to_string())
        .replace("127.0.0.1:9002", &app.chat(0).to_string())
        .replace("/tmp/", &format!("{}/", folder.path().display()));
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin");
    let path = format!("{}:{}", venv.display(), std::env::var("PATH").unwrap());
    let mut bash = Command::new("timeout");
    bash.args(["--signal=KILL", "100", "bash", "-eu", "-c", &script]);
    bash.env("PATH", path).current_dir(folder.path());
    let run = tokio::task::spawn_blocking(move || bash.output().unwrap());
    let run = within(Duration::from_secs(110), "the walk ends", run).await.unwrap();
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(!said.contains("websocat: command not found"), "{MISSING}");
    let printed = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success(), "{}: {said}\n{printed}", run.status);
    printed
}

#[tokio::test]
async fn the_walk_of_the_readme_works_as_it_stands_there() {
    let app = TestApp::start(Backend::Memory).await;
    app.model.usually(Answer::echo_every(Duration::from_millis(50)));
    let printed = run(&app, walk().concat()).await;
    assert!(!printed.contains("\"code\":\""), "a problem: {printed}");
    assert!(
        printed.lines().all(|line| !line.contains("}{")),
        "an answer without an end: {printed}"
    );
    for said in ["You said: Hello!", "\n202\n", "First words", "\"object\":\"chat.completion\""] {
        assert!(printed.contains(said), "{said} is missing in {printed}");
    }
}

/// A model that takes its time is answered whole on the socket, too.
#[tokio::test]
async fn the_socket_example_of_the_readme_cuts_no_slow_answer() {
    let app = TestApp::start(Backend::Memory).await;
    let slow = Answer::new().wait(Duration::from_secs(12)).token("at last").done("stop");
    app.model.answer_to("Hello!", slow);
    let blocks = walk();
    let examples: Vec<&String> = blocks.iter().filter(|block| block.contains("websocat")).collect();
    assert_eq!(examples.len(), 2, "{examples:?}");
    let script = format!("{}\n{}", blocks[0], examples[0]);
    let printed = run(&app, script).await;
    let last = printed.lines().last().unwrap();
    assert!(printed.contains("at last") && last.contains("\"type\":\"done\""), "{printed}");
}

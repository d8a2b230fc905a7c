//! What `/openapi.json` says of both services is true: made-up requests of every kind get documented answers alone.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tests::{Backend, TestApp, within};

const MISSING: &str = "schemathesis is missing: scripts/test.sh installs it into target/venv (tests/python/requirements.txt)";

#[tokio::test]
async fn made_up_requests_get_documented_answers() {
    let app = TestApp::start(Backend::Redis).await;
    for address in [app.auth(), app.chat(0)] {
        let url = format!("http://{address}/openapi.json");
        let auth = format!("http://{}", app.auth());
        let run = tokio::task::spawn_blocking(move || schemathesis(&url, &auth));
        let (passed, report) = within(Duration::from_secs(240), "schemathesis ends", run)
            .await
            .unwrap();
        assert!(passed, "{report}");
    }
}

/// Runs every check but the one that takes a refused value for a wrong document: a schema cannot say which token is good.
fn schemathesis(document: &str, auth: &str) -> (bool, String) {
    let folder = tempfile::TempDir::new().unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = Command::new("timeout")
        .args(["--signal=KILL", "200"])
        .arg(venv().join("schemathesis"))
        .args(["run", document, "--checks", "all"])
        .args(["--exclude-checks", "positive_data_acceptance"])
        .args(["--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", "10", "--seed", "1", "--no-shrink"])
        .args(["--request-timeout", "20", "--warnings", "off"])
        .env("AUTH_URL", auth)
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", tests.join("python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(folder.path())
        .output()
        .expect("`timeout` is there");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr)
    );
    (run.status.success(), text)
}

fn venv() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = root.join("target/venv/bin");
    assert!(folder.join("schemathesis").exists(), "{MISSING}");
    folder.canonicalize().unwrap()
}

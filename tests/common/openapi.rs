//! What `/openapi.json` says of both services is true: made-up requests of every kind get documented answers alone.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use tests::{Backend, PATIENCE, TestApp, eventually, within};

const MISSING: &str = "schemathesis is missing: scripts/test.sh installs it into target/venv (tests/python/requirements.txt)";

#[tokio::test]
async fn made_up_requests_get_documented_answers() {
    let app = TestApp::start(Backend::Redis).await;
    for address in [app.auth(), app.chat(0)] {
        let url = format!("http://{address}/openapi.json");
        let auth = format!("http://{}", app.auth());
        let run = tokio::task::spawn_blocking(move || schemathesis(&url, &auth));
        let (passed, report) =
            within(Duration::from_secs(240), "schemathesis ends", run).await.unwrap();
        assert!(passed, "{report}");
    }
}

/// Runs every check but two: one takes a refused value for a wrong document, but a schema cannot say which token is good; the other
/// accepts only 401 for a missing token, which is 403 on Ollama's API. `chat::routes` sends every route a missing token.
fn schemathesis(document: &str, auth: &str) -> (bool, String) {
    let folder = tempfile::TempDir::new().unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = Command::new("timeout")
        .args(["--signal=KILL", "200"])
        .arg(venv().join("schemathesis"))
        .args(["run", document, "--checks", "all"])
        .args(["--exclude-checks", "positive_data_acceptance,missing_required_header"])
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
    let text =
        format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    (run.status.success(), text)
}

fn venv() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = root.join("target/venv/bin");
    assert!(folder.join("schemathesis").exists(), "{MISSING}");
    folder.canonicalize().unwrap()
}

/// The example of a schema, of what it refers to, or of the first of its alternatives that has one.
fn example<'a>(document: &'a Value, schema: &'a Value) -> Option<&'a Value> {
    let own = [&schema["example"], &schema["examples"][0]];
    if let Some(own) = own.into_iter().find(|example| !example.is_null()) {
        return Some(own);
    }
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
        return example(document, &document["components"]["schemas"][name]);
    }
    let either = schema["oneOf"].as_array()?.iter();
    either.filter_map(|schema| example(document, schema)).next()
}

/// The path of an operation with the examples of its parameters; `None` where one has none.
fn filled(path: &str, operation: &Value) -> Option<String> {
    let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    let mut filled = path.to_owned();
    for parameter in parameters.iter().filter(|parameter| parameter["in"] == "path") {
        let name = format!("{{{}}}", parameter["name"].as_str().unwrap());
        let example = [&parameter["example"], &parameter["schema"]["example"]];
        let example = example.into_iter().find_map(Value::as_str)?;
        filled = filled.replace(&name, example);
    }
    Some(filled)
}

/// Whoever tries the API at `/docs` gets somewhere at the first try.
#[tokio::test]
async fn the_examples_of_chats_description_work() {
    let app = TestApp::start(Backend::Redis).await;
    let alice = app.login("alice").await;
    app.model.have(&[("gemma3:1b", 8192), ("nomic-embed-text", 2048)]);
    eventually(PATIENCE, "both models are known", || async {
        alice.get("/v1/models").await.text().contains("nomic").then_some(())
    })
    .await;
    let document = alice.get("/openapi.json").await.expect(200);
    let mut tried = Vec::new();
    let Value::Object(paths) = &document["paths"] else { panic!("no paths") };
    for method in ["post", "patch", "get", "delete"] {
        // The first message makes the session that the others have as their example.
        let (first, others): (Vec<_>, Vec<_>) =
            paths.iter().partition(|(path, _)| *path == "/chat/message");
        for (path, item) in first.into_iter().chain(others) {
            let operation = &item[method];
            let (Some(address), true) = (filled(path, operation), operation.is_object()) else {
                continue;
            };
            if path.starts_with("/auth") || path == "/chat/ws" {
                continue;
            }
            let upper = reqwest::Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let mut request = alice.request(upper, &address);
            let content = &operation["requestBody"]["content"]["application/json"];
            if content.is_object() {
                let own = Some(&content["example"]).filter(|example| !example.is_null());
                let body = own.or_else(|| example(&document, &content["schema"]));
                request = request.json(body.unwrap_or_else(|| panic!("{path} has no example")));
            }
            let reply = alice.fetch(request).await;
            assert!((200..300).contains(&reply.status), "{method} {path}: {}", reply.text());
            tried.push(format!("{method} {path}"));
        }
    }
    for called in ["post /chat/message", "patch /chat/sessions/{session_id}", "post /v1/responses"]
    {
        assert!(tried.iter().any(|it| it == called), "{called}: {tried:?}");
    }
}

/// A socket has no other description: its frames, both ways, and how it is closed.
#[tokio::test]
async fn the_socket_and_the_events_are_described() {
    let app = TestApp::start(Backend::Memory).await;
    let document = app.stranger().get("/openapi.json").await.expect(200);
    let socket = document["paths"]["/chat/ws"]["get"]["description"].as_str().unwrap();
    for word in ["auth", "cancel", "resume", "ref", "1008", "4401", "4429"] {
        assert!(socket.contains(word), "{word} is missing: {socket}");
    }
    let schemas = &document["components"]["schemas"];
    let frames = schemas["ServerFrame"].to_string();
    for kind in ["start", "queued", "token", "done", "error", "auth"] {
        assert!(frames.contains(&format!("\"{kind}\"")), "{kind} is missing: {frames}");
    }
    assert!(schemas["SendMessage"]["properties"]["user_id"].is_object());
}

/// OpenAPI demands it, and programs that read the document refuse one without.
#[tokio::test]
async fn every_response_is_described() {
    let app = TestApp::start(Backend::Redis).await;
    for address in [app.auth(), app.chat(0)] {
        let url = format!("http://{address}/openapi.json");
        let document: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        let paths = document["paths"].as_object().unwrap().values();
        let operations = paths.flat_map(|item| item.as_object().unwrap());
        for (method, operation) in operations.filter(|(_, it)| it["responses"].is_object()) {
            for (status, response) in operation["responses"].as_object().unwrap() {
                let description = response["description"].as_str().unwrap_or_default();
                assert!(!description.is_empty(), "{method} {} {status}", operation["operationId"]);
            }
        }
    }
}

//! No call of any route, new ones included, gets anywhere without a good token.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Backend, Client, TestApp};

on_both_stores!(
    every_route_refuses_every_bad_token,
    another_users_ids_open_nothing_on_any_route,
    the_document_lists_routes_of_every_api,
    the_documents_list_every_handler_that_is_described,
    methods_that_do_not_exist_are_405,
    a_route_that_is_missing_says_what_serves_instead,
);

const OPEN: [&str; 7] = [
    "/health",
    "/livez",
    "/readyz",
    "/openapi.json",
    "/docs",
    "/.well-known/jwks.json",
    "/auth/settings",
];

/// Calls of `auth` that need no token: they give one.
const LOGINS: [&str; 3] = ["/auth/login", "/auth/refresh", "/auth/register"];

/// Method and path of every call of the service's document that needs a token.
async fn guarded(client: &Client) -> Vec<(Method, String)> {
    let document = client.get("/openapi.json").await.expect(200);
    let mut routes = Vec::new();
    for (path, calls) in document["paths"].as_object().unwrap() {
        let open = OPEN.contains(&path.as_str())
            || LOGINS.contains(&path.as_str())
            || path == "/chat/ws"
            || path == "/";
        for method in calls.as_object().unwrap().keys().filter(|_| !open) {
            let Ok(method) = method.to_uppercase().parse::<Method>() else {
                continue;
            };
            if matches!(method.as_str(), "GET" | "POST" | "PUT" | "PATCH" | "DELETE") {
                routes.push((method, path.clone()));
            }
        }
    }
    routes
}

/// The path with that in the place of each parameter.
fn fill(path: &str, id: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { id } else { part });
    parts.collect::<Vec<_>>().join("/")
}

async fn every_route_refuses_every_bad_token(on: Backend) {
    let app = TestApp::start(on).await;
    let forge = app.forge(&app.login("alice").await).await;
    let stranger = app.stranger();
    let tokens: [(&str, String); 5] = [
        ("invalid_token", "garbage".to_owned()),
        ("invalid_token", forge.by_a_stranger()),
        ("invalid_token", forge.with("aud", "other")),
        ("token_expired", forge.with("exp", 1_000_000_000)),
        ("invalid_token", forge.with_header("typ", "rt+jwt")),
    ];
    for (service, least) in [(stranger.clone(), 14), (stranger.at_auth(), 7)] {
        let routes = guarded(&service).await;
        assert!(routes.len() >= least, "{routes:?}");
        for (method, path) in routes {
            let path = fill(&path, "x");
            refused(&service, &method, &path, "missing_token").await;
            for (code, token) in &tokens {
                refused(&service.with_token(token), &method, &path, code).await;
            }
        }
    }
}

async fn another_users_ids_open_nothing_on_any_route(on: Backend) {
    let app = TestApp::start(on).await;
    let (alice, bob) = (app.login("alice").await, app.login("bob").await);
    let sent = alice.send("work", "hello").await.expect(200);
    let made = alice.post("/auth/keys", &json!({"name": "mine"})).await.expect(201);
    let before = (alice.talk("work").await, alice.get("/chat/sessions/work").await.text());
    let mut tried = 0;
    for service in [bob.clone(), bob.at_auth()] {
        for (method, path) in guarded(&service).await {
            let id = match path.split('/').nth(2) {
                Some("sessions") => "work",
                Some("messages") => sent["message_id"].as_str().unwrap(),
                _ => made["id"].as_str().unwrap(),
            };
            let path = match path.contains('{') {
                true => fill(&path, id),
                false => continue,
            };
            let body = match method {
                Method::PATCH => json!({"title": "bob's"}),
                _ => json!({}),
            };
            let request = service.request(method.clone(), &path).json(&body);
            let reply = service.fetch(request).await;
            assert_eq!(reply.status, 404, "{method} {path}: {}", reply.text());
            tried += 1;
        }
    }
    assert!(tried >= 9, "{tried} routes have an id");
    let after = (alice.talk("work").await, alice.get("/chat/sessions/work").await.text());
    assert_eq!(before, after, "nothing has changed");
    let keys = alice.get("/auth/keys").await.expect(200);
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
}

async fn refused(client: &Client, method: &Method, path: &str, code: &str) {
    let reply = client.fetch(client.request(method.clone(), path).json(&json!({}))).await;
    if path.starts_with("/api/") {
        let status = if code == "missing_token" { 403 } else { 401 };
        assert_eq!(reply.status, status, "{method} {path}");
        assert!(reply.json()["error"].is_string(), "{method} {path}");
    } else if path.starts_with("/v1") {
        assert_eq!(
            (reply.status, &reply.json()["error"]["code"]),
            (401, &json!(code)),
            "{method} {path}"
        );
    } else {
        reply.problem(401, code);
    }
}

/// How often `#[utoipa::path(` stands in the Rust files below a folder.
fn described_handlers(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let count = |path: PathBuf| match path.is_dir() {
        true => described_handlers(&path),
        false => fs::read_to_string(path).unwrap_or_default().matches("#[utoipa::path(").count(),
    };
    entries.map(count).sum()
}

/// The tests above know the routes from the documents, whose lists are written by hand.
async fn the_documents_list_every_handler_that_is_described(on: Backend) {
    let app = TestApp::start(on).await;
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let shared = described_handlers(&crates.join("common/src"));
    for (service, address) in [("auth", app.auth()), ("chat", app.chat(0))] {
        let described = shared + described_handlers(&crates.join(service).join("src"));
        let document = Client::stranger(address, app.auth()).get("/openapi.json").await.expect(200);
        let paths = document["paths"].as_object().unwrap();
        let listed: usize = paths.values().map(|calls| calls.as_object().unwrap().len()).sum();
        assert_eq!(listed, described, "{service}");
        let calls = paths.values().flat_map(|calls| calls.as_object().unwrap().values());
        // Generated clients have a function of that name for each.
        let names: HashSet<_> = calls.map(|call| call["operationId"].as_str().unwrap()).collect();
        assert_eq!(names.len(), listed, "{service}: {names:?}");
    }
}

async fn the_document_lists_routes_of_every_api(on: Backend) {
    let app = TestApp::start(on).await;
    let document = app.stranger().get("/openapi.json").await.expect(200);
    for (path, method) in [
        ("/chat/message", "post"),
        ("/chat/ws", "get"),
        ("/chat/messages/{message_id}/stream", "get"),
        ("/chat/messages/{message_id}/cancel", "post"),
        ("/chat/sessions", "get"),
        ("/chat/sessions", "post"),
        ("/chat/usage", "get"),
        ("/chat/models", "get"),
        ("/v1/models", "get"),
        ("/v1/chat/completions", "post"),
        ("/v1/responses", "post"),
        ("/v1/embeddings", "post"),
        ("/v1/messages", "post"),
        ("/v1/messages/count_tokens", "post"),
        ("/api/chat", "post"),
        ("/api/generate", "post"),
        ("/api/tags", "get"),
        ("/health", "get"),
    ] {
        assert!(document["paths"][path][method].is_object(), "{method} {path}");
    }
    let text = document.to_string();
    for code in
        ["llm_failed", "session_busy", "store_unavailable", "idempotency_mismatch", "queue_full"]
    {
        assert!(text.contains(code), "{code}");
    }
    // Codes of the closed list that nothing has yet, for clients that know all of them.
    let listed = document["components"]["schemas"]["Code"]["enum"].as_array().unwrap();
    for code in ["account_disabled", "session_full", "not_last"] {
        assert!(listed.contains(&json!(code)), "{code}");
    }
    let docs = app.stranger().get("/docs").await;
    assert!(matches!(docs.status, 200 | 301..=308), "{}", docs.status);
    assert!(!docs.text().contains("https://"), "nothing is loaded from elsewhere");
}

async fn methods_that_do_not_exist_are_405(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    for path in ["/chat/message", "/chat/sessions", "/chat/usage", "/chat/models", "/health"] {
        for method in ["PUT", "TRACE", "BREW"] {
            let reply = alice.fetch(alice.request(method.parse().unwrap(), path)).await;
            let problem: Value = reply.problem(405, "method_not_allowed");
            assert!(!reply.header("allow").is_empty(), "{method} {path}: {problem}");
        }
    }
}

async fn a_route_that_is_missing_says_what_serves_instead(on: Backend) {
    let app = TestApp::start(on).await;
    // With and without a token: nothing is there for anybody.
    for client in [app.stranger(), app.login("alice").await] {
        for (path, named) in [
            ("/v1/completions", "POST /v1/chat/completions"),
            ("/v1/responses/compact", "POST /v1/chat/completions"),
            ("/v1/audio/speech", "POST /v1/chat/completions"),
            ("/v1/images/generations", "POST /v1/chat/completions"),
            ("/v1/assistants", "POST /chat/sessions"),
            ("/v1/threads/t/runs", "POST /chat/message"),
            ("/v1/files", "POST /v1/chat/completions"),
            ("/v1/batches", "POST /v1/chat/completions"),
            ("/v1/of_next_year", "GET /v1/models"),
        ] {
            let reply = client.post(path, &json!({})).await;
            assert_eq!(reply.status, 404, "{path}");
            let error = &reply.json()["error"];
            assert_eq!(error["code"], "not_found", "{path}: {error}");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(named), "{path}: {message}");
        }
        let reply = client.get("/chat/completions").await;
        reply.problem(404, "not_found");
        assert!(reply.json()["detail"].as_str().unwrap().contains("/v1"));
    }
}

//! What is said without a token: the settings, and examples that work.

use reqwest::Method;
use serde_json::{Value, json};

use crate::kit::{App, Tokens};

#[tokio::test]
async fn the_settings_say_how_to_get_in() {
    let closed = [("auth.login", "password"), ("auth.registration", "closed")];
    for (settings, expected) in [
        (&[][..], json!({"login": "open", "registration": "open"})),
        (&closed[..], json!({"login": "password", "registration": "closed"})),
    ] {
        let app = App::in_memory(settings).await;
        let answer = app.send(app.request(Method::GET, "/auth/settings")).await;
        assert_eq!(answer.header("cache-control"), Some("public, max-age=15"));
        assert_eq!(answer.ok(200), expected);
    }
}

/// The first example of an operation's request body.
fn example(document: &Value, method: &str, path: &str, name: Option<&str>) -> Value {
    let content = &document["paths"][path][method]["requestBody"]["content"]["application/json"];
    if let Some(name) = name {
        return content["examples"][name]["value"].clone();
    }
    let mut schema = &content["schema"];
    if let Some(either) = schema["oneOf"].as_array() {
        schema = either.iter().find(|it| it["$ref"].is_string()).unwrap();
    }
    let name = schema["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
    let schema = &document["components"]["schemas"][name];
    [&schema["example"], &schema["examples"][0]]
        .into_iter()
        .find(|it| !it.is_null())
        .unwrap_or_else(|| panic!("{method} {path} has no example"))
        .clone()
}

/// F35: whoever tries the API in /docs gets somewhere.
#[tokio::test]
async fn the_examples_of_the_description_work() {
    let app = App::in_memory(&[]).await;
    let document = app.send(app.request(Method::GET, "/openapi.json")).await;
    let document = document.ok(200);
    let body = |method: &str, path: &str| example(&document, method, path, None);
    let login = |name| example(&document, "post", "/auth/login", Some(name));
    app.post("/auth/login", login("open")).await.ok(200);
    app.post("/auth/register", body("post", "/auth/register")).await.ok(201);
    let answer = app.post("/auth/login", login("password")).await.ok(200);
    let bob = Tokens::of(&answer);
    let calls = [(Method::POST, "/auth/keys", 201), (Method::PUT, "/auth/password", 204)];
    for (method, path, status) in calls {
        let body = body(&method.as_str().to_lowercase(), path);
        let answer = app.call(method, path, &bob.access, body).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
    }
    app.post("/auth/register", json!({"user_id": "carol", "password": "quiet-harbour-71"}))
        .await
        .ok(201);
    let carol = app.logged_in("carol", Some("quiet-harbour-71")).await;
    let deletion = body("delete", "/auth/account");
    app.call(Method::DELETE, "/auth/account", &carol.access, deletion).await.ok(204);
}

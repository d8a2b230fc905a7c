//! The test harness: the real router on port 0, on the store in memory and on a Redis of its own.

use std::{collections::BTreeMap, path::PathBuf, process::Command, time::Duration};

use auth::services::operator::Operator;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use common::{
    clock::{Clock, now_ms},
    config::{Binary, Durability, Loaded},
    http::{ConnectionLimits, metrics, serve},
    identity::Authenticator,
    shutdown::Shutdown,
    store::Store,
};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use test_redis::RedisServer;

/// A password that nobody else would choose.
pub const PASSWORD: &str = "quiet-harbour-71";

/// A running `auth`.
pub struct App {
    pub url: String,
    pub client: Client,
    pub store: Store,
    pub operator: Operator,
    pub authenticator: Authenticator,
    /// The store's clock: it stands still in memory.
    clock: Clock,
    shutdown: Shutdown,
    folder: TempDir,
    redis: Option<RedisServer>,
}

/// An answer that was read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
    pub body: Value,
}

impl Answer {
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or("")
    }

    /// Fails the test unless this is a refusal with that status and code.
    #[track_caller]
    pub fn is(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code()), (status, code), "{self:?}");
    }

    #[track_caller]
    pub fn ok(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.body
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl App {
    /// One on each store, with these settings (`auth.login`, `password`).
    pub async fn on_every_store(settings: &[(&str, &str)]) -> Vec<Self> {
        vec![Self::start(None, settings).await, Self::on_redis(settings).await]
    }

    /// One on a Redis of its own, which can be frozen.
    pub async fn on_redis(settings: &[(&str, &str)]) -> Self {
        Self::start(Some(RedisServer::start(&[])), settings).await
    }

    /// One in memory.
    pub async fn in_memory(settings: &[(&str, &str)]) -> Self {
        Self::start(None, settings).await
    }

    /// A second instance beside this one: the same Redis, the same keys.
    pub async fn beside(&self, settings: &[(&str, &str)]) -> Self {
        let url = self.redis.as_ref().unwrap().url();
        let keys = self.keys_dir().display().to_string();
        let mut settings = settings.to_vec();
        settings.extend([("store.url", url.as_str()), ("auth.keys_dir", keys.as_str())]);
        Self::start(None, &settings).await
    }

    async fn start(redis: Option<RedisServer>, changes: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let shutdown = Shutdown::new();
        let url = redis.as_ref().map_or("memory:".to_owned(), RedisServer::url);
        let mut variables = BTreeMap::from([
            ("CHATBOT__STORE__URL".to_owned(), url),
            ("CHATBOT__AUTH__KEYS_DIR".to_owned(), folder.path().display().to_string()),
            ("CHATBOT__RATE_LIMIT__REQUESTS".to_owned(), "100000".to_owned()),
        ]);
        for (name, value) in changes {
            let name = format!("CHATBOT__{}", name.to_uppercase().replace('.', "__"));
            variables.insert(name, (*value).to_owned());
        }
        let binary = if redis.is_some() || changes.iter().any(|(name, _)| *name == "store.url") {
            Binary::Auth
        } else {
            Binary::Chatbot
        };
        let settings = Loaded::load(binary, &variables).unwrap().settings;
        let clock = match binary {
            Binary::Chatbot => Clock::manual(now_ms()),
            _ => Clock::system(),
        };
        let store =
            Store::open_with(&settings.store.url, Durability::Local, clock.clone(), &shutdown)
                .unwrap();
        let service = auth::build(&settings, store.clone(), metrics::install(&shutdown), &shutdown)
            .await
            .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        shutdown.spawn(serve(
            listener,
            service.public,
            ConnectionLimits::from(&settings.server),
            shutdown.clone(),
        ));
        let client = common::clients::http::auth().unwrap();
        let app = Self {
            url,
            client,
            operator: Operator::new(store.clone(), settings.auth.password_min),
            store,
            clock,
            authenticator: service.authenticator,
            shutdown,
            folder,
            redis,
        };
        for _ in 0..200 {
            if app.store.ping().await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        app
    }

    /// Lets that much time pass: at once in memory.
    pub async fn wait(&self, time: Duration) {
        self.clock.advance(time);
        if self.store.is_shared() {
            tokio::time::sleep(time).await;
        }
    }

    pub fn freeze(&self) {
        self.redis.as_ref().unwrap().freeze();
    }

    pub fn thaw(&self) {
        self.redis.as_ref().unwrap().thaw();
    }

    /// Everything that Redis holds, as text.
    pub fn dump(&self) -> String {
        let url = &self.redis.as_ref().unwrap().url();
        let ask = |arguments: &[&str]| {
            let out = Command::new("redis-cli").args(["-u", url]).args(arguments).output().unwrap();
            String::from_utf8_lossy(&out.stdout).into_owned()
        };
        let mut dump = String::new();
        for key in ask(&["--scan"]).lines() {
            dump.push_str(key);
            for command in ["GET", "HGETALL"] {
                dump.push_str(&ask(&[command, key]));
            }
            dump.push_str(&ask(&["ZRANGE", key, "0", "-1"]));
        }
        dump
    }

    pub fn keys_dir(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status, headers, text, body }
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    /// A call with a bearer credential and, unless it is null, a body.
    pub async fn call(&self, method: Method, path: &str, bearer: &str, body: Value) -> Answer {
        let request =
            self.request(method, path).header("authorization", format!("Bearer {bearer}"));
        self.send(if body.is_null() { request } else { request.json(&body) }).await
    }

    pub async fn validate(&self, bearer: &str) -> Answer {
        self.call(Method::GET, "/auth/validate", bearer, Value::Null).await
    }

    pub async fn login(&self, user: &str, password: Option<&str>) -> Answer {
        let body = match password {
            Some(password) => json!({"user_id": user, "password": password}),
            None => json!({"user_id": user}),
        };
        self.post("/auth/login", body).await
    }

    pub async fn logged_in(&self, user: &str, password: Option<&str>) -> Tokens {
        Tokens::of(&self.login(user, password).await.ok(200))
    }

    pub async fn register(&self, user: &str) -> Answer {
        self.post("/auth/register", json!({"user_id": user, "password": PASSWORD})).await
    }

    pub async fn refresh(&self, token: &str) -> Answer {
        self.post("/auth/refresh", json!({"refresh_token": token})).await
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

/// The tokens of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    pub access: String,
    pub refresh: String,
}

impl Tokens {
    pub fn of(body: &Value) -> Self {
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        Self { access: text("access_token"), refresh: text("refresh_token") }
    }

    pub fn claims(&self) -> Value {
        part(&self.access, 1)
    }
}

/// A part of a JWT.
pub fn part(token: &str, i: usize) -> Value {
    let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(i).unwrap()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

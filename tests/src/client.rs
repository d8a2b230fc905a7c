//! A user with a token: REST calls in one line each, streams, and sockets.

use std::{net::SocketAddr, time::Duration};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{EventStream, Reply, Socket};

/// Somebody who calls one instance of `chat` (and, through it, `auth`).
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    chat: SocketAddr,
    auth: SocketAddr,
    token: Option<String>,
    user: String,
}

impl Client {
    /// Somebody without a token.
    pub fn stranger(chat: SocketAddr, auth: SocketAddr) -> Self {
        Self { http: builder(), chat, auth, token: None, user: String::new() }
    }

    /// The same caller with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), http: builder(), ..self.clone() }
    }

    #[must_use]
    pub fn at(&self, chat: SocketAddr) -> Self {
        Self { chat, http: builder(), ..self.clone() }
    }

    /// The same token, asking `auth` itself.
    #[must_use]
    pub fn at_auth(&self) -> Self {
        self.at(self.auth)
    }

    /// Logs in with the user id alone.
    pub async fn log_in(&self, user: &str) -> Self {
        let answer =
            self.at_auth().post("/auth/login", &json!({"user_id": user})).await.expect(200);
        let token = answer["access_token"].as_str().expect("an access token").to_owned();
        Self { user: user.to_owned(), ..self.with_token(&token) }
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    /// The token.
    pub fn token(&self) -> &str {
        self.token.as_deref().unwrap_or_default()
    }

    pub fn address(&self) -> SocketAddr {
        self.chat
    }

    /// A request with the token, for what the other methods do not offer.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("http://{}{path}", self.chat));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request and reads the answer to its end.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn fetch(&self, request: RequestBuilder) -> Reply {
        Reply::read(request.send().await.expect("an answer")).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.fetch(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.fetch(self.request(Method::DELETE, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.fetch(self.request(Method::POST, path).json(body)).await
    }

    /// POST without a body.
    pub async fn post_empty(&self, path: &str) -> Reply {
        self.fetch(self.request(Method::POST, path)).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Reply {
        self.fetch(self.request(Method::PATCH, path).json(body)).await
    }

    /// POST of these bytes as JSON, whatever they are.
    pub async fn post_bytes(&self, path: &str, bytes: impl Into<Vec<u8>>) -> Reply {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        self.fetch(request.body(bytes.into())).await
    }

    /// Sends a message and gives the answer, whatever it is.
    pub async fn send(&self, session: &str, message: &str) -> Reply {
        self.post("/chat/message", &json!({"session_id": session, "message": message})).await
    }

    /// Sends a message with an `Idempotency-Key`.
    pub async fn send_once(&self, key: &str, body: &Value) -> Reply {
        let request = self.request(Method::POST, "/chat/message").header("idempotency-key", key);
        self.fetch(request.json(body)).await
    }

    /// Sends a message and gives the model's words.
    ///
    /// # Panics
    /// When it is refused or fails.
    pub async fn say(&self, session: &str, message: &str) -> String {
        self.send(session, message).await.expect(200)["reply"].as_str().expect("a reply").to_owned()
    }

    /// Sends a message and gives the stream of its events.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn stream(&self, session: &str, message: &str) -> EventStream {
        self.stream_body(&json!({"session_id": session, "message": message})).await
    }

    /// The same with a body of its own.
    pub async fn stream_body(&self, body: &Value) -> EventStream {
        self.open(self.request(Method::POST, "/chat/message?stream=true").json(body)).await
    }

    /// Any request that is answered by a stream of events.
    pub async fn open(&self, request: RequestBuilder) -> EventStream {
        EventStream::open(request.send().await.expect("an answer")).await
    }

    /// The events of an answer after that one.
    pub async fn resume(&self, message_id: &str, after: u64) -> EventStream {
        let path = format!("/chat/messages/{message_id}/stream");
        self.open(self.request(Method::GET, &path).header("last-event-id", after)).await
    }

    pub async fn cancel(&self, message_id: &str) -> Reply {
        self.post_empty(&format!("/chat/messages/{message_id}/cancel")).await
    }

    /// All messages of a session, oldest first, page by page.
    ///
    /// # Panics
    /// When the session is not there.
    pub async fn history(&self, session: &str) -> Vec<Value> {
        let (mut messages, mut before) = (Vec::new(), String::new());
        loop {
            let page = self
                .get(&format!("/chat/sessions/{session}/messages?limit=500{before}"))
                .await
                .expect(200);
            let mut older = page["messages"].as_array().expect("messages").clone();
            older.append(&mut messages);
            messages = older;
            match page["next_cursor"].as_str() {
                Some(cursor) => before = format!("&before={cursor}"),
                None => return messages,
            }
        }
    }

    /// Role and content of all messages of a session.
    pub async fn talk(&self, session: &str) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.history(session)
            .await
            .iter()
            .map(|m| (text(&m["role"]), text(&m["content"])))
            .collect()
    }

    /// Opens a WebSocket with the token in the `Authorization` header (none without a token).
    pub async fn socket(&self) -> Socket {
        Socket::open(self.chat, self.token.as_deref()).await
    }
}

/// A client that follows nothing, reuses connections, and gives up after a minute.
fn builder() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    client
        .connect_timeout(Duration::from_secs(5))
        .read_timeout(Duration::from_secs(60))
        .build()
        .unwrap()
}

//! A listener on port 0 with a router that has something of everything, and the clients that try it.

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use common::{
    http::{ConnectionLimits, HostPolicy, Layers, serve, wrap},
    shutdown::Shutdown,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::routes::routes;

/// Longer than anything here should take.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub struct Site {
    pub address: SocketAddr,
    pub shutdown: Shutdown,
}

impl Site {
    pub async fn open() -> Self {
        Self::with(|_| {}, ConnectionLimits::default()).await
    }

    pub async fn with_limits(limits: ConnectionLimits) -> Self {
        Self::with(|_| {}, limits).await
    }

    pub async fn with_layers(change: impl FnOnce(&mut Layers)) -> Self {
        Self::with(change, ConnectionLimits::default()).await
    }

    pub async fn with(change: impl FnOnce(&mut Layers), limits: ConnectionLimits) -> Self {
        let mut layers = Layers::new("test", HostPolicy::any(), &server_settings());
        change(&mut layers);
        Self::serving(wrap(routes(), layers), limits, Shutdown::new()).await
    }

    pub async fn serving(router: Router, limits: ConnectionLimits, shutdown: Shutdown) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = serve(listener, router, limits, shutdown.clone());
        drop(shutdown.spawn(serving));
        Self { address, shutdown }
    }

    pub async fn connect(&self) -> Raw {
        Raw(TcpStream::connect(self.address).await.unwrap())
    }

    /// Sends one request as it stands and reads the answer up to the connection's end.
    pub async fn say(&self, request: &str) -> Answer {
        let mut raw = self.connect().await;
        raw.send(request.as_bytes()).await;
        raw.answer_then_end().await
    }

    /// A request head with `Connection: close`, and what comes back.
    pub async fn ask(&self, line: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        self.say(&(request + "\r\n")).await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.post_as(path, Some("application/json"), body.as_bytes()).await
    }

    pub async fn post_as(&self, path: &str, kind: Option<&str>, body: &[u8]) -> Answer {
        let kind = kind.map(|kind| format!("content-type: {kind}\r\n")).unwrap_or_default();
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{kind}content-length: {length}\r\n\r\n"
        );
        let mut raw = self.connect().await;
        raw.send(head.as_bytes()).await;
        raw.send(body).await;
        raw.answer_then_end().await
    }
}

/// A client that speaks bytes.
pub struct Raw(pub TcpStream);

impl Raw {
    pub async fn send(&mut self, bytes: &[u8]) {
        // The other side may have answered and gone already; what it said is what counts.
        let _sent = self.0.write_all(bytes).await;
    }

    /// Reads to the end of the connection; an abrupt end is one too.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buffer = [0; 16 * 1024];
        loop {
            match timeout(PATIENCE, self.0.read(&mut buffer))
                .await
                .expect("the connection stays open")
            {
                Ok(0) | Err(_) => return all,
                Ok(n) => all.extend_from_slice(&buffer[..n]),
            }
        }
    }

    pub async fn answer_then_end(&mut self) -> Answer {
        Answer::parse(&self.read_to_end().await)
    }

    /// Reads one answer that has a `Content-Length`, leaving the connection open.
    pub async fn answer(&mut self) -> Answer {
        let mut all = Vec::new();
        loop {
            let answer = Answer::parse(&all);
            let length =
                answer.header("content-length").and_then(|text| text.parse::<usize>().ok());
            if length.is_some_and(|length| answer.body.len() >= length) {
                return answer;
            }
            let mut buffer = [0; 4096];
            let n = timeout(PATIENCE, self.0.read(&mut buffer)).await.expect("no answer").unwrap();
            assert!(n > 0, "the connection ended in mid-answer: {}", String::from_utf8_lossy(&all));
            all.extend_from_slice(&buffer[..n]);
        }
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let status =
            lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(": "));
        Self {
            status: status.unwrap_or(0),
            headers: headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect(),
            body: body.to_owned(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// Checks that this is a whole problem object with that code.
    pub fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert_eq!(problem["code"], code, "{self:?}");
        assert_eq!(problem["type"], "about:blank");
        assert!(problem["title"].is_string() && problem["detail"].is_string());
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"));
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(self.header("cache-control"), Some("no-store"));
    }

    /// Checks for a 422 that points there.
    pub fn points_at(&self, pointer: &str) {
        self.is_problem(422, "validation_failed");
        assert_eq!(self.json()["errors"][0]["pointer"], pointer, "{self:?}");
    }
}

pub fn server_settings() -> common::config::Server {
    common::config::Server {
        max_connections: 10_000,
        max_connections_per_address: 100,
        trusted_proxies: Vec::new(),
        allowed_hosts: Vec::new(),
        drain_timeout: Duration::from_secs(30),
        inference_body_limit: 32 << 20,
        body_memory: 256 << 20,
    }
}

//! A fake model server that sends scripted bytes.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use common::shutdown::Shutdown;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use url::Url;

use crate::support::TEST_TIMEOUT;

/// One thing that the server does on a connection.
#[derive(Clone)]
pub enum Action {
    Send(Vec<u8>),
    /// Each byte in a write of its own.
    Dribble(Vec<u8>),
    Wait(Duration),
    /// Holds the connection until the client closes it, which is counted.
    Hold,
    /// Sends over and over until the client closes it.
    Flood(Vec<u8>),
    /// Ends the connection cleanly.
    Close,
    /// Ends the connection with a reset.
    Reset,
}

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    pub head: String,
    pub body: Value,
    /// Whether it is the first one on its connection.
    pub is_first: bool,
}

type Script = dyn Fn(&Request, usize) -> Vec<Action> + Send + Sync;

/// A model server. Dropping it closes its listener and its connections.
pub struct Server {
    pub url: Url,
    seen: Arc<Seen>,
    stop: Shutdown,
}

struct Seen {
    requests: Mutex<Vec<Request>>,
    arrived: watch::Sender<usize>,
    closed: watch::Sender<usize>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

impl Server {
    /// A server that does for each request what the script says, given how many came for that path before.
    pub async fn start(
        script: impl Fn(&Request, usize) -> Vec<Action> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, script)
    }

    pub fn on(
        listener: TcpListener,
        script: impl Fn(&Request, usize) -> Vec<Action> + Send + Sync + 'static,
    ) -> Self {
        let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let seen = Seen {
            requests: Mutex::default(),
            arrived: watch::Sender::new(0),
            closed: watch::Sender::new(0),
        };
        let (seen, stop, script) = (Arc::new(seen), Shutdown::new(), Arc::new(script));
        let (log, stopped) = (seen.clone(), stop.clone());
        stop.spawn(async move {
            let accepting = async {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    stream.set_nodelay(true).unwrap();
                    let (log, script, ended) = (log.clone(), script.clone(), stopped.clone());
                    stopped.spawn(async move {
                        tokio::select! {
                            () = ended.stopping() => {}
                            _ = converse(stream, &log, &*script) => {}
                        }
                    });
                }
            };
            tokio::select! {
                () = stopped.stopping() => {}
                () = accepting => {}
            }
        });
        Self { url, seen, stop }
    }

    /// A server with the model `tiny` that does this for its chats: Ollama's and OpenAI's paths alike.
    pub async fn chatting(chat: impl Fn(usize) -> Vec<Action> + Send + Sync + 'static) -> Self {
        Self::start(move |request, before| match request.path.as_str() {
            "/api/chat" | "/v1/chat/completions" => chat(before),
            _ => model_list(request),
        })
        .await
    }

    /// The bodies that were sent to the chat paths so far.
    pub fn chats(&self) -> Vec<Request> {
        let requests = self.seen.requests.lock().unwrap();
        requests.iter().filter(|request| request.path.contains("chat")).cloned().collect()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// Waits until so many requests have arrived for the chat paths.
    pub async fn got_chats(&self, count: usize) {
        let mut arrived = self.seen.arrived.subscribe();
        let enough = arrived.wait_for(|_| self.chats().len() >= count);
        tokio::time::timeout(TEST_TIMEOUT, enough).await.expect("the request arrives").unwrap();
    }

    /// Waits until clients have closed so many connections that were held.
    pub async fn saw_closed(&self, count: usize, within: Duration) {
        let mut closed = self.seen.closed.subscribe();
        tokio::time::timeout(within, closed.wait_for(|closed| *closed >= count))
            .await
            .expect("it is closed in time")
            .unwrap();
    }
}

async fn converse(mut stream: TcpStream, seen: &Seen, script: &Script) -> std::io::Result<()> {
    let mut is_first = true;
    while let Some(mut request) = read_request(&mut stream).await? {
        request.is_first = std::mem::take(&mut is_first);
        let before = {
            let mut requests = seen.requests.lock().unwrap();
            requests.push(request.clone());
            requests.iter().filter(|other| other.path == request.path).count() - 1
        };
        seen.arrived.send_modify(|count| *count += 1);
        for act in script(&request, before) {
            if !perform(act, &mut stream, seen).await? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Whether the connection goes on.
async fn perform(act: Action, stream: &mut TcpStream, seen: &Seen) -> std::io::Result<bool> {
    match act {
        Action::Send(bytes) => stream.write_all(&bytes).await?,
        Action::Dribble(bytes) => {
            for byte in bytes {
                stream.write_all(&[byte]).await?;
                tokio::task::yield_now().await;
            }
        }
        Action::Wait(time) => tokio::time::sleep(time).await,
        Action::Hold => {
            while !matches!(stream.read(&mut [0; 64]).await, Ok(0) | Err(_)) {}
            seen.closed.send_modify(|count| *count += 1);
            return Ok(false);
        }
        Action::Flood(bytes) => {
            while stream.write_all(&bytes).await.is_ok() {}
            seen.closed.send_modify(|count| *count += 1);
            return Ok(false);
        }
        Action::Close => {
            stream.shutdown().await?;
            while !matches!(stream.read(&mut [0; 64]).await, Ok(0) | Err(_)) {}
            return Ok(false);
        }
        Action::Reset => {
            stream.set_zero_linger()?;
            return Ok(false);
        }
    }
    Ok(true)
}

async fn read_request(stream: &mut TcpStream) -> std::io::Result<Option<Request>> {
    let mut bytes = Vec::new();
    let split = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&bytes[..split]).into_owned();
    let length = head
        .to_lowercase()
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = bytes.split_off(split);
    while body.len() < length.unwrap_or(0) {
        if stream.read_buf(&mut body).await? == 0 {
            return Ok(None);
        }
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    Ok(Some(Request {
        path,
        head,
        body: serde_json::from_slice(&body).unwrap_or_default(),
        is_first: false,
    }))
}

/// An answer with a body of known length.
pub fn response(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// The head of a stream, and pieces of it.
pub fn stream_head() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
        .to_vec()
}

pub fn piece(body: &str) -> Vec<u8> {
    format!("{:x}\r\n{body}\r\n", body.len()).into_bytes()
}

/// One line of Ollama with that text.
pub fn line(text: &str) -> String {
    format!(
        "{}\n",
        json!({ "model": "tiny", "message": { "role": "assistant", "content": text }, "done": false })
    )
}

pub const DONE: &str = "{\"message\":{\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":3,\"eval_count\":2}\n";

/// A whole good answer of Ollama.
pub fn hello() -> Vec<Action> {
    let body = format!("{}{}{DONE}", line("Hel"), line("lo"));
    vec![Action::Send([stream_head(), piece(&body), piece("")].concat())]
}

/// A bad status.
pub fn status(status: &str, headers: &str) -> Vec<Action> {
    vec![Action::Send(response(status, headers, "{\"error\":\"secret words of the server\"}"))]
}

pub fn model_list(request: &Request) -> Vec<Action> {
    let body = match request.path.as_str() {
        "/api/tags" => {
            json!({ "models": [{ "name": "tiny:latest", "digest": "d", "details": { "context_length": 4096 } }] })
        }
        "/v1/models" => json!({ "data": [{ "id": "tiny", "max_model_len": 2048 }] }),
        _ => {
            return vec![Action::Send(response("404 Not Found", "", "404 page not found"))];
        }
    };
    vec![Action::Send(response("200 OK", "", &body.to_string()))]
}

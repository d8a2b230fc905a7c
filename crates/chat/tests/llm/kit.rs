//! A model server that does what a story says, byte by byte, and the verbs to ask through it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use chat::{
    adapters::{Ask, ModelError, PromptMessage, ToolCall},
    models::{FinishReason, Usage},
    service::llm::{Answering, Llm, Progress, Prompt},
};
use common::{
    config::{self, Provider, ProviderKind},
    identity::UserId,
    shutdown::Shutdown,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use url::Url;

/// The most that a test waits for anything.
pub const SOON: Duration = Duration::from_secs(10);

/// One thing that the server does on a connection.
#[derive(Clone)]
pub enum Act {
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
}

type Script = dyn Fn(&Request, usize) -> Vec<Act> + Send + Sync;

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
        script: impl Fn(&Request, usize) -> Vec<Act> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, script)
    }

    pub fn on(
        listener: TcpListener,
        script: impl Fn(&Request, usize) -> Vec<Act> + Send + Sync + 'static,
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
    pub async fn chatting(chat: impl Fn(usize) -> Vec<Act> + Send + Sync + 'static) -> Self {
        Self::start(move |request, before| match request.path.as_str() {
            "/api/chat" | "/v1/chat/completions" => chat(before),
            _ => models(request),
        })
        .await
    }

    /// The bodies that were sent to the chat paths so far.
    pub fn chats(&self) -> Vec<Request> {
        let requests = self.seen.requests.lock().unwrap();
        requests
            .iter()
            .filter(|request| request.path.contains("chat"))
            .cloned()
            .collect()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// Waits until so many requests have arrived for the chat paths.
    pub async fn got_chats(&self, count: usize) {
        let mut arrived = self.seen.arrived.subscribe();
        let enough = arrived.wait_for(|_| self.chats().len() >= count);
        tokio::time::timeout(SOON, enough)
            .await
            .expect("the request arrives")
            .unwrap();
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
    while let Some(request) = read_request(&mut stream).await? {
        let before = {
            let mut requests = seen.requests.lock().unwrap();
            requests.push(request.clone());
            requests
                .iter()
                .filter(|other| other.path == request.path)
                .count()
                - 1
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
async fn perform(act: Act, stream: &mut TcpStream, seen: &Seen) -> std::io::Result<bool> {
    match act {
        Act::Send(bytes) => stream.write_all(&bytes).await?,
        Act::Dribble(bytes) => {
            for byte in bytes {
                stream.write_all(&[byte]).await?;
                tokio::task::yield_now().await;
            }
        }
        Act::Wait(time) => tokio::time::sleep(time).await,
        Act::Hold => {
            while !matches!(stream.read(&mut [0; 64]).await, Ok(0) | Err(_)) {}
            seen.closed.send_modify(|count| *count += 1);
            return Ok(false);
        }
        Act::Flood(bytes) => {
            while stream.write_all(&bytes).await.is_ok() {}
            seen.closed.send_modify(|count| *count += 1);
            return Ok(false);
        }
        Act::Close => {
            stream.shutdown().await?;
            while !matches!(stream.read(&mut [0; 64]).await, Ok(0) | Err(_)) {}
            return Ok(false);
        }
        Act::Reset => {
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
    }))
}

/// An answer with a body of known length.
pub fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
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
pub fn hello() -> Vec<Act> {
    let body = format!("{}{}{DONE}", line("Hel"), line("lo"));
    vec![Act::Send([stream_head(), piece(&body), piece("")].concat())]
}

/// A bad status.
pub fn status(status: &str, headers: &str) -> Vec<Act> {
    vec![Act::Send(answer(
        status,
        headers,
        "{\"error\":\"secret words of the server\"}",
    ))]
}

fn models(request: &Request) -> Vec<Act> {
    let body = match request.path.as_str() {
        "/api/tags" => {
            json!({ "models": [{ "name": "tiny:latest", "digest": "d", "details": { "context_length": 4096 } }] })
        }
        "/v1/models" => json!({ "data": [{ "id": "tiny", "max_model_len": 2048 }] }),
        _ => return vec![Act::Send(answer("404 Not Found", "", "404 page not found"))],
    };
    vec![Act::Send(answer("200 OK", "", &body.to_string()))]
}

/// Settings for providers at those addresses, patient enough not to matter.
pub fn settings(servers: &[(ProviderKind, &Url)]) -> config::Llm {
    let at = |kind: ProviderKind| {
        let nowhere = Url::parse("http://127.0.0.1:1").unwrap();
        let base_url = servers
            .iter()
            .find(|(other, _)| *other == kind)
            .map_or(nowhere, |(_, url)| (*url).clone());
        Provider {
            base_url,
            api_key: None,
            model: None,
            context_window: 8192.try_into().unwrap(),
            max_concurrency: 4.try_into().unwrap(),
            queue: 256,
            connect_timeout: Duration::from_secs(2),
            first_token_timeout: SOON,
            idle_timeout: SOON,
            total_timeout: 2 * SOON,
            breaker_failures: 0,
        }
    };
    config::Llm {
        providers: servers.iter().map(|(kind, _)| *kind).collect(),
        model: "tiny".to_owned(),
        ollama: at(ProviderKind::Ollama),
        openai: at(ProviderKind::OpenAi),
        huggingface: at(ProviderKind::HuggingFace),
    }
}

/// An address where nobody listens.
pub async fn nobody() -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap()
}

/// The servers behind the chain, after their first look.
pub struct Models {
    pub llm: Llm,
    stop: Shutdown,
}

impl Drop for Models {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

impl Models {
    /// Waits for the first look at every provider.
    pub async fn looked(settings: &config::Llm) -> Self {
        let models = Self::unlooked(settings);
        models
            .until(|llm| llm.status().iter().all(|status| status.up.is_some()))
            .await;
        models
    }

    pub fn unlooked(settings: &config::Llm) -> Self {
        let stop = Shutdown::new();
        Self {
            llm: Llm::new(settings, &stop).unwrap(),
            stop,
        }
    }

    /// Waits until it is so.
    pub async fn until(&self, is_so: impl Fn(&Llm) -> bool) {
        let watching = async {
            while !is_so(&self.llm) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, watching)
            .await
            .expect("it is so in time");
    }

    /// A place in the queue for that user, with what to ask said.
    pub fn enter(&self, user: &str) -> Result<Answering, ModelError> {
        let route = self.llm.resolve(None)?;
        let mut answering = self.llm.enter(&route, &UserId::parse(user).unwrap())?;
        answering.begin(Arc::new(Say("Hi")));
        Ok(answering)
    }

    /// Asks and listens to the end.
    pub async fn ask(&self) -> Heard {
        match self.enter("alice") {
            Ok(answering) => Heard::all(answering).await,
            Err(error) => Heard {
                error: Some(error),
                ..Heard::default()
            },
        }
    }

    /// Waits until no place is taken.
    pub async fn idle(&self) {
        self.until(|llm| {
            llm.status()
                .iter()
                .all(|status| (status.running, status.waiting) == (0, 0))
        })
        .await;
    }
}

/// A prompt of one message.
pub struct Say(pub &'static str);

impl Prompt for Say {
    fn fit(&self, model: &str, window: u32) -> Ask {
        let said = PromptMessage {
            role: "user".to_owned(),
            content: self.0.to_owned(),
            extra: None,
        };
        Ask {
            model: model.to_owned(),
            messages: vec![said],
            window,
            prompt_estimate: 10,
            ..Ask::default()
        }
    }
}

/// What an answer was, to its end.
#[derive(Debug, Default)]
pub struct Heard {
    pub text: String,
    pub thinking: String,
    pub calls: Vec<ToolCall>,
    pub provider: Option<ProviderKind>,
    pub model: Option<String>,
    pub end: Option<(FinishReason, Option<Usage>)>,
    pub error: Option<ModelError>,
}

impl Heard {
    pub async fn all(mut answering: Answering) -> Self {
        let mut heard = Self::default();
        let listening = async {
            while heard.end.is_none() && heard.error.is_none() {
                match answering.next().await {
                    Ok(progress) => {
                        assert!(!progress.is_empty());
                        progress.into_iter().for_each(|one| heard.take(one));
                    }
                    Err(error) => heard.error = Some(error),
                }
            }
        };
        tokio::time::timeout(3 * SOON, listening)
            .await
            .expect("it ends");
        heard
    }

    fn take(&mut self, progress: Progress) {
        match progress {
            Progress::Queued { .. } => {}
            Progress::Generating {
                provider, model, ..
            } => {
                assert_eq!(self.provider, None, "told once");
                (self.provider, self.model) = (Some(provider), Some(model));
            }
            Progress::Thinking(text) => self.thinking.push_str(&text),
            Progress::Text(text) => self.text.push_str(&text),
            Progress::ToolCall(call) => self.calls.push(call),
            Progress::End { finish, usage } => self.end = Some((finish, usage)),
        }
    }

    /// In a few words, for comparing.
    pub fn brief(&self) -> String {
        let mut brief = String::new();
        for (name, text) in [("think", &self.thinking), ("text", &self.text)] {
            if !text.is_empty() {
                brief.push_str(&format!("{name}={text:?} "));
            }
        }
        for call in &self.calls {
            brief.push_str(&format!("{}({}) ", call.name, call.arguments));
        }
        if let Some((finish, usage)) = self.end {
            let usage = usage.map_or("?".to_owned(), |usage| {
                format!("{}+{}", usage.prompt_tokens, usage.completion_tokens)
            });
            brief.push_str(&format!("{finish:?} {usage}"));
        }
        if let Some(error) = &self.error {
            brief.push_str(kind(error));
        }
        brief
    }
}

/// The error's name.
pub fn kind(error: &ModelError) -> &'static str {
    match error {
        ModelError::Unavailable(_) => "Unavailable",
        ModelError::Timeout(_) => "Timeout",
        ModelError::Failed(_) => "Failed",
        ModelError::NotFound(_) => "NotFound",
        ModelError::ContextTooLong(_) => "ContextTooLong",
        ModelError::QueueFull => "QueueFull",
        ModelError::Busy { .. } => "Busy",
        ModelError::Unsupported(_) => "Unsupported",
    }
}

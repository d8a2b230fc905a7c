//! The HTTP side of a fake model server, written by hand so that it can break every rule on purpose.

use std::{sync::Arc, time::Instant};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    task::JoinSet,
};

use super::{
    ChatRequest, End, State,
    answer::Step,
    wire::{Counts, Wire},
};

/// What is left of the connection after an answer.
enum After {
    Next,
    Close,
    Reset,
}

pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

pub(super) async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        stream.set_nodelay(true).ok();
        connections.spawn(connection(stream, Arc::clone(&state)));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(mut stream: TcpStream, state: Arc<State>) {
    let mut buffer = Vec::new();
    loop {
        let (mut reader, mut writer) = stream.split();
        let Some(request) = read_request(&mut reader, &mut buffer).await else {
            return;
        };
        let is = |path| request.method == "POST" && request.path == path;
        let after = if is(state.wire.chat_path()) {
            chat(&mut reader, &mut writer, &request, &state).await
        } else if is(state.wire.embed_path()) {
            embed(&mut reader, &mut writer, &request, &state).await
        } else {
            other(&mut writer, &request, &state).await
        };
        match after {
            After::Next => {}
            After::Close => return,
            After::Reset => {
                stream.set_zero_linger().ok();
                return;
            }
        }
    }
}

pub(crate) async fn read_request(
    reader: &mut ReadHalf<'_>,
    buffer: &mut Vec<u8>,
) -> Option<Request> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if reader.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0);
    while buffer.len() < end + length {
        if reader.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer[end..end + length].to_vec();
    buffer.drain(..end + length);
    let mut words = head.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?);
    let path = target.split('?').next()?.to_owned();
    Some(Request { method, path, head, body })
}

async fn other(writer: &mut WriteHalf<'_>, request: &Request, state: &State) -> After {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let models = state.models.lock().unwrap().clone();
    let (status, text) = state.wire.other(&request.method, &request.path, &body, &models);
    whole(writer, status, "", if request.method == "HEAD" { "" } else { &text }).await
}

async fn chat(
    reader: &mut ReadHalf<'_>,
    writer: &mut WriteHalf<'_>,
    request: &Request,
    state: &State,
) -> After {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let chat =
        ChatRequest { head: request.head.clone(), body, arrived: Instant::now(), ended: None };
    let (model, message) =
        (chat.body["model"].as_str().unwrap_or_default().to_owned(), chat.last_message());
    let counts = Counts { prompt: chat.words(), completion: 0 };
    let number = state.begin(chat);
    let known =
        state.models.lock().unwrap().iter().any(|known| known.name.eq_ignore_ascii_case(&model));
    let steps = state.answer_for(&message).steps_for(&message);
    let mut player = Player { writer, wire: state.wire, model, counts, calls: 0, started: false };
    let after = tokio::select! {
        after = async { if known { player.play(steps).await } else { player.refuse_model().await } } => Some(after),
        () = left(reader) => None,
    };
    state.end(number, if after.is_some() { End::Played } else { End::ClientLeft });
    after.unwrap_or(After::Close)
}

/// Embeds at once; inputs with `hang` in them never.
async fn embed(
    reader: &mut ReadHalf<'_>,
    writer: &mut WriteHalf<'_>,
    request: &Request,
    state: &State,
) -> After {
    let chat = ChatRequest {
        head: request.head.clone(),
        body: serde_json::from_slice(&request.body).unwrap_or_default(),
        arrived: Instant::now(),
        ended: None,
    };
    let answer = state.wire.embeddings(&chat.body);
    let hangs = chat.body["input"].to_string().contains("hang");
    let number = {
        let mut embeds = state.embeds.lock().unwrap();
        embeds.push(chat);
        embeds.len() - 1
    };
    let (after, end) = if hangs {
        left(reader).await;
        (After::Close, End::ClientLeft)
    } else {
        (whole(writer, 200, "", &answer).await, End::Played)
    };
    state.embeds.lock().unwrap()[number].ended = Some((Instant::now(), end));
    after
}

/// Resolves when the client has closed, or half closed, its connection.
async fn left(reader: &mut ReadHalf<'_>) {
    let mut byte = [0; 64];
    while reader.read(&mut byte).await.is_ok_and(|read| read > 0) {}
}

async fn whole(writer: &mut WriteHalf<'_>, status: u16, headers: &str, body: &str) -> After {
    let kind = if body.starts_with('{') { "application/json" } else { "text/plain" };
    let (length, reason) = (body.len(), if status == 200 { "OK" } else { "Refused" });
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    match writer.write_all(format!("{head}{body}").as_bytes()).await {
        Ok(()) => After::Next,
        Err(_) => After::Close,
    }
}

struct Player<'a, 's> {
    writer: &'a mut WriteHalf<'s>,
    wire: Wire,
    model: String,
    counts: Counts,
    calls: usize,
    started: bool,
}

impl Player<'_, '_> {
    async fn play(&mut self, steps: Vec<Step>) -> After {
        for step in steps {
            match self.step(step).await {
                Ok(None) => {}
                Ok(Some(after)) => return after,
                Err(_) => return After::Close,
            }
        }
        After::Close
    }

    async fn refuse_model(&mut self) -> After {
        let (status, body) = self.wire.unknown_model(&self.model);
        whole(self.writer, status, "", &body).await
    }

    async fn step(&mut self, step: Step) -> std::io::Result<Option<After>> {
        match step {
            Step::Wait(pause) => tokio::time::sleep(pause).await,
            Step::Gate(gate) => gate.pass().await,
            Step::Token(text) => self.token(&text).await?,
            Step::Thinking(text) => self.chunk(self.wire.thinking(&self.model, &text)).await?,
            Step::ToolCall { name, arguments } => {
                let call = self.wire.tool_call(&self.model, self.calls, &name, &arguments);
                self.calls += 1;
                self.chunk(call).await?;
            }
            Step::Forever { token, every } => loop {
                self.token(&token).await?;
                if every.is_zero() {
                    tokio::task::yield_now().await
                } else {
                    tokio::time::sleep(every).await
                }
            },
            Step::Done { reason } => {
                self.chunk(self.wire.done(&self.model, &reason, self.counts)).await?;
                return self.finish().await.map(Some);
            }
            Step::Error(text) => {
                self.chunk(self.wire.error(&text)).await?;
                return self.finish().await.map(Some);
            }
            Step::Body(bytes) => self.chunk(bytes).await?,
            Step::Hang => std::future::pending().await,
            Step::Eof => return self.finish().await.map(Some),
            Step::Drop => return Ok(Some(After::Close)),
            Step::Reset => return Ok(Some(After::Reset)),
            Step::Refuse { status, headers, body } => {
                return Ok(Some(whole(self.writer, status, &headers, &body).await));
            }
            Step::Socket(bytes) => self.writer.write_all(&bytes).await?,
        }
        Ok(None)
    }

    async fn token(&mut self, text: &str) -> std::io::Result<()> {
        self.counts.completion += 1;
        self.chunk(self.wire.token(&self.model, text)).await
    }

    async fn chunk(&mut self, bytes: Vec<u8>) -> std::io::Result<()> {
        self.head().await?;
        let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
        framed.extend(bytes);
        framed.extend(b"\r\n");
        self.writer.write_all(&framed).await
    }

    async fn finish(&mut self) -> std::io::Result<After> {
        self.head().await?;
        self.writer.write_all(b"0\r\n\r\n").await?;
        Ok(After::Next)
    }

    /// Like Ollama, the status goes out with the first line and not before.
    async fn head(&mut self) -> std::io::Result<()> {
        if std::mem::replace(&mut self.started, true) {
            return Ok(());
        }
        let kind = self.wire.stream_type();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        self.writer.write_all(head.as_bytes()).await
    }
}

//! Fake model servers: real HTTP servers on a free port that play an [`Answer`] and remember what they were asked.

mod answer;
mod server;
mod wire;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{net::TcpListener, task::AbortHandle};

pub(crate) use self::server::read_request;
pub use self::{
    answer::{Answer, Gate},
    wire::{Model, Wire},
};
use crate::eventually;

/// The model that a fake server has unless told otherwise; the services' own default.
pub const MODEL: &str = "gemma3:1b";

/// How a chat request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Played,
    /// The client closed the connection before.
    ClientLeft,
}

/// A chat request that a fake server was sent.
#[derive(Clone, Debug)]
pub struct ChatRequest {
    pub head: String,
    pub body: Value,
    /// When it was there as a whole.
    pub arrived: Instant,
    /// When and how it ended; `None` while it runs.
    pub ended: Option<(Instant, End)>,
}

impl ChatRequest {
    /// Role and text of every message, in order: what the model got.
    pub fn messages(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let messages = self.body["messages"].as_array().cloned().unwrap_or_default();
        messages
            .iter()
            .map(|message| (text(&message["role"]), content(&message["content"])))
            .collect()
    }

    pub fn last_message(&self) -> String {
        self.messages().pop().map(|(_, text)| text).unwrap_or_default()
    }

    fn words(&self) -> usize {
        self.messages().iter().map(|(_, text)| text.split_whitespace().count() + 1).sum()
    }
}

/// A message's text: a string, or the text among its parts.
fn content(value: &Value) -> String {
    match value {
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        other => other.as_str().unwrap_or_default().to_owned(),
    }
}

struct State {
    wire: Wire,
    usual: Mutex<Answer>,
    next: Mutex<VecDeque<Answer>>,
    by_text: Mutex<Vec<(String, Answer)>>,
    chats: Mutex<Vec<ChatRequest>>,
    embeds: Mutex<Vec<ChatRequest>>,
    models: Mutex<Vec<Model>>,
}

impl State {
    fn begin(&self, chat: ChatRequest) -> usize {
        let mut chats = self.chats.lock().unwrap();
        chats.push(chat);
        chats.len() - 1
    }

    fn end(&self, number: usize, how: End) {
        self.chats.lock().unwrap()[number].ended = Some((Instant::now(), how));
    }

    fn answer_for(&self, message: &str) -> Answer {
        let by_text = self.by_text.lock().unwrap();
        if let Some((_, answer)) = by_text.iter().rev().find(|(text, _)| message.contains(text)) {
            return answer.clone();
        }
        let next = self.next.lock().unwrap().pop_front();
        next.unwrap_or_else(|| self.usual.lock().unwrap().clone())
    }
}

/// A running fake model server; gone when dropped.
pub struct FakeModel {
    address: SocketAddr,
    state: Arc<State>,
    task: AbortHandle,
}

impl FakeModel {
    /// An Ollama on a free port, with the default model, that echoes.
    pub async fn ollama() -> Self {
        Self::listen(Wire::Ollama, "127.0.0.1:0".parse().unwrap()).await
    }

    /// An OpenAI-compatible server on a free port, with the default model, that echoes.
    pub async fn openai() -> Self {
        Self::listen(Wire::OpenAi, "127.0.0.1:0".parse().unwrap()).await
    }

    /// A server at that address.
    ///
    /// # Panics
    /// When the address is taken.
    pub async fn listen(wire: Wire, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("the address is free");
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            wire,
            usual: Mutex::new(Answer::echo()),
            next: Mutex::default(),
            by_text: Mutex::default(),
            chats: Mutex::default(),
            embeds: Mutex::default(),
            models: Mutex::new(vec![Model { name: MODEL.to_owned(), window: 8192 }]),
        });
        let task = tokio::spawn(server::accept(listener, Arc::clone(&state))).abort_handle();
        Self { address, state, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL, as a setting.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The models that it has from now on: names and windows.
    pub fn have(&self, models: &[(&str, u32)]) {
        let models =
            models.iter().map(|(name, window)| Model { name: (*name).to_owned(), window: *window });
        *self.state.models.lock().unwrap() = models.collect();
    }

    /// What it does with a request for which nothing else was said.
    pub fn usually(&self, answer: Answer) {
        *self.state.usual.lock().unwrap() = answer;
    }

    /// What it does with the next such request; calls line up.
    pub fn next(&self, answer: Answer) {
        self.state.next.lock().unwrap().push_back(answer);
    }

    /// What it does whenever the last message contains that text.
    pub fn answer_to(&self, text: &str, answer: Answer) {
        self.state.by_text.lock().unwrap().push((text.to_owned(), answer));
    }

    /// Every chat request so far, in order of arrival.
    pub fn chats(&self) -> Vec<ChatRequest> {
        self.state.chats.lock().unwrap().clone()
    }

    /// Every request for embeddings so far, in order of arrival.
    pub fn embeds(&self) -> Vec<ChatRequest> {
        self.state.embeds.lock().unwrap().clone()
    }

    /// Forgets what was asked in those that have ended, for runs so long that it would fill the memory.
    pub fn forget(&self) {
        let mut chats = self.state.chats.lock().unwrap();
        for chat in chats.iter_mut().filter(|chat| chat.ended.is_some()) {
            (chat.head, chat.body) = (String::new(), Value::Null);
        }
    }

    /// The last chat request whose last message is this.
    ///
    /// # Panics
    /// When there was none.
    pub fn asked(&self, message: &str) -> ChatRequest {
        let found = self.chats().into_iter().rev().find(|chat| chat.last_message() == message);
        found.unwrap_or_else(|| panic!("the model was never asked {message:?}"))
    }

    pub fn open(&self) -> usize {
        self.chats().iter().filter(|chat| chat.ended.is_none()).count()
    }

    /// Waits until so many chat requests have come.
    pub async fn wait_chats(&self, count: usize) {
        let what = format!("{count} requests at the model server");
        eventually(crate::PATIENCE, &what, || async {
            (self.chats().len() >= count).then_some(())
        })
        .await;
    }

    /// Waits until no chat request runs, and says when the last ended.
    pub async fn wait_idle(&self, limit: Duration) {
        eventually(limit, "no request runs at the model server", || async {
            (self.open() == 0).then_some(())
        })
        .await;
    }

    /// Waits until the last request with that message was left by its client, and gives the time from `since` to then.
    pub async fn left_after(&self, message: &str, since: Instant, limit: Duration) -> Duration {
        let what = format!("the request {message:?} is given up");
        eventually(limit, &what, || async {
            match self.asked(message).ended {
                Some((at, End::ClientLeft)) => Some(at.saturating_duration_since(since)),
                Some((_, End::Played)) => panic!("the request {message:?} was played to its end"),
                None => None,
            }
        })
        .await
    }
}

impl Drop for FakeModel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The bytes of a recorded answer under `tests/fixtures`.
///
/// # Panics
/// When there is no such file.
pub fn fixture(path: &str) -> Vec<u8> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(path);
    std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

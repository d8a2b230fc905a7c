//! Whom it asks, in which words: a model server itself (or a plain proxy of it), or the chat API.

use std::{collections::BTreeMap, io};

use bench::{
    http::{Connection, post},
    plan::Plan,
    process::{Group, Usage},
    stamp,
};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

/// Turns of one session before the next is begun, so that a history has ten messages on average.
const TURNS_A_SESSION: u64 = 10;

/// Users that share the load.
const USERS: usize = 64;

/// Whose words are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Api {
    /// `POST /api/chat` of Ollama.
    Model,
    /// `POST /chat/message`, with a login before.
    Chat,
}

/// How an answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// As one JSON object.
    Whole,
    /// As server-sent events (of the model server: as it streams).
    Sse,
    /// Over a WebSocket.
    Ws,
}

/// Where the contender is and what is watched of it.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// Addresses of its instances, asked in turn.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:9002")]
    pub address: Vec<String>,
    /// Whose words are spoken.
    #[arg(long, value_enum, default_value = "chat")]
    pub api: Api,
    /// Processes whose cost is read, as `name=pid,pid`; can be given again.
    #[arg(long)]
    pub watch: Vec<Group>,
}

/// A caller: its place among the callers, its instance and its token.
#[derive(Clone, Debug)]
pub struct Caller {
    number: usize,
    run: u64,
    api: Api,
    /// The instance that it asks.
    pub address: String,
    /// Empty where none is needed.
    pub token: String,
}

impl Target {
    /// So many callers, logged in.
    ///
    /// # Errors
    /// Where a login fails.
    pub async fn callers(&self, count: usize) -> anyhow::Result<Vec<Caller>> {
        let first = self.instance(0);
        let mut tokens = Vec::new();
        if self.api == Api::Chat {
            let mut connection = Connection::open(&first).await?;
            for user in 0..count.min(USERS) {
                tokens.push(login(&mut connection, &format!("bench-{user}"), None).await?);
            }
        }
        let run = stamp::now_ns() / 1000;
        let caller = |number: usize| Caller {
            number,
            run,
            api: self.api,
            address: self.instance(number),
            token: tokens.get(number % USERS).cloned().unwrap_or_default(),
        };
        Ok((0..count).map(caller).collect())
    }

    fn instance(&self, number: usize) -> String {
        let place = number % self.address.len().max(1);
        self.address.get(place).cloned().unwrap_or_default()
    }

    /// What the watched processes have used up to now.
    pub fn usage(&self) -> BTreeMap<String, Usage> {
        let groups = self.watch.iter();
        groups.map(|group| (group.name.clone(), group.usage())).collect()
    }
}

/// The token of a user who logs in.
///
/// # Errors
/// Where that is refused.
pub async fn login(
    connection: &mut Connection,
    user: &str,
    password: Option<&str>,
) -> anyhow::Result<String> {
    let mut body = json!({ "user_id": user });
    if let Some(password) = password {
        body["password"] = password.into();
    }
    let mut answer = Vec::new();
    let request = post("/auth/login", "", &body.to_string());
    let status = connection.ask(&request, |bytes| answer.extend_from_slice(bytes)).await?;
    let answer: Value = serde_json::from_slice(&answer)?;
    let token = answer.get("access_token").and_then(Value::as_str);
    token
        .map(ToOwned::to_owned)
        .ok_or_else(|| anyhow::anyhow!("login of {user}: {status} {answer}"))
}

impl Caller {
    /// The request of its turn of that number.
    pub fn request(&self, form: Form, turn: u64, plan: &Plan) -> Vec<u8> {
        let session = self.session(turn / TURNS_A_SESSION);
        self.request_in(form, &session, plan)
    }

    /// The name of its session of that number, of this run alone.
    pub fn session(&self, number: u64) -> String {
        format!("s{}-{}-{number}", self.run, self.number)
    }

    /// A request in that session.
    pub fn request_in(&self, form: Form, session: &str, plan: &Plan) -> Vec<u8> {
        let message = plan.message();
        match (self.api, form) {
            (Api::Model, _) => {
                let body = json!({ "model": "mock", "messages": [{ "role": "user", "content": message }] });
                post("/api/chat", "", &body.to_string())
            }
            (Api::Chat, Form::Ws) => {
                let body =
                    json!({ "message": message, "session_id": session, "on_disconnect": "cancel" });
                text_frame(&body.to_string())
            }
            (Api::Chat, Form::Sse) => {
                let body = json!({ "message": message, "session_id": session });
                post("/chat/message?stream=true", &self.token, &body.to_string())
            }
            (Api::Chat, Form::Whole) => {
                let body = json!({ "message": message, "session_id": session });
                post("/chat/message", &self.token, &body.to_string())
            }
        }
    }

    /// Opens a WebSocket.
    ///
    /// # Errors
    /// Those of the socket, and a refusal.
    pub async fn upgrade(&self) -> io::Result<Connection> {
        let mut connection = Connection::open(&self.address).await?;
        let request = format!(
            "GET /chat/ws HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {}\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            self.token
        );
        connection.send(request.as_bytes()).await?;
        let answer = connection.receive().await?;
        if answer.starts_with(b"HTTP/1.1 101") {
            return Ok(connection);
        }
        let answer = String::from_utf8_lossy(answer);
        let line = answer.lines().next().unwrap_or_default();
        Err(io::Error::other(format!("no WebSocket: {line}")))
    }
}

/// A text frame of a client: masked, as it must be, with a mask of zeros.
fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u8::try_from(text.len()) {
        Ok(length @ ..126) => frame.push(0x80 | length),
        _ => {
            frame.push(0x80 | 126);
            let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
            frame.extend_from_slice(&length.to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

//! What a fake model server does with a request: a list of steps, written down before it is played.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

/// Holds tokens back until the test lets them go.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    #[allow(clippy::new_without_default, reason = "a closed gate is not a default of anything")]
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets so many tokens through.
    pub fn release(&self, tokens: usize) {
        self.0.add_permits(tokens);
    }

    /// Lets all through from now on.
    pub fn open(&self) {
        self.0.add_permits(1_000_000);
    }

    pub(super) async fn pass(&self) {
        if let Ok(permit) = self.0.acquire().await {
            permit.forget();
        }
    }
}

/// One thing that a model server does.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Wait(Duration),
    Gate(Gate),
    Token(String),
    Thinking(String),
    ToolCall { name: String, arguments: serde_json::Value },
    Forever { token: String, every: Duration },
    Done { reason: String },
    Error(String),
    Body(Vec<u8>),
    Hang,
    Eof,
    Drop,
    Reset,
    Refuse { status: u16, headers: String, body: String },
    Socket(Vec<u8>),
}

/// What a fake model server does with one request. Build it from its beginning to its end.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub(super) steps: Vec<Step>,
    pub(super) echo: Option<Duration>,
}

impl Answer {
    /// Says "You said: <last message>", a word a token.
    pub fn echo() -> Self {
        Self::echo_every(Duration::ZERO)
    }

    /// The same, with a pause before every word.
    pub fn echo_every(pause: Duration) -> Self {
        Self { steps: Vec::new(), echo: Some(pause) }
    }

    pub fn new() -> Self {
        Self::default()
    }

    /// These tokens, then a proper end.
    pub fn tokens<T: Into<String>>(tokens: impl IntoIterator<Item = T>) -> Self {
        Self::partial(tokens).done("stop")
    }

    /// These tokens, and no end: add one.
    pub fn partial<T: Into<String>>(tokens: impl IntoIterator<Item = T>) -> Self {
        let steps = tokens.into_iter().map(|token| Step::Token(token.into())).collect();
        Self { steps, echo: None }
    }

    /// These tokens with a pause before each, then a proper end.
    pub fn paced<T: Into<String>>(tokens: impl IntoIterator<Item = T>, pause: Duration) -> Self {
        tokens
            .into_iter()
            .fold(Self::new(), |answer, token| answer.wait(pause).token(token))
            .done("stop")
    }

    /// These tokens, each waiting for the gate, then a proper end at once after the last.
    pub fn gated<T: Into<String>>(tokens: impl IntoIterator<Item = T>, gate: &Gate) -> Self {
        tokens
            .into_iter()
            .fold(Self::new(), |answer, token| answer.gate(gate).token(token))
            .done("stop")
    }

    /// That token for ever.
    pub fn endless(token: &str, every: Duration) -> Self {
        Self::new().step(Step::Forever { token: token.to_owned(), every })
    }

    /// A status and a body instead of an answer; `headers` are whole lines, each ended by CRLF.
    pub fn refuse(status: u16, headers: &str, body: &str) -> Self {
        Self::new().step(Step::Refuse {
            status,
            headers: headers.to_owned(),
            body: body.to_owned(),
        })
    }

    /// These bytes on the bare socket, status line included, in pieces of at most `cut` bytes.
    pub fn recorded(bytes: &[u8], cut: usize) -> Self {
        bytes
            .chunks(cut.max(1))
            .fold(Self::new(), |answer, piece| answer.step(Step::Socket(piece.to_vec())))
    }

    /// A token.
    pub fn token(self, token: impl Into<String>) -> Self {
        self.step(Step::Token(token.into()))
    }

    pub fn thinking(self, text: &str) -> Self {
        self.step(Step::Thinking(text.to_owned()))
    }

    pub fn tool_call(self, name: &str, arguments: serde_json::Value) -> Self {
        self.step(Step::ToolCall { name: name.to_owned(), arguments })
    }

    /// A pause; before the first token not even the status line is sent.
    pub fn wait(self, pause: Duration) -> Self {
        self.step(Step::Wait(pause))
    }

    pub fn gate(self, gate: &Gate) -> Self {
        self.step(Step::Gate(gate.clone()))
    }

    /// These bytes in the body as they are.
    pub fn body(self, bytes: impl AsRef<[u8]>) -> Self {
        self.step(Step::Body(bytes.as_ref().to_vec()))
    }

    pub fn done(self, reason: &str) -> Self {
        self.step(Step::Done { reason: reason.to_owned() })
    }

    /// An error inside the stream, then a clean end.
    pub fn error(self, text: &str) -> Self {
        self.step(Step::Error(text.to_owned()))
    }

    /// Silence until the client leaves.
    pub fn hang(self) -> Self {
        self.step(Step::Hang)
    }

    /// A clean end of the body although the answer is not done.
    pub fn eof(self) -> Self {
        self.step(Step::Eof)
    }

    /// The connection closed in the middle of the body.
    pub fn drop_connection(self) -> Self {
        self.step(Step::Drop)
    }

    pub fn reset(self) -> Self {
        self.step(Step::Reset)
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// The steps for a request whose last message is this.
    pub(super) fn steps_for(&self, message: &str) -> Vec<Step> {
        let Some(pause) = self.echo else {
            return self.steps.clone();
        };
        let said = format!("You said: {message}");
        let words = said.split_inclusive(' ').map(str::to_owned);
        if pause.is_zero() { Self::tokens(words).steps } else { Self::paced(words, pause).steps }
    }
}

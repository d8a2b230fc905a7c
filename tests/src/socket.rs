//! A WebSocket client that keeps the frames of several turns apart.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use futures_util::{SinkExt, StreamExt};
use http::Request;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};

use crate::{Event, PATIENCE, within};

/// How a socket was closed: the code (1006 where no close frame came) and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    pub code: u16,
    pub reason: String,
}

/// An open WebSocket.
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
    waiting: VecDeque<Value>,
}

impl Socket {
    /// Opens one on `/chat/ws`.
    ///
    /// # Panics
    /// When the handshake is refused.
    pub async fn open(address: SocketAddr, token: Option<&str>) -> Self {
        let headers: Vec<(&str, String)> =
            token.map(|token| ("authorization", format!("Bearer {token}"))).into_iter().collect();
        Self::try_open(address, &headers)
            .await
            .unwrap_or_else(|refusal| panic!("the handshake was refused: {refusal:?}"))
    }

    /// Opens one with these headers.
    ///
    /// # Errors
    /// The status of a refused handshake, with its body.
    pub async fn try_open(
        address: SocketAddr,
        headers: &[(&str, String)],
    ) -> Result<Self, (u16, String)> {
        let mut request: Request<()> =
            format!("ws://{address}/chat/ws").into_client_request().unwrap();
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let stream = TcpStream::connect(address).await.expect("the service listens");
        stream.set_nodelay(true).ok();
        match within(PATIENCE, "a WebSocket handshake", client_async(request, stream)).await {
            Ok((stream, _)) => Ok(Self { stream, waiting: VecDeque::new() }),
            Err(tungstenite::Error::Http(answer)) => {
                let body =
                    answer.body().as_ref().map(|body| String::from_utf8_lossy(body).into_owned());
                Err((answer.status().as_u16(), body.unwrap_or_default()))
            }
            Err(error) => panic!("no WebSocket: {error}"),
        }
    }

    pub async fn send(&mut self, frame: &Value) {
        self.send_text(&frame.to_string()).await;
    }

    /// Sends these characters as a text frame.
    pub async fn send_text(&mut self, text: &str) {
        self.stream.send(Message::text(text)).await.expect("the socket is open");
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.send(Message::binary(bytes.to_vec())).await.expect("the socket is open");
    }

    /// Starts a turn and gives the answer's id.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn say(&mut self, session: &str, message: &str) -> String {
        let reference = uuid::Uuid::new_v4().to_string();
        self.send(&json!({"session_id": session, "message": message, "ref": reference})).await;
        let start = self.with_ref(&reference).await;
        assert_eq!(start["type"], "start", "{start}");
        start["message_id"].as_str().expect("a message id").to_owned()
    }

    /// The next frame with that `ref`; others wait for whoever asks for them.
    pub async fn with_ref(&mut self, reference: &str) -> Value {
        self.take(&format!("a frame with ref {reference}"), |frame| frame["ref"] == reference).await
    }

    pub async fn of_type(&mut self, kind: &str) -> Value {
        self.take(&format!("a frame of type {kind}"), |frame| frame["type"] == kind).await
    }

    pub async fn next_of(&mut self, message_id: &str) -> Event {
        let what = format!("an event of {message_id}");
        Event::from_frame(&self.take(&what, |frame| frame["message_id"] == message_id).await)
    }

    /// The events of that answer from here to its ending.
    pub async fn rest_of(&mut self, message_id: &str) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let event = self.next_of(message_id).await;
            let last = event.is_last();
            events.push(event);
            if last {
                return events;
            }
        }
    }

    /// How that answer ends, after whatever comes before that.
    ///
    /// # Panics
    /// As [`Self::rest_of`].
    pub async fn ending_of(&mut self, message_id: &str) -> Event {
        self.rest_of(message_id).await.pop().unwrap()
    }

    /// The next frame, whatever it is.
    ///
    /// # Panics
    /// When the socket is closed, or after 20 s.
    pub async fn next(&mut self) -> Value {
        self.take("a frame", |_| true).await
    }

    /// Checks that no frame comes for that long.
    pub async fn silent_for(&mut self, time: Duration) {
        assert!(self.waiting.is_empty(), "{:?}", self.waiting);
        if let Ok(frame) = tokio::time::timeout(time, self.read()).await {
            panic!("a frame where none should be: {frame:?}");
        }
    }

    /// Waits until the service closes the socket; frames before that are dropped.
    pub async fn closed(&mut self, limit: Duration) -> Closed {
        within(limit, "the socket is closed", async {
            loop {
                if let Err(closed) = self.read().await {
                    return closed;
                }
            }
        })
        .await
    }

    /// Closes it as a browser does.
    pub async fn close(mut self) {
        self.stream.close(None).await.ok();
        self.closed(PATIENCE).await;
    }

    async fn take(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.waiting.iter().position(&wanted) {
            return self.waiting.remove(at).unwrap();
        }
        within(PATIENCE, what, async {
            loop {
                match self.read().await {
                    Ok(frame) if wanted(&frame) => return frame,
                    Ok(frame) => self.waiting.push_back(frame),
                    Err(closed) => {
                        panic!("waited for {what}, but {closed:?} after {:?}", self.waiting)
                    }
                }
            }
        })
        .await
    }

    async fn read(&mut self) -> Result<Value, Closed> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => {
                    assert!(!text.contains('\n'), "a frame is one line: {text}");
                    return Ok(serde_json::from_str(&text)
                        .unwrap_or_else(|error| panic!("{error} in {text}")));
                }
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Err(Closed {
                        code: frame.code.into(),
                        reason: frame.reason.to_string(),
                    });
                }
                Some(Ok(Message::Binary(_))) => panic!("a binary frame from the service"),
                Some(Ok(Message::Close(None))) => {
                    return Err(Closed { code: 1005, reason: String::new() });
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    return Err(Closed { code: 1006, reason: error.to_string() });
                }
                None => {
                    return Err(Closed { code: 1006, reason: String::new() });
                }
            }
        }
    }
}

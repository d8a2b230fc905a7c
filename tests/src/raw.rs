//! Bare TCP: requests that no HTTP client would send, and WebSocket frames made by hand.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{PATIENCE, within};

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct RawReply {
    /// The status; 0 where the connection was closed without one.
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl RawReply {
    /// A header; empty where it is missing.
    pub fn header(&self, name: &str) -> String {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut found = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    }
}

/// A bare connection.
pub struct Raw {
    stream: TcpStream,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within(PATIENCE, "a connection", TcpStream::connect(address))
            .await
            .expect("the service listens");
        stream.set_nodelay(true).ok();
        Self { stream }
    }

    /// Sends bytes; what the other side has closed is not an error here.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.ok();
    }

    /// Sends bytes, and says whether the other side still takes them.
    pub async fn still_sends(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sent = self.stream.write_all(bytes.as_ref());
        matches!(tokio::time::timeout(PATIENCE, sent).await, Ok(Ok(())))
    }

    /// Reads until the other side closes; gives what came.
    pub async fn read_to_close(&mut self, limit: Duration) -> Vec<u8> {
        let mut bytes = Vec::new();
        within(limit, "the service closes the connection", async {
            self.stream.read_to_end(&mut bytes).await.ok();
        })
        .await;
        bytes
    }

    /// Reads at least so many bytes.
    pub async fn read_some(&mut self, at_least: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        within(PATIENCE, "bytes", async {
            while bytes.len() < at_least
                && self.stream.read_buf(&mut bytes).await.is_ok_and(|read| read > 0)
            {}
        })
        .await;
        bytes
    }

    /// Reads one answer with `Content-Length`.
    pub async fn read_reply(&mut self) -> RawReply {
        within(PATIENCE, "an answer", async {
            let mut bytes = Vec::new();
            loop {
                if let Some(reply) = whole(&bytes) {
                    return reply;
                }
                if !self.stream.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
                    return parse(&bytes);
                }
            }
        })
        .await
    }

    pub fn reset(self) {
        self.stream.set_zero_linger().ok();
    }

    /// Switches the connection to WebSocket.
    ///
    /// # Panics
    /// When the service does not.
    pub async fn upgrade(mut self, token: &str) -> Self {
        let head = format!(
            "GET /chat/ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        self.send(head).await;
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            let byte = within(PATIENCE, "the handshake", self.stream.read_u8())
                .await
                .expect("a handshake");
            bytes.push(byte);
        }
        let head = String::from_utf8_lossy(&bytes).into_owned();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        self
    }

    /// Sends a frame: the first byte as given (FIN, reserved bits, opcode), masked unless told otherwise.
    pub async fn frame(&mut self, first: u8, masked: bool, payload: &[u8]) {
        self.send(frame(first, masked, payload.len() as u64, payload)).await;
    }

    /// Reads frames until a close frame, and gives its code (0 where the connection just ends).
    pub async fn close_code(&mut self, limit: Duration) -> u16 {
        within(limit, "a close frame", async {
            while let Some((opcode, payload)) = self.read_frame().await {
                if opcode == 8 {
                    return payload
                        .get(..2)
                        .map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]));
                }
            }
            0
        })
        .await
    }

    /// The next frame: opcode and payload; `None` at the end.
    pub async fn read_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.stream.read_u8().await.ok()?;
        let length = match self.stream.read_u8().await.ok()? {
            126 => u64::from(self.stream.read_u16().await.ok()?),
            127 => self.stream.read_u64().await.ok()?,
            short => {
                assert!(short < 126, "a service does not mask");
                u64::from(short)
            }
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((first & 0x0f, payload))
    }
}

/// What our frames are masked with.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame whose announced length need not be its own.
pub fn frame(first: u8, masked: bool, announced: u64, payload: &[u8]) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match announced {
        short @ 0..126 => bytes.push(mask | u8::try_from(short).unwrap()),
        middle @ 126..0x1_0000 => {
            bytes.push(mask | 126);
            bytes.extend(u16::try_from(middle).unwrap().to_be_bytes());
        }
        long => {
            bytes.push(mask | 127);
            bytes.extend(long.to_be_bytes());
        }
    }
    if masked {
        bytes.extend(MASK);
        bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    } else {
        bytes.extend(payload);
    }
    bytes
}

/// Sends one request on a connection of its own and reads the answer.
pub async fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> RawReply {
    let mut raw = Raw::connect(address).await;
    raw.send(request).await;
    raw.read_reply().await
}

fn whole(bytes: &[u8]) -> Option<RawReply> {
    let reply = parse(bytes);
    if reply.status == 0 || !reply.head.ends_with("\r\n\r\n") {
        return None;
    }
    let chunked = reply.header("transfer-encoding") == "chunked";
    let length = reply.header("content-length").parse().unwrap_or(0);
    let there =
        if chunked { reply.body.ends_with(b"0\r\n\r\n") } else { reply.body.len() >= length };
    there.then_some(reply)
}

fn parse(bytes: &[u8]) -> RawReply {
    let end =
        bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    RawReply { status, head, body: bytes[end..].to_vec() }
}

//! HTTP/1.1 in its plainest form: enough to ask and to be asked at the least cost, no more.

use std::io;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// What one read takes at most, in bytes.
const READ: usize = 8 * 1024;

/// The longest head or chunk line that is read, in bytes.
const MAX_LINE: usize = 64 * 1024;

/// What is read next of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Status,
    Header,
    Sized(usize),
    ChunkSize,
    Chunk(usize),
    ChunkEnd,
    Trailer,
    End,
}

/// Takes a response apart as its bytes come.
#[derive(Debug)]
pub struct Decoder {
    next: Next,
    line: Vec<u8>,
    chunked: bool,
    length: usize,
    /// Its status; 0 before it is known.
    pub status: u16,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { next: Next::Status, line: Vec::new(), chunked: false, length: 0, status: 0 }
    }
}

impl Decoder {
    /// Whether the response is complete.
    pub fn is_done(&self) -> bool {
        self.next == Next::End
    }

    /// Takes bytes in and hands on those that are of the body.
    ///
    /// # Errors
    /// Where it is not HTTP.
    pub fn feed(&mut self, mut bytes: &[u8], mut body: impl FnMut(&[u8])) -> io::Result<()> {
        while !bytes.is_empty() && self.next != Next::End {
            bytes = match self.next {
                Next::Sized(left) | Next::Chunk(left) => {
                    let (piece, rest) = bytes.split_at(left.min(bytes.len()));
                    body(piece);
                    self.took(piece.len());
                    rest
                }
                _ => self.line(bytes)?,
            };
        }
        Ok(())
    }

    fn took(&mut self, count: usize) {
        self.next = match self.next {
            Next::Sized(left) if left == count => Next::End,
            Next::Sized(left) => Next::Sized(left - count),
            Next::Chunk(left) if left == count => Next::ChunkEnd,
            Next::Chunk(left) => Next::Chunk(left - count),
            other => other,
        };
    }

    fn line<'a>(&mut self, bytes: &'a [u8]) -> io::Result<&'a [u8]> {
        let Some(at) = memchr::memchr(b'\n', bytes) else {
            self.line.extend_from_slice(bytes);
            return match self.line.len() {
                ..=MAX_LINE => Ok(&[]),
                _ => Err(io::Error::other("a line without an end")),
            };
        };
        let (head, rest) = bytes.split_at(at);
        self.line.extend_from_slice(head);
        let line = std::mem::take(&mut self.line);
        self.ended(line.strip_suffix(b"\r").unwrap_or(&line))?;
        self.line = line;
        self.line.clear();
        Ok(rest.get(1..).unwrap_or_default())
    }

    fn ended(&mut self, line: &[u8]) -> io::Result<()> {
        let text = std::str::from_utf8(line).map_err(io::Error::other)?;
        self.next = match self.next {
            Next::Status => {
                let status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
                self.status = status.ok_or_else(|| io::Error::other("no status"))?;
                Next::Header
            }
            Next::Header if text.is_empty() => match (self.chunked, self.length) {
                (true, _) => Next::ChunkSize,
                (false, 0) => Next::End,
                (false, length) => Next::Sized(length),
            },
            Next::Header => {
                self.header(text);
                Next::Header
            }
            Next::ChunkSize => {
                let size = text.split(';').next().unwrap_or_default();
                match usize::from_str_radix(size, 16).map_err(io::Error::other)? {
                    0 => Next::Trailer,
                    size => Next::Chunk(size),
                }
            }
            Next::ChunkEnd => Next::ChunkSize,
            Next::Trailer if text.is_empty() => Next::End,
            other => other,
        };
        Ok(())
    }

    fn header(&mut self, line: &str) {
        let Some((name, value)) = line.split_once(':') else {
            return;
        };
        if name.eq_ignore_ascii_case("content-length") {
            self.length = value.trim().parse().unwrap_or(0);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            self.chunked = value.trim().eq_ignore_ascii_case("chunked");
        }
    }
}

/// A kept-alive connection that asks.
#[derive(Debug)]
pub struct Connection {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects, without Nagle's delay.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn open(address: &str) -> io::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, buffer: vec![0; READ] })
    }

    /// Sends those bytes as they are.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await
    }

    /// What has come; an error where the other side has closed.
    ///
    /// # Errors
    /// Those of the socket, and its end.
    pub async fn receive(&mut self) -> io::Result<&[u8]> {
        match self.socket.read(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(self.buffer.get(..count).unwrap_or_default()),
        }
    }

    /// Sends a request and hands on the body of its response as it comes; returns the status.
    ///
    /// # Errors
    /// Those of the socket, and of what is not HTTP.
    pub async fn ask(&mut self, request: &[u8], mut body: impl FnMut(&[u8])) -> io::Result<u16> {
        self.send(request).await?;
        let mut decoder = Decoder::default();
        while !decoder.is_done() {
            let bytes = self.receive().await?;
            decoder.feed(bytes, &mut body)?;
        }
        Ok(decoder.status)
    }
}

/// A POST with a JSON body; `bearer` may be empty.
pub fn post(path: &str, bearer: &str, json: &str) -> Vec<u8> {
    let authorization = match bearer {
        "" => String::new(),
        token => format!("authorization: Bearer {token}\r\n"),
    };
    let length = json.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{authorization}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{json}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_the_same_wherever_the_reads_cut() {
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
        let sized = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabcd";
        for response in [chunked, sized] {
            for cut in 0..response.len() {
                let (mut decoder, mut body) = (Decoder::default(), Vec::new());
                for piece in [&response[..cut], &response[cut..]] {
                    decoder.feed(piece.as_bytes(), |bytes| body.extend_from_slice(bytes)).unwrap();
                }
                assert_eq!(
                    (body.as_slice(), decoder.status, decoder.is_done()),
                    (b"abcd".as_slice(), 200, true),
                    "{cut}"
                );
            }
        }
    }
}

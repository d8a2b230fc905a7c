//! Counts the fragments of a message under the WebSocket, which itself sees only whole messages: one in any number of
//! empty fragments would keep it busy for ever.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most fragments of one message: 64 bytes each in the largest message.
const MOST: usize = 1024;

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a message in too many fragments")]
pub struct TooMany;

/// A connection whose incoming frames are counted as they pass.
#[derive(Debug)]
pub struct Fragments<S> {
    io: S,
    counter: Counter,
}

impl<S> Fragments<S> {
    pub fn new(io: S) -> Self {
        Self { io, counter: Counter::default() }
    }

    /// The connection itself, where nobody looks at frames any more.
    pub fn connection(&mut self) -> &mut S {
        &mut self.io
    }
}

/// Follows the frames of a stream of bytes by their heads alone.
#[derive(Debug, Default)]
struct Counter {
    /// The head so far: two bytes, then a longer length, then a mask.
    head: [u8; 14],
    have: usize,
    payload: u64,
    fragments: usize,
}

impl Counter {
    /// Takes in what has come; `false`: a message has too many fragments.
    fn take(&mut self, mut bytes: &[u8]) -> bool {
        loop {
            let passed = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
            self.payload -= passed as u64;
            let Some((&byte, rest)) = bytes.get(passed..).and_then(<[u8]>::split_first) else {
                return true;
            };
            bytes = rest;
            if let Some(place) = self.head.get_mut(self.have) {
                *place = byte;
                self.have += 1;
            }
            if self.have == self.head_length() && !self.frame() {
                return false;
            }
        }
    }

    /// How long the head is, as far as it can be known yet.
    fn head_length(&self) -> usize {
        let [_, second, ..] = self.head;
        let length = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        if self.have < 2 { 2 } else { 2 + length + mask }
    }

    fn frame(&mut self) -> bool {
        let [first, second, a, b, c, d, e, f, g, h, ..] = self.head;
        self.have = 0;
        self.payload = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes([a, b])),
            127 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            short => u64::from(short),
        };
        let (is_last, is_control) = (first & 0x80 != 0, first & 0x08 != 0);
        if !is_control {
            self.fragments = if is_last { 0 } else { self.fragments + 1 };
        }
        self.fragments <= MOST
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Fragments<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let came = buf.filled().get(before..).unwrap_or_default();
        Poll::Ready(if self.counter.take(came) { Ok(()) } else { Err(io::Error::other(TooMany)) })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Fragments<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, length: u64) -> Vec<u8> {
        let mut bytes = vec![first];
        match length {
            0..126 => bytes.push(0x80 | u8::try_from(length).expect("short")),
            126..0x1_0000 => {
                bytes.push(0x80 | 126);
                bytes.extend(u16::try_from(length).expect("short").to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend(length.to_be_bytes());
            }
        }
        bytes.extend([9; 4]);
        bytes.extend(vec![0; usize::try_from(length).expect("short")]);
        bytes
    }

    #[test]
    fn fragments_are_counted_wherever_the_bytes_are_cut() {
        let mut bytes = Vec::new();
        for length in [0, 5, 125, 126, 300, 65_535, 65_536] {
            bytes.extend(frame(0x81, length));
            bytes.extend(frame(0x01, length));
            bytes.extend(frame(0x89, 3));
            bytes.extend(frame(0x00, length));
        }
        for size in [1, 2, 3, 7, 4096, bytes.len()] {
            let mut counter = Counter::default();
            assert!(bytes.chunks(size).all(|piece| counter.take(piece)));
            assert_eq!((counter.fragments, counter.have, counter.payload), (2, 0, 0));
        }
    }

    #[test]
    fn a_message_has_an_end_of_fragments() {
        let mut counter = Counter::default();
        assert!((0..MOST).all(|_| counter.take(&frame(0x00, 0))));
        assert!(!counter.take(&frame(0x00, 0)));
        let mut counter = Counter::default();
        assert!((0..10 * MOST).all(|i| counter.take(&frame(if i % 9 == 0 { 0x80 } else { 0 }, 1))));
    }
}

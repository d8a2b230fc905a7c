//! A mock model server that costs next to nothing: Ollama's wire and OpenAI's, every token stamped with its sending time.
//!
//! `mock [address]`. The last user message may say `plan <tokens> <gap in µs> <first token after µs>`.

use std::{io, time::Duration};

use bench::{plan::Plan, stamp};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// What is written at once where tokens have no gap, in bytes.
const BATCH: usize = 16 * 1024;

/// The longest request, in bytes.
const MAX_REQUEST: usize = 4 * 1024 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    Ollama,
    OpenAi,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:11434")).await?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (socket, _) = accepted?;
                connections.spawn(async move {
                    // A client that leaves is none of our business.
                    let _ = serve(socket).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut input = Vec::with_capacity(1024);
    while let Some((head, end)) = read_request(&mut socket, &mut input).await? {
        let line = input.get(..head).unwrap_or_default();
        let route = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        let request = input.get(head..end).unwrap_or_default();
        match route {
            b"/api/chat" => answer(&mut socket, Wire::Ollama, Plan::of(request)).await?,
            b"/v1/chat/completions" => answer(&mut socket, Wire::OpenAi, Plan::of(request)).await?,
            other => socket.write_all(document(other).as_bytes()).await?,
        }
        input.drain(..end);
    }
    Ok(())
}

/// Reads until a whole request is there: where its head ends, and where its body does.
async fn read_request(
    socket: &mut TcpStream,
    input: &mut Vec<u8>,
) -> io::Result<Option<(usize, usize)>> {
    loop {
        if let Some(at) = memchr::memmem::find(input, b"\r\n\r\n") {
            let end = at + 4 + body_length(input.get(..at).unwrap_or_default());
            if input.len() >= end {
                return Ok(Some((at + 4, end)));
            }
        }
        if input.len() > MAX_REQUEST || socket.read_buf(input).await? == 0 {
            return Ok(None);
        }
    }
}

fn body_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head);
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

/// The answer to everything that is not a chat.
fn document(route: &[u8]) -> String {
    let body = match route {
        b"/api/tags" => {
            r#"{"models":[{"name":"mock:latest","model":"mock:latest","size":1,"digest":"0","details":{"family":"mock"}}]}"#
        }
        b"/api/show" => {
            r#"{"model_info":{"mock.context_length":131072},"capabilities":["completion"]}"#
        }
        b"/api/ps" => r#"{"models":[]}"#,
        b"/v1/models" => {
            r#"{"object":"list","data":[{"id":"mock","object":"model","owned_by":"bench"}]}"#
        }
        _ => "{}",
    };
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

impl Wire {
    fn content_type(self) -> &'static str {
        match self {
            Wire::Ollama => "application/x-ndjson",
            Wire::OpenAi => "text/event-stream",
        }
    }

    /// A token, as one chunk of the body, and where the digits of its stamp begin.
    fn token(self) -> (Vec<u8>, usize) {
        let text = stamp::TOKEN;
        let line = match self {
            Wire::Ollama => format!(
                "{{\"model\":\"mock:latest\",\"created_at\":\"2026-01-01T00:00:00.000000Z\",\"message\":{{\"role\":\"assistant\",\"content\":\"{text}\"}},\"done\":false}}\n"
            ),
            Wire::OpenAi => format!(
                "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"mock\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n"
            ),
        };
        let chunk = chunk(&line);
        let at = memchr::memchr(stamp::MARK, &chunk).unwrap_or(0) + 1;
        (chunk, at)
    }

    /// What ends the answer, the last chunk included.
    fn end(self, tokens: u64) -> Vec<u8> {
        let line = match self {
            Wire::Ollama => format!(
                "{{\"model\":\"mock:latest\",\"created_at\":\"2026-01-01T00:00:00.000000Z\",\"message\":{{\"role\":\"assistant\",\"content\":\"\"}},\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":8,\"eval_count\":{tokens}}}\n"
            ),
            Wire::OpenAi => format!(
                "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"mock\",\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"stop\"}}],\"usage\":{{\"prompt_tokens\":8,\"completion_tokens\":{tokens},\"total_tokens\":{tokens}}}}}\n\ndata: [DONE]\n\n"
            ),
        };
        let mut end = chunk(&line);
        end.extend_from_slice(b"0\r\n\r\n");
        end
    }
}

fn chunk(line: &str) -> Vec<u8> {
    format!("{:x}\r\n{line}\r\n", line.len()).into_bytes()
}

async fn answer(socket: &mut TcpStream, wire: Wire, plan: Plan) -> io::Result<()> {
    let (token, digits) = wire.token();
    let mut out = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {}\r\ntransfer-encoding: chunked\r\n\r\n",
        wire.content_type()
    )
    .into_bytes();
    let mut next = Instant::now() + plan.first;
    if plan.first > Duration::ZERO {
        sleep_until(next).await;
    }
    for number in 0..plan.tokens {
        if number > 0 && plan.gap > Duration::ZERO {
            next += plan.gap;
            sleep_until(next).await;
        }
        let at = out.len() + digits;
        out.extend_from_slice(&token);
        stamp::write(stamp::now_ns(), out.get_mut(at..at + stamp::DIGITS).unwrap_or_default());
        if plan.gap > Duration::ZERO || out.len() >= BATCH {
            socket.write_all(&out).await?;
            out.clear();
        }
    }
    out.extend_from_slice(&wire.end(plan.tokens));
    socket.write_all(&out).await
}

//! What the fuzz targets in `fuzz/` call; built for them alone.

use axum::http::{HeaderMap, HeaderValue};
use common::config::ProviderKind;

use crate::{
    http,
    llm::{Chunk, providers},
    sessions::{MessageCursor, SessionCursor},
};

/// Reads an answer whole, byte by byte, and cut in two where its first byte says: all must hear the same.
pub fn answer(kind: ProviderKind, bytes: &[u8]) {
    let Some((&at, bytes)) = bytes.split_first() else { return };
    let whole = parse_pieces(kind, [bytes]);
    assert_eq!(parse_pieces(kind, bytes.chunks(1)), whole, "byte by byte");
    let (head, tail) = bytes.split_at(usize::from(at).min(bytes.len()));
    assert_eq!(parse_pieces(kind, [head, tail]), whole, "cut at {at}");
}

/// The chunks, neighbours as they came, with ids of calls that were made here left out; or the error.
fn parse_pieces<'a>(
    kind: ProviderKind,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<Chunk>, String> {
    let mut chunks = providers::parse(kind, pieces).map_err(|error| error.to_string())?;
    for chunk in &mut chunks {
        match chunk {
            Chunk::ToolCall(call) if call.id.starts_with("call_") => call.id.clear(),
            _ => {}
        }
    }
    match chunks.last() {
        Some(Chunk::End { .. }) => Ok(chunks),
        _ => panic!("neither an end nor an error: {chunks:?}"),
    }
}

pub fn frame(text: &str) {
    http::ws::fuzz_frame(text);
}

/// Reads both kinds of cursor; one of sessions that is taken must be written as one that means the same.
pub fn cursor(text: &str) {
    let _ = MessageCursor::parse(text);
    if let Some(cursor) = SessionCursor::parse(text) {
        assert_eq!(SessionCursor::parse(&cursor.written()), Some(cursor));
    }
}

/// Reads the id after which a stream goes on, from the header and from the query.
pub fn last_event_id(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(bytes) {
        headers.insert("last-event-id", value);
    }
    let query = String::from_utf8_lossy(bytes).into_owned();
    let _ = http::messages::last_event_id(&headers, None);
    let _ = http::messages::last_event_id(&HeaderMap::new(), Some(&query));
}

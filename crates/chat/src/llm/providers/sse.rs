//! Splits bytes into server-sent events: any line end, any read size, a missing last blank line.

use std::mem;

use crate::llm::{
    error::ProviderError,
    providers::{
        lenient_json::without_bom,
        lines::{Lines, MAX_LINE, too_long},
    },
};

pub(super) struct SseEvent {
    pub(super) is_error: bool,
    pub(super) data: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct SseDecoder {
    lines: Lines,
    /// Of the event that has not ended.
    data: Vec<u8>,
    is_error: bool,
    /// A line was read: a BOM can no longer come.
    started: bool,
}

impl SseDecoder {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.lines.push(bytes);
    }

    pub(super) fn next(&mut self) -> Result<Option<SseEvent>, ProviderError> {
        while let Some(mut line) = self.lines.next()? {
            if !mem::replace(&mut self.started, true) {
                line = without_bom(line);
            }
            // Some servers write an error as a field of its own, or bare.
            let bare = line.starts_with(b"{\"error\"").then_some(line);
            let error = field(line, b"error").or(bare);
            self.is_error |= error.is_some();
            if line.is_empty() {
                let (is_error, mut data) =
                    (mem::take(&mut self.is_error), mem::take(&mut self.data));
                data.pop();
                if is_error || !data.trim_ascii().is_empty() {
                    return Ok(Some(SseEvent { is_error, data }));
                }
            } else if let Some(value) = field(line, b"data").or(error) {
                if self.data.len() + value.len() > MAX_LINE {
                    return Err(too_long());
                }
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            } else if let Some(name) = field(line, b"event") {
                self.is_error = name.eq_ignore_ascii_case(b"error");
            }
        }
        Ok(None)
    }

    /// The last event, where it is complete but for its line ends.
    pub(super) fn finish(&mut self) -> Result<Option<SseEvent>, ProviderError> {
        self.push(b"\n\n");
        self.next()
    }
}

/// The value of that field, if the line is of it: what follows the colon and at most one space.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    match line.strip_prefix(name)? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The data of every event, with a `!` before those named `error`; the bytes come in the given pieces.
    fn events<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let (mut decoder, mut events) = (SseDecoder::default(), Vec::new());
        for piece in pieces {
            decoder.push(piece);
            events.extend(std::iter::from_fn(|| decoder.next().unwrap()));
        }
        events.extend(decoder.finish().unwrap());
        let text = |event: SseEvent| {
            let mark = if event.is_error { "!" } else { "" };
            format!("{mark}{}", String::from_utf8_lossy(&event.data))
        };
        events.into_iter().map(text).collect()
    }

    const CARELESS: &str = "\u{feff}data: a\r\ndata:b\n: comment\n\nretry: 3\nid\n\rdata\r\rdata:  c\r\n\r\nevent: error\rdata: d\r\rdatax: n\n\ndata: ü€😀";

    #[test]
    fn every_line_end_and_field_that_servers_send_is_understood() {
        let seen = events([CARELESS.as_bytes()]);
        assert_eq!(seen, ["a\nb", " c", "!d", "ü€😀"]);
    }

    #[test]
    fn an_error_is_seen_however_it_is_written() {
        for (written, seen) in [
            ("event: ERROR\ndata: d\n\n", "!d"),
            ("event: error\n\n", "!"),
            ("error: {\"x\":1}\n\n", "!{\"x\":1}"),
            ("{\"error\":1}\n\n", "!{\"error\":1}"),
            ("{\"error\":1}", "!{\"error\":1}"),
            ("data: d\n{\"x\":1}\nerrors: 1\n\n", "d"),
        ] {
            assert_eq!(events([written.as_bytes()]), [seen], "{written}");
        }
    }

    #[test]
    fn it_does_not_matter_where_the_reads_cut() {
        let whole = events([CARELESS.as_bytes()]);
        assert_eq!(events(CARELESS.as_bytes().chunks(1)), whole);
        for at in 0..CARELESS.len() {
            let (head, tail) = CARELESS.as_bytes().split_at(at);
            assert_eq!(events([head, tail]), whole, "{at}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_cut_anywhere_give_the_same_events(
            text in "(data: ?|event: ?error|error: ?|:|[a-z\u{e9}]|\r|\n|\r\n){0,60}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
            prop_assert_eq!(events(pieces), events([bytes]));
        }
    }

    #[test]
    fn an_event_past_the_cap_is_refused_and_not_kept() {
        /// Whether, and how early, pieces of 1 MiB each are refused.
        fn refused_after(piece: &[u8]) -> Option<usize> {
            let mut decoder = SseDecoder::default();
            (1..50).find(|_| {
                decoder.push(piece);
                let refused = decoder.next().is_err();
                assert!(refused || decoder.data.len() <= MAX_LINE + 1);
                refused
            })
        }
        let piece = vec![b'x'; 1 << 20];
        assert_eq!(refused_after(&piece), Some(MAX_LINE / piece.len() + 1));
        let line = [b"data: ".as_slice(), &piece, b"\n"].concat();
        assert_eq!(refused_after(&line), Some(MAX_LINE / piece.len()));
    }
}

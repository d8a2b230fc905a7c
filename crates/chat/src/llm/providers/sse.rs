//! Splits bytes into server-sent events: any line end, any read size, a missing last blank line.

use memchr::memchr2;

use crate::llm::{
    error::ProviderError,
    providers::lines::{GoOn, MAX_LINE, too_long},
};

/// One event with data.
pub(super) struct SseEvent<'a> {
    /// Whether it is named `error`.
    pub(super) is_error: bool,
    /// Its data lines, joined by LF.
    pub(super) data: &'a [u8],
}

/// Collects what reads left over: a part of a line, the data of an event that has not ended.
#[derive(Debug, Default)]
pub(super) struct SseDecoder {
    partial: Vec<u8>,
    data: Vec<u8>,
    is_error: bool,
    /// The last byte was a CR: an LF right after it is the same line end.
    after_cr: bool,
    /// Something was read: a BOM can no longer come.
    started: bool,
}

impl SseDecoder {
    /// Calls `each` with every event that is complete now, until it wants no more.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(SseEvent<'_>) -> Result<GoOn, ProviderError>,
    ) -> Result<GoOn, ProviderError> {
        if self.after_cr && !bytes.is_empty() {
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            self.after_cr = false;
        }
        while let Some(at) = memchr2(b'\n', b'\r', bytes) {
            let (head, rest) = bytes.split_at(at);
            bytes = match rest {
                [b'\r', b'\n', rest @ ..] => rest,
                [b'\r'] => {
                    self.after_cr = true;
                    &[]
                }
                [_, rest @ ..] => rest,
                [] => rest,
            };
            if !self.ended(head, &mut each)? {
                return Ok(false);
            }
        }
        self.keep(bytes)?;
        Ok(true)
    }

    /// Takes the end of the bytes: what was complete but for its last line end counts.
    pub(super) fn finish(
        &mut self,
        mut each: impl FnMut(SseEvent<'_>) -> Result<GoOn, ProviderError>,
    ) -> Result<GoOn, ProviderError> {
        Ok(self.ended(&[], &mut each)? && self.ended(&[], &mut each)?)
    }

    /// Takes a line of which `tail` is what the last read brought.
    fn ended(
        &mut self,
        tail: &[u8],
        each: &mut impl FnMut(SseEvent<'_>) -> Result<GoOn, ProviderError>,
    ) -> Result<GoOn, ProviderError> {
        if self.partial.is_empty() {
            return self.line(tail, each);
        }
        self.keep(tail)?;
        let mut line = std::mem::take(&mut self.partial);
        let go_on = self.line(&line, each);
        line.clear();
        self.partial = line;
        go_on
    }

    fn line(
        &mut self,
        mut line: &[u8],
        each: &mut impl FnMut(SseEvent<'_>) -> Result<GoOn, ProviderError>,
    ) -> Result<GoOn, ProviderError> {
        if !std::mem::replace(&mut self.started, true) {
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        if line.is_empty() {
            return self.dispatch(each);
        }
        if let Some(value) = field(line, b"data") {
            if self.data.len() + value.len() > MAX_LINE {
                return Err(too_long());
            }
            self.data.extend_from_slice(value);
            self.data.push(b'\n');
        } else if let Some(name) = field(line, b"event") {
            self.is_error = name == b"error";
        }
        Ok(true)
    }

    fn dispatch(
        &mut self,
        each: &mut impl FnMut(SseEvent<'_>) -> Result<GoOn, ProviderError>,
    ) -> Result<GoOn, ProviderError> {
        let is_error = std::mem::take(&mut self.is_error);
        let data = self.data.strip_suffix(b"\n").unwrap_or(&self.data);
        let go_on = if data.trim_ascii().is_empty() {
            Ok(true)
        } else {
            each(SseEvent { is_error, data })
        };
        self.data.clear();
        go_on
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), ProviderError> {
        if self.partial.len() + bytes.len() > MAX_LINE {
            return Err(too_long());
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
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
        let (mut events, mut seen) = (SseDecoder::default(), Vec::new());
        let mut each = |event: SseEvent<'_>| {
            seen.push(format!(
                "{}{}",
                if event.is_error { "!" } else { "" },
                String::from_utf8_lossy(event.data)
            ));
            Ok(true)
        };
        for piece in pieces {
            events.feed(piece, &mut each).unwrap();
        }
        events.finish(&mut each).unwrap();
        seen
    }

    const CARELESS: &str = "\u{feff}data: a\r\ndata:b\n: comment\n\nretry: 3\nid\n\rdata\r\rdata:  c\r\n\r\nevent: error\rdata: d\r\rdatax: n\n\ndata: ü€😀";

    #[test]
    fn every_line_end_and_field_that_servers_send_is_understood() {
        let seen = events([CARELESS.as_bytes()]);
        assert_eq!(seen, ["a\nb", " c", "!d", "ü€😀"]);
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
            text in "(data: ?|event: ?error|:|[a-z\u{e9}]|\r|\n|\r\n){0,60}",
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
        let mut events = SseDecoder::default();
        let piece = vec![b'x'; 1 << 20];
        let fed = (0..50).find_map(|_| events.feed(&piece, |_| Ok(true)).err());
        assert!(fed.is_some() && events.partial.len() <= MAX_LINE);
        let mut events = SseDecoder::default();
        let line = [b"data: ".as_slice(), &piece, b"\n"].concat();
        let fed = (0..50).find_map(|_| events.feed(&line, |_| Ok(true)).err());
        assert!(fed.is_some() && events.data.len() <= MAX_LINE + 1);
    }
}

//! Tells whether a part of the next request was read together with the last one: hyper holds it then, and the head
//! timeout has to start at once instead of the idle timeout.

use memchr::memchr_iter;

/// Follows what is read of a request: where its head ends, and how much came after that.
#[derive(Debug)]
pub(super) struct RequestBoundary {
    /// The request line has begun; empty lines before it mean nothing.
    pub(super) begun: bool,
    /// Nothing has come yet of the head's line that is being read.
    line_empty: bool,
    /// Bytes after the head; `None` where its end was not among what was read for it.
    beyond: Option<u64>,
    ends_line: bool,
    /// The last read ended with an empty line: what ends a head, or a chunked body.
    ends_empty: bool,
}

impl Default for RequestBoundary {
    fn default() -> Self {
        Self { begun: false, line_empty: true, beyond: None, ends_line: true, ends_empty: true }
    }
}

impl RequestBoundary {
    /// These bytes were read, while a head was awaited or after it.
    pub(super) fn read(&mut self, bytes: &[u8], head_awaited: bool) {
        if bytes.is_empty() {
            return;
        }
        if let Some(beyond) = &mut self.beyond {
            *beyond += bytes.len() as u64;
        } else if head_awaited {
            self.beyond = self.end_of_head(bytes).map(|end| (bytes.len() - end) as u64);
        }
        self.ends_line = bytes.ends_with(b"\n");
        self.ends_empty = bytes.ends_with(b"\n\r\n") || bytes.ends_with(b"\n\n");
    }

    /// Whether a part of the next request is there already, after one whose body was said to have this length.
    ///
    /// Where nobody said it, or that whole request had come with the one before it, the end of the last read decides:
    /// a part of a head does not end with an empty line.
    pub(super) fn next_request(&mut self, body: Option<u64>) -> bool {
        let part = match (self.beyond.take(), body) {
            (Some(beyond), Some(body)) => beyond > body,
            _ => !self.ends_empty,
        };
        self.begun = part;
        self.line_empty = !part || self.ends_line;
        part
    }

    fn end_of_head(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut start = 0;
        for end in memchr_iter(b'\n', bytes) {
            let line = bytes.get(start..end).unwrap_or_default();
            let empty = self.line_empty && matches!(line, b"" | b"\r");
            start = end + 1;
            if empty && self.begun {
                return Some(start);
            }
            self.begun |= !empty;
            self.line_empty = true;
        }
        let rest = bytes.get(start..).unwrap_or_default();
        if !matches!(rest, b"" | b"\r") {
            (self.begun, self.line_empty) = (true, false);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::RequestBoundary;

    /// Whether a part of another request came with one that was read in these pieces.
    fn part(pieces: &[&str], body: Option<u64>) -> bool {
        let mut boundary = RequestBoundary::default();
        let mut head = String::new();
        for piece in pieces {
            boundary.read(piece.as_bytes(), !head.contains("\r\n\r\n"));
            head += piece;
        }
        boundary.next_request(body)
    }

    const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    #[test]
    fn a_request_alone_leaves_nothing_wherever_it_is_cut() {
        let post = "\r\nPOST / HTTP/1.1\r\ncontent-length: 4\r\n\r\na\n\nb";
        for (request, body) in [(GET, 0), (post, 4)] {
            for cut in 0..request.len() {
                let (first, second) = request.split_at(cut);
                assert!(!part(&[first, second], Some(body)), "{first:?} {second:?}");
                let second = format!("{second}GET");
                assert!(part(&[first, &second], Some(body)), "{first:?} {second:?}");
            }
        }
    }

    #[test]
    fn a_chunked_body_ends_with_an_empty_line_and_a_part_of_a_head_does_not() {
        let post = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
        assert!(!part(&[post], None));
        assert!(part(&[&format!("{post}GET / HTTP/1.1\r\n")], None));
    }

    #[test]
    fn what_follows_several_whole_requests_is_seen_after_the_last_of_them() {
        for (rest, is_part) in [("", false), ("GET /", true), ("GET / HTTP/1.1\r\n", true)] {
            let mut boundary = RequestBoundary::default();
            boundary.read(format!("{GET}{GET}{rest}").as_bytes(), true);
            assert!(boundary.next_request(Some(0)));
            assert_eq!(boundary.next_request(Some(0)), is_part, "{rest}");
        }
    }

    #[test]
    fn a_head_that_was_begun_with_the_last_request_ends_where_it_does() {
        for cut in 1..GET.len() {
            let (first, second) = GET.split_at(cut);
            let mut boundary = RequestBoundary::default();
            boundary.read(format!("{GET}{first}").as_bytes(), true);
            assert!(boundary.next_request(Some(0)));
            boundary.read(second.as_bytes(), true);
            let after = boundary.next_request(Some(0));
            // Cut within the empty line there is no telling it from one that stands before a request.
            assert!(!after || cut == GET.len() - 1, "{first:?}");
        }
    }
}

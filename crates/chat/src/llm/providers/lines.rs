//! Splits bytes into lines that end in LF, CR or CRLF, wherever the reads fell, with a cap on their length.

use memchr::memchr2;

use crate::llm::error::ProviderError;

/// The longest line, or event, that is read from a model server, in bytes.
pub(super) const MAX_LINE: usize = 8 * 1024 * 1024;

pub(super) fn too_long() -> ProviderError {
    ProviderError::failed(format!("a line of more than {MAX_LINE} bytes"))
}

#[derive(Debug, Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    start: usize,
    /// Up to here no end of that line was found.
    searched: usize,
    /// The last line ended in a CR: an LF right after it is the same line end.
    after_cr: bool,
}

impl Lines {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next line without its end; `None` where the rest is not whole yet.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, ProviderError> {
        if self.after_cr && self.bytes.len() > self.start {
            self.after_cr = false;
            self.start += usize::from(self.bytes[self.start] == b'\n');
            self.searched = self.start;
        }
        let found = memchr2(b'\n', b'\r', &self.bytes[self.searched..]);
        let end = found.map_or(self.bytes.len(), |at| self.searched + at);
        if end - self.start > MAX_LINE {
            return Err(too_long());
        }
        self.searched = end;
        if found.is_none() {
            return Ok(None);
        }
        let line = self.start..end;
        self.after_cr = self.bytes[end] == b'\r';
        self.start = end + 1;
        self.searched = self.start;
        Ok(Some(&self.bytes[line]))
    }
}

//! Splits bytes into lines, wherever the reads fell, with a cap on their length.

use memchr::memchr;

use crate::llm::{error::ProviderError, providers::lenient_json};

/// The longest line, or event, that is read from a model server, in bytes.
pub(super) const MAX_LINE: usize = 8 * 1024 * 1024;

pub(super) type GoOn = bool;

pub(super) fn too_long() -> ProviderError {
    ProviderError::failed(format!("a line of more than {MAX_LINE} bytes"))
}

/// Collects the part of a line that a read left over.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Calls `each` with every line that is complete now, without its LF or CRLF, until it wants no more. Empty lines are
    /// left out.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<GoOn, ProviderError>,
    ) -> Result<GoOn, ProviderError> {
        while let Some(at) = memchr(b'\n', bytes) {
            let (head, rest) = bytes.split_at(at);
            bytes = rest.get(1..).unwrap_or_default();
            let go_on = if self.partial.is_empty() {
                one(head, &mut each)?
            } else {
                self.keep(head)?;
                let go_on = one(&self.partial, &mut each);
                self.partial.clear();
                go_on?
            };
            if !go_on {
                return Ok(false);
            }
        }
        self.keep(bytes)?;
        Ok(true)
    }

    /// Calls `each` with the last line where its end is missing.
    pub(super) fn finish(
        &mut self,
        mut each: impl FnMut(&[u8]) -> Result<GoOn, ProviderError>,
    ) -> Result<GoOn, ProviderError> {
        one(&std::mem::take(&mut self.partial), &mut each)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), ProviderError> {
        if self.partial.len() + bytes.len() > MAX_LINE {
            return Err(too_long());
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }
}

fn one(
    line: &[u8],
    each: &mut impl FnMut(&[u8]) -> Result<GoOn, ProviderError>,
) -> Result<GoOn, ProviderError> {
    match lenient_json::without_bom(line.trim_ascii()) {
        [] => Ok(true),
        _ if line.len() > MAX_LINE => Err(too_long()),
        line => each(line),
    }
}

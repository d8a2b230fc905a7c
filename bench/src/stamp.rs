//! Tokens that say when they were sent, so that their way can be timed: the machine's monotonic clock, in nanoseconds.

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

/// What a stamp begins with.
pub const MARK: u8 = b'~';

/// The digits of a stamp.
pub const DIGITS: usize = 17;

/// A token's text: the mark, the digits, and a space.
pub const TOKEN: &str = "~00000000000000000 ";

/// The clock that every process of the machine shares, in nanoseconds.
pub fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Writes a time into the digits of a stamp.
pub fn write(mut ns: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(ns % 10).unwrap_or(0);
        ns /= 10;
    }
}

fn read(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |ns, digit| {
        digit.is_ascii_digit().then(|| ns * 10 + u64::from(digit - b'0'))
    })
}

/// Finds stamps in bytes, however the reads cut them and whatever wire they came on.
#[derive(Debug, Default)]
pub struct Scanner {
    partial: Vec<u8>,
    /// Stamps seen.
    pub tokens: u64,
}

impl Scanner {
    /// Calls `each` with the time of every stamp that is complete now.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(u64)) {
        if self.partial.is_empty() {
            self.scan(bytes, &mut each);
        } else {
            let mut joined = std::mem::take(&mut self.partial);
            joined.extend_from_slice(bytes);
            self.scan(&joined, &mut each);
        }
    }

    fn scan(&mut self, mut bytes: &[u8], each: &mut impl FnMut(u64)) {
        while let Some(at) = memchr::memchr(MARK, bytes) {
            let rest = bytes.get(at..).unwrap_or_default();
            let Some(digits) = rest.get(1..=DIGITS) else {
                // A frame's length may look like a mark: what follows then has no digits and is passed over next time.
                self.partial.extend_from_slice(rest);
                return;
            };
            bytes = match read(digits) {
                Some(ns) => {
                    self.tokens += 1;
                    each(ns);
                    rest.get(1 + DIGITS..).unwrap_or_default()
                }
                None => rest.get(1..).unwrap_or_default(),
            };
        }
    }
}

/// A histogram of times in nanoseconds, to three digits.
pub fn histogram() -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, 600_000_000_000, 3)
        .unwrap_or_else(|_| unreachable!("these bounds are fixed and valid"));
    histogram.auto(true);
    histogram
}

/// Its p50, p99 and largest value, in microseconds.
pub fn percentiles(histogram: &Histogram<u64>) -> serde_json::Value {
    let us = |quantile| micros(histogram.value_at_quantile(quantile));
    serde_json::json!({
        "count": histogram.len(), "p50_us": us(0.5), "p90_us": us(0.9), "p99_us": us(0.99), "max_us": micros(histogram.max()),
    })
}

#[expect(clippy::cast_precision_loss, reason = "microseconds for people")]
fn micros(ns: u64) -> f64 {
    (ns as f64 / 100.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_found_wherever_the_reads_cut() {
        let mut text = b"\x81~\x00\x80{\"token\":\"~00000000000000000 \"} ~12 ".to_vec();
        let at = text.len() - b" \"} ~12 ".len() - DIGITS;
        write(1_234_567, &mut text[at..at + DIGITS]);
        text.extend_from_slice(b"and so on, and so on");
        for cut in 0..text.len() {
            let (mut scanner, mut seen) = (Scanner::default(), Vec::new());
            scanner.feed(&text[..cut], |ns| seen.push(ns));
            scanner.feed(&text[cut..], |ns| seen.push(ns));
            assert_eq!(seen, [1_234_567], "{cut}");
        }
    }
}

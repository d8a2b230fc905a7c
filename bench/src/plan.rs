//! What the mock is to answer, said in the user's message itself, so that every contender carries it unknowingly.

use std::time::Duration;

use memchr::memmem;

const WORD: &[u8] = b"plan ";

/// An answer: so many tokens, one each `gap`, the first after `first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many tokens.
    pub tokens: u64,
    /// The time between two; zero for as fast as the reader takes them.
    pub gap: Duration,
    /// The time before the first.
    pub first: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self { tokens: 16, gap: Duration::ZERO, first: Duration::ZERO }
    }
}

impl Plan {
    /// The message that asks for it.
    pub fn message(&self) -> String {
        format!("plan {} {} {} please", self.tokens, self.gap.as_micros(), self.first.as_micros())
    }

    /// The last plan in a request: earlier ones are its history.
    pub fn of(request: &[u8]) -> Self {
        let found = memmem::rfind(request, WORD).and_then(|at| {
            let words = request.get(at + WORD.len()..)?;
            let mut numbers = words.splitn(4, |byte| *byte == b' ').map(number);
            Some(Self {
                tokens: numbers.next()??,
                gap: Duration::from_micros(numbers.next()??),
                first: Duration::from_micros(numbers.next()??),
            })
        });
        found.unwrap_or_default()
    }
}

fn number(word: &[u8]) -> Option<u64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_plan_of_a_request_counts() {
        let plan =
            Plan { tokens: 3, gap: Duration::from_micros(500), first: Duration::from_millis(1) };
        let request =
            format!(r#"{{"messages":["plan 9 9 9 please","{}"],"options":{{}}}}"#, plan.message());
        assert_eq!(Plan::of(request.as_bytes()), plan);
        assert_eq!(Plan::of(b"{}"), Plan::default());
    }
}

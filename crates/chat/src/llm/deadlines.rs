//! Time limits of one answer: to the first token, between reads, and in all.

use std::{pin::Pin, task::Poll, time::Duration};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::llm::error::{ErrorKind, ProviderError};

/// The limits of one provider's answer, from its first request on.
pub(super) struct StreamTimeouts {
    first: Instant,
    idle: Duration,
    total: Instant,
    last_read: Option<Instant>,
    /// One timer for all: moved only when it fires or when the first token comes, never per token.
    timer: Pin<Box<Sleep>>,
}

impl StreamTimeouts {
    pub(super) fn new(first: Duration, idle: Duration, total: Duration) -> Self {
        let now = Instant::now();
        let (first, total) = (after(now, first), after(now, total));
        Self { first, idle, total, last_read: None, timer: Box::pin(sleep_until(first.min(total))) }
    }

    /// Records a read; the first one ends the wait for the first token.
    pub(super) fn restart_idle(&mut self, now: Instant) {
        let is_first = self.last_read.is_none();
        self.last_read = Some(now);
        if is_first {
            let deadline = self.deadline();
            self.timer.as_mut().reset(deadline);
        }
    }

    /// What the future gives, unless a limit passes before.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`].
    pub(super) async fn limit<F: Future>(&mut self, future: F) -> Result<F::Output, ProviderError> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                // A server that never pauses would never meet the timer.
                let over = self.last_read.is_some_and(|read| read >= self.total);
                return Poll::Ready(if over { Err(self.expired()) } else { Ok(output) });
            }
            while self.timer.as_mut().poll(cx).is_ready() {
                let deadline = self.deadline();
                if Instant::now() >= deadline {
                    return Poll::Ready(Err(self.expired()));
                }
                self.timer.as_mut().reset(deadline);
            }
            Poll::Pending
        })
        .await
    }

    fn deadline(&self) -> Instant {
        let pause = self.last_read.map_or(self.first, |read| after(read, self.idle));
        pause.min(self.total)
    }

    fn expired(&self) -> ProviderError {
        let what = match self.last_read {
            _ if Instant::now() >= self.total => "the answer was not complete in time",
            None => "no first token in time",
            Some(_) => "no further token in time",
        };
        ProviderError::new(ErrorKind::Timeout, what)
    }
}

/// That time later; a time so long that no clock holds it is as good as a year.
fn after(start: Instant, wait: Duration) -> Instant {
    start.checked_add(wait).unwrap_or_else(|| start + Duration::from_secs(365 * 24 * 3600))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// How long it waits from now on, in milliseconds.
    async fn waits(mut timeouts: StreamTimeouts) -> u128 {
        let start = Instant::now();
        timeouts.limit(std::future::pending::<()>()).await.unwrap_err();
        start.elapsed().as_millis()
    }

    #[tokio::test]
    async fn the_first_token_the_next_one_and_the_whole_are_waited_for_separately() {
        let hour = MS(3_600_000);
        assert!((20..2000).contains(&waits(StreamTimeouts::new(MS(20), hour, hour)).await));
        assert!((20..2000).contains(&waits(StreamTimeouts::new(hour, hour, MS(20))).await));
        for (idle, total) in [(MS(20), hour), (hour, MS(20))] {
            let mut timeouts = StreamTimeouts::new(hour, idle, total);
            timeouts.restart_idle(Instant::now());
            assert!((19..2000).contains(&waits(timeouts).await));
        }
    }

    #[tokio::test]
    async fn every_read_begins_the_pause_anew() {
        let hour = MS(3_600_000);
        let mut timeouts = StreamTimeouts::new(hour, MS(400), hour);
        let start = Instant::now();
        while start.elapsed() < MS(900) {
            timeouts.restart_idle(Instant::now());
            timeouts.limit(tokio::time::sleep(MS(20))).await.unwrap();
        }
        timeouts.restart_idle(Instant::now());
        assert!(waits(timeouts).await >= 399);
    }

    #[tokio::test]
    async fn a_server_that_never_pauses_is_stopped_too() {
        let hour = MS(3_600_000);
        let mut timeouts = StreamTimeouts::new(hour, hour, MS(50));
        let start = Instant::now();
        while timeouts.limit(std::future::ready(())).await.is_ok() {
            timeouts.restart_idle(Instant::now());
        }
        assert!((49..2000).contains(&start.elapsed().as_millis()));
    }
}

//! How long one provider may take: to the first token, from read to read, and in all.

use std::{future::Future, pin::Pin, task::Poll, time::Duration};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::llm::error::ModelError;

/// The clocks of one provider's answer, from its first request on.
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
        Self {
            first,
            idle,
            total,
            last_read: None,
            timer: Box::pin(sleep_until(first.min(total))),
        }
    }

    /// Something was read now, and the first token has come.
    pub(super) fn read(&mut self, now: Instant) {
        let is_first = self.last_read.is_none();
        self.last_read = Some(now);
        if is_first {
            let deadline = self.deadline();
            self.timer.as_mut().reset(deadline);
        }
    }

    /// What the future gives, unless patience ends before.
    ///
    /// # Errors
    /// [`ModelError::Timeout`].
    pub(super) async fn with<F: Future + Unpin>(
        &mut self,
        mut wait: F,
    ) -> Result<F::Output, ModelError> {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = Pin::new(&mut wait).poll(cx) {
                // A server that never pauses would never meet the timer.
                let over = self.last_read.is_some_and(|read| read >= self.total);
                return Poll::Ready(if over {
                    Err(self.expired())
                } else {
                    Ok(output)
                });
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
        let pause = self
            .last_read
            .map_or(self.first, |read| after(read, self.idle));
        pause.min(self.total)
    }

    fn expired(&self) -> ModelError {
        let what = match self.last_read {
            _ if Instant::now() >= self.total => "the answer was not whole in time",
            None => "no first token in time",
            Some(_) => "it fell silent",
        };
        ModelError::Timeout(what.to_owned())
    }
}

/// That time later; a time so long that no clock holds it is as good as a year.
fn after(start: Instant, wait: Duration) -> Instant {
    start
        .checked_add(wait)
        .unwrap_or_else(|| start + Duration::from_secs(365 * 24 * 3600))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// How long it waits from now on, in milliseconds.
    async fn waits(mut patience: StreamTimeouts) -> u128 {
        let start = Instant::now();
        patience
            .with(std::future::pending::<()>())
            .await
            .unwrap_err();
        start.elapsed().as_millis()
    }

    #[tokio::test]
    async fn the_first_token_the_next_one_and_the_whole_are_waited_for_separately() {
        let hour = MS(3_600_000);
        assert!((20..2000).contains(&waits(StreamTimeouts::new(MS(20), hour, hour)).await));
        assert!((20..2000).contains(&waits(StreamTimeouts::new(hour, hour, MS(20))).await));
        for (idle, total) in [(MS(20), hour), (hour, MS(20))] {
            let mut patience = StreamTimeouts::new(hour, idle, total);
            patience.read(Instant::now());
            assert!((19..2000).contains(&waits(patience).await));
        }
    }

    #[tokio::test]
    async fn every_read_begins_the_pause_anew() {
        let hour = MS(3_600_000);
        let mut patience = StreamTimeouts::new(hour, MS(400), hour);
        let start = Instant::now();
        while start.elapsed() < MS(900) {
            patience.read(Instant::now());
            patience
                .with(Box::pin(tokio::time::sleep(MS(20))))
                .await
                .unwrap();
        }
        patience.read(Instant::now());
        assert!(waits(patience).await >= 399);
    }

    #[tokio::test]
    async fn a_server_that_never_pauses_is_stopped_too() {
        let hour = MS(3_600_000);
        let mut patience = StreamTimeouts::new(hour, hour, MS(50));
        let start = Instant::now();
        while patience.with(std::future::ready(())).await.is_ok() {
            patience.read(Instant::now());
        }
        assert!((49..2000).contains(&start.elapsed().as_millis()));
    }
}

//! How much a socket may send: a flood of frames or of bad ones ends it.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// Frames in [`FLOOD_PERIOD`].
const FLOOD: usize = 100;
const FLOOD_PERIOD: Duration = Duration::from_secs(10);

/// Bad frames in [`BAD_PERIOD`].
const BAD: usize = 20;
const BAD_PERIOD: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct FrameLimiter {
    all: VecDeque<Instant>,
    bad: VecDeque<Instant>,
}

impl FrameLimiter {
    /// Counts a frame; `false`: that was one too many.
    pub fn take(&mut self, now: Instant) -> bool {
        count(&mut self.all, now, FLOOD_PERIOD) <= FLOOD
    }

    /// Counts a bad frame; `false`: that was one too many.
    pub fn take_bad(&mut self, now: Instant) -> bool {
        count(&mut self.bad, now, BAD_PERIOD) < BAD
    }
}

fn count(times: &mut VecDeque<Instant>, now: Instant, period: Duration) -> usize {
    while times.front().is_some_and(|&first| now.duration_since(first) >= period) {
        times.pop_front();
    }
    times.push_back(now);
    times.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_noticed_and_a_pace_is_not() {
        let (mut frames, now) = (FrameLimiter::default(), Instant::now());
        assert!((0..100).all(|_| frames.take(now)));
        assert!(!frames.take(now));
        let mut frames = FrameLimiter::default();
        assert!((0..1000).all(|i| frames.take(now + Duration::from_millis(101 * i))));
    }

    #[test]
    fn the_twentieth_bad_frame_in_a_minute_is_too_many() {
        let (mut frames, now) = (FrameLimiter::default(), Instant::now());
        assert!((0..19).all(|_| frames.take_bad(now)));
        assert!(!frames.take_bad(now));
    }
}

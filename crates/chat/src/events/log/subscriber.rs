//! A reader of a turn's events, at its own place.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    domain::event::Kind,
    events::log::{DRESS, EventLog, State},
};

/// Unsent bytes at which a reader is cut: what came since it attached, beyond what it has taken.
pub const LAG_LIMIT: usize = 256 * 1024;

/// A reader that took something so lately, or had nothing to take, is not slow: its model is faster than any network.
const LAG_TIME: Duration = Duration::from_secs(1);

/// Bytes handed over at once, so that a reader's own buffers stay small.
const HAND_OVER: usize = 32 * 1024;

/// A reader of an [`EventLog`], at its own place. Dropping it is how a reader leaves.
#[derive(Debug)]
pub struct Watch {
    log: Arc<EventLog>,
    next: usize,
    attached: usize,
    took_at: Instant,
}

/// What a reader gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Events were handed over; more may come.
    More,
    /// The ending was handed over, or had been read before.
    Ended,
    /// The reader is too slow: it is cut, and may come again.
    Lagging,
    /// The log's source is gone without an ending: the reader may come again elsewhere.
    Gone,
}

impl EventLog {
    /// A reader of what comes after that id.
    pub fn watch(self: &Arc<Self>, after: u64) -> Watch {
        self.watchers.fetch_add(1, Ordering::SeqCst);
        metrics::gauge!("chat_watchers_open").increment(1.0);
        self.watchers_changed.notify_waiters();
        let state = self.state();
        let attached = state.size_before(state.marks.len());
        drop(state);
        Watch {
            log: Arc::clone(self),
            next: usize::try_from(after).unwrap_or(usize::MAX),
            attached,
            took_at: Instant::now(),
        }
    }
}

impl Watch {
    /// The same reader, never taken for slow: for one who gathers the whole answer, and keeps up with nobody's network.
    #[must_use]
    pub fn patient(mut self) -> Self {
        self.attached = usize::MAX;
        self
    }

    /// Hands every event that is there to `take` (id, kind, data), waiting for one where there is none.
    pub async fn next(&mut self, mut take: impl FnMut(u64, Kind, &str)) -> Step {
        if let Some(step) = self.take_ready(&mut take) {
            return step;
        }
        loop {
            let log = Arc::clone(&self.log);
            let grown = log.grown.notified();
            tokio::pin!(grown);
            grown.as_mut().enable();
            if let Some(step) = self.take_ready(&mut take) {
                return step;
            }
            grown.await;
        }
    }

    /// Hands over what is there now; `None` where there is nothing yet.
    pub fn take_ready(&mut self, take: &mut impl FnMut(u64, Kind, &str)) -> Option<Step> {
        let state = self.log.state();
        if self.lags(&state) {
            return Some(Step::Lagging);
        }
        if self.next >= state.marks.len() {
            return match (state.ended, state.cut) {
                (true, _) => Some(self.after_the_end(&state, take)),
                (false, true) => Some(Step::Gone),
                (false, false) => None,
            };
        }
        let mut handed = 0;
        while let Some((kind, data)) = state.event(self.next).filter(|_| handed < HAND_OVER) {
            self.next += 1;
            handed += data.len() + DRESS;
            take(self.next as u64, kind, data);
        }
        self.took_at = Instant::now();
        let is_all = self.next >= state.marks.len();
        Some(if state.ended && is_all {
            Step::Ended
        } else {
            Step::More
        })
    }

    /// A reader that has more than the log (its instance died before it stored the last events) still gets the ending,
    /// under the next id. After the largest number there is no next one.
    fn after_the_end(&self, state: &State, take: &mut impl FnMut(u64, Kind, &str)) -> Step {
        let last = state.marks.len();
        if let Some((kind, data)) = last.checked_sub(1).and_then(|index| state.event(index))
            && (self.next > last || kind == Kind::Lost)
        {
            take((self.next as u64).saturating_add(1), kind, data);
        }
        Step::Ended
    }

    fn lags(&self, state: &State) -> bool {
        let all = state.marks.len();
        let taken = state.size_before(self.next.min(all));
        let unsent = state
            .size_before(all)
            .saturating_sub(taken.max(self.attached));
        unsent > LAG_LIMIT && self.idle_since(state).elapsed() > LAG_TIME
    }

    /// Since when it has left something untaken: not before there was something to take.
    fn idle_since(&self, state: &State) -> Instant {
        let came = state.marks.get(self.next).map(|mark| mark.at);
        came.map_or(self.took_at, |at| {
            let came = self.log.born + Duration::from_millis(at.into());
            self.took_at.max(came)
        })
    }

    /// Whether there is nothing left to read: the ending was read before.
    pub fn is_past_the_end(&self) -> bool {
        self.log
            .ending()
            .is_some_and(|(id, kind)| self.next as u64 == id && kind != Kind::Lost)
    }

    /// The log that is read.
    pub fn log(&self) -> &Arc<EventLog> {
        &self.log
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.log.watchers.fetch_sub(1, Ordering::SeqCst);
        metrics::gauge!("chat_watchers_open").decrement(1.0);
        self.log.watchers_changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::Event;

    fn read_all(watch: &mut Watch) -> (Vec<(u64, Kind)>, Option<Step>) {
        let mut got = Vec::new();
        let step = watch.take_ready(&mut |id, kind, _| got.push((id, kind)));
        (got, step)
    }

    fn ended_log() -> Arc<EventLog> {
        let log = EventLog::new();
        log.append([
            Event::token("a"),
            Event::token("b"),
            Event {
                kind: Kind::Done,
                data: String::new(),
            },
        ]);
        log
    }

    #[test]
    fn a_reader_gets_what_comes_after_its_place_once() {
        let log = ended_log();
        for after in 0..3 {
            let (got, step) = read_all(&mut log.watch(after));
            assert_eq!(
                got.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
                (after + 1..=3).collect::<Vec<_>>()
            );
            assert_eq!(step, Some(Step::Ended));
        }
        assert!(log.watch(3).is_past_the_end());
    }

    #[test]
    fn a_reader_that_has_more_than_the_log_gets_the_ending_under_the_next_id() {
        let (got, step) = read_all(&mut ended_log().watch(9));
        assert_eq!((got, step), (vec![(10, Kind::Done)], Some(Step::Ended)));
    }

    #[test]
    fn a_reader_that_claims_the_largest_id_gets_the_ending() {
        let (got, step) = read_all(&mut ended_log().watch(u64::MAX));
        assert_eq!(
            (got, step),
            (vec![(u64::MAX, Kind::Done)], Some(Step::Ended))
        );
    }

    #[test]
    fn a_patient_reader_is_not_cut_however_late_it_takes() {
        let log = EventLog::born(Instant::now() - LAG_TIME * 3);
        let mut late = log.watch(0).patient();
        late.took_at -= LAG_TIME * 3;
        log.append([Event::token(&"x".repeat(LAG_LIMIT + 1))]);
        log.state().marks[0].at -= 2000;
        assert_eq!(read_all(&mut late).1, Some(Step::More));
    }

    #[test]
    fn a_reader_that_lags_is_cut_and_one_that_replays_or_waited_is_not() {
        let log = EventLog::born(Instant::now() - LAG_TIME * 3);
        let (mut slow, mut waiting) = (log.watch(0), log.watch(0));
        slow.took_at -= LAG_TIME * 3;
        waiting.took_at -= LAG_TIME * 3;
        log.append([Event::token(&"x".repeat(LAG_LIMIT + 1))]);
        assert_eq!(
            read_all(&mut waiting).1,
            Some(Step::More),
            "there was nothing to take before"
        );
        log.state().marks[0].at -= 2000;
        assert_eq!(read_all(&mut slow).1, Some(Step::Lagging));
        assert_eq!(read_all(&mut log.watch(0)).1, Some(Step::More));
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken_by_an_event() {
        let log = EventLog::new();
        let mut watch = log.watch(0);
        let writer = async { log.append([Event::token("a")]) };
        let (step, _) = tokio::join!(watch.next(|_, _, _| {}), writer);
        assert_eq!(step, Step::More);
    }
}

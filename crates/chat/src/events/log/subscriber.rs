//! A subscriber of a turn's events, at its own position.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{EventLog, State};
use crate::domain::event::EventRef;

/// Unread bytes at which a subscriber is cut off: of what was appended since it subscribed.
pub const LAG_LIMIT: usize = 256 * 1024;

/// A subscriber that read something within this time, or had nothing to read, is not slow: its model is just faster than its network.
const LAG_TIME: Duration = Duration::from_secs(1);

/// Bytes returned by one read, so that a reader's own buffers stay small.
const READ_SIZE: usize = 32 * 1024;

/// Reads an [`EventLog`]. Dropping it is how a reader leaves.
#[derive(Debug)]
pub struct Subscriber {
    log: Arc<EventLog>,
    /// The id of the last event that it has.
    last: u64,
    /// Bytes that the log had when this subscriber came.
    size_at_start: usize,
    read_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadResult {
    More,
    /// The last event was read, now or before.
    Ended,
    /// The reader is too slow and is cut off; it may resume.
    Lagging,
    /// The log's source is gone without an ending; the reader may resume elsewhere.
    Gone,
}

impl EventLog {
    /// A subscriber to the events after that id.
    pub fn subscribe(self: &Arc<Self>, after: u64) -> Subscriber {
        self.subscribers.fetch_add(1, Ordering::SeqCst);
        metrics::gauge!("chat_watchers_open").increment(1.0);
        self.subscribers_changed.notify_waiters();
        let state = self.state.lock();
        let size_at_start = state.size_before(state.entries.len());
        drop(state);
        Subscriber { log: Arc::clone(self), last: after, size_at_start, read_at: Instant::now() }
    }
}

impl Subscriber {
    /// The same subscriber, never cut off as slow: for one that collects the whole answer in memory.
    #[must_use]
    pub fn unbounded(mut self) -> Self {
        self.size_at_start = usize::MAX;
        self
    }

    /// Waits until nothing more is appended. One that needs no event before the last is not woken for each of them.
    pub async fn closed(&self) {
        let closed = self.log.closed.notified();
        let is_closed = self.log.state.lock().is_closed();
        if !is_closed {
            closed.await;
        }
    }

    /// Passes every available event to `take`, with its id; waits for one where there is none.
    pub async fn next(&mut self, mut take: impl FnMut(u64, EventRef<'_>)) -> ReadResult {
        loop {
            if let Some(result) = self.read_available(&mut take) {
                return result;
            }
            // Told of what is appended from here on; what came before it is read.
            let log = Arc::clone(&self.log);
            let grown = log.grown.notified();
            if let Some(result) = self.read_available(&mut take) {
                return result;
            }
            grown.await;
        }
    }

    /// Passes what is available now; `None` where there is nothing yet.
    pub fn read_available(
        &mut self,
        take: &mut impl FnMut(u64, EventRef<'_>),
    ) -> Option<ReadResult> {
        let state = self.log.state.lock();
        if self.lags(&state) {
            return Some(ReadResult::Lagging);
        }
        let mut next = state.index_after(self.last);
        if next >= state.entries.len() {
            return match (state.ended, state.cut) {
                (true, _) => Some(self.read_past_end(&state, take)),
                (false, true) => Some(ReadResult::Gone),
                (false, false) => None,
            };
        }
        let start = state.size_before(next);
        while let Some(event) = state.event(next)
            && state.size_before(next) - start < READ_SIZE
        {
            self.last = state.id(next);
            next += 1;
            take(self.last, event);
        }
        self.read_at = Instant::now();
        let is_all = next >= state.entries.len();
        Some(if state.ended && is_all { ReadResult::Ended } else { ReadResult::More })
    }

    /// A reader that says that it has more than there ever was still gets the ending, under the next id. After the largest number
    /// there is no next one.
    fn read_past_end(&self, state: &State, take: &mut impl FnMut(u64, EventRef<'_>)) -> ReadResult {
        if let Some(end) = state.end()
            && self.last > state.last_id()
        {
            take(self.last.saturating_add(1), EventRef::End(end));
        }
        ReadResult::Ended
    }

    fn lags(&self, state: &State) -> bool {
        let all = state.entries.len();
        let read = state.size_before(state.index_after(self.last).min(all));
        let unread = state.size_before(all).saturating_sub(read.max(self.size_at_start));
        unread > LAG_LIMIT && self.idle_since(state).elapsed() > LAG_TIME
    }

    /// Since when it has left something unread.
    fn idle_since(&self, state: &State) -> Instant {
        state.entries.get(state.index_after(self.last)).map_or(self.read_at, |entry| {
            let appended = self.log.created + Duration::from_millis(entry.at.into());
            self.read_at.max(appended)
        })
    }

    /// Whether there is nothing left to read: the last event was read before.
    pub fn is_past_end(&self) -> bool {
        let state = self.log.state.lock();
        state.ended && self.last == state.last_id()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.log.subscribers.fetch_sub(1, Ordering::SeqCst);
        metrics::gauge!("chat_watchers_open").decrement(1.0);
        self.log.subscribers_changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        Ending,
        event::{End, Event, RECOVERY_GAP},
    };

    fn read_all(subscriber: &mut Subscriber) -> (Vec<u64>, Option<ReadResult>) {
        let mut ids = Vec::new();
        let result = subscriber.read_available(&mut |id, _| ids.push(id));
        (ids, result)
    }

    fn log_ended(by_recovery: bool) -> Arc<EventLog> {
        let log = EventLog::new();
        let end = End { ending: Ending::interrupted(), request_id: "".into(), by_recovery };
        log.append([Event::Token("a".into()), Event::Queued { position: 1 }, Event::End(end)]);
        log
    }

    fn ended_log() -> Arc<EventLog> {
        log_ended(false)
    }

    #[test]
    fn a_subscriber_reads_what_follows_its_position_once() {
        let log = ended_log();
        for after in 0..3 {
            let (ids, result) = read_all(&mut log.subscribe(after));
            assert_eq!(ids, (after + 1..=3).collect::<Vec<_>>());
            assert_eq!(result, Some(ReadResult::Ended));
        }
        assert!(log.subscribe(3).is_past_end());
    }

    #[test]
    fn a_subscriber_that_has_more_than_the_log_reads_the_ending_under_the_next_id() {
        for (after, id) in [(9, 10), (u64::MAX, u64::MAX)] {
            let read = read_all(&mut ended_log().subscribe(after));
            assert_eq!(read, (vec![id], Some(ReadResult::Ended)));
        }
    }

    #[test]
    fn an_ending_that_recovery_wrote_is_above_every_id_that_a_reader_can_have() {
        let (log, end) = (log_ended(true), 2 + RECOVERY_GAP);
        assert_eq!(log.last_id(), end);
        for (after, ids) in
            [(1, vec![2, end]), (2, vec![end]), (3, vec![end]), (end - 1, vec![end])]
        {
            let mut subscriber = log.subscribe(after);
            assert!(!subscriber.is_past_end(), "{after}");
            assert_eq!(read_all(&mut subscriber), (ids, Some(ReadResult::Ended)), "{after}");
            assert!(subscriber.is_past_end(), "{after}");
            assert_eq!(read_all(&mut subscriber), (vec![], Some(ReadResult::Ended)), "{after}");
        }
        assert_eq!(read_all(&mut log.subscribe(end + 1)).0, [end + 2]);
    }

    fn text() -> [Event; 1] {
        [Event::Token("x".repeat(LAG_LIMIT + 1))]
    }

    #[test]
    fn an_unbounded_subscriber_is_not_cut_off_however_late_it_reads() {
        let log = EventLog::created_at(Instant::now() - LAG_TIME * 3);
        let mut late = log.subscribe(0).unbounded();
        late.read_at -= LAG_TIME * 3;
        log.append(text());
        log.state.lock().entries[0].at -= 2000;
        assert_eq!(read_all(&mut late).1, Some(ReadResult::More));
    }

    #[test]
    fn a_slow_subscriber_is_cut_off_and_one_that_replays_or_waited_is_not() {
        let log = EventLog::created_at(Instant::now() - LAG_TIME * 3);
        let (mut slow, mut waiting) = (log.subscribe(0), log.subscribe(0));
        slow.read_at -= LAG_TIME * 3;
        waiting.read_at -= LAG_TIME * 3;
        log.append(text());
        assert_eq!(
            read_all(&mut waiting).1,
            Some(ReadResult::More),
            "there was nothing to read before"
        );
        log.state.lock().entries[0].at -= 2000;
        assert_eq!(read_all(&mut slow).1, Some(ReadResult::Lagging));
        assert_eq!(read_all(&mut log.subscribe(0)).1, Some(ReadResult::More));
    }

    #[tokio::test]
    async fn a_waiting_subscriber_is_woken_by_an_event() {
        let log = EventLog::new();
        let mut subscriber = log.subscribe(0);
        let writer = async { log.append([Event::Token("a".into())]) };
        let (result, _) = tokio::join!(subscriber.next(|_, _| {}), writer);
        assert_eq!(result, ReadResult::More);
    }
}

//! A turn's events in memory: one writer appends, any number of subscribers read at their own pace.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::domain::event::{End, Event, EventRef, RECOVERY_GAP};

mod subscriber;

pub use subscriber::{LAG_LIMIT, ReadResult, Subscriber};

/// About what an event takes on the wire beside its text, in bytes: its id, its name, the names of members.
const FRAME_OVERHEAD: usize = 48;

/// The events of one turn, with ids from 1, without a gap but before an ending that recovery wrote. Text is kept once, however many
/// read it.
#[derive(Debug)]
pub struct EventLog {
    created: Instant,
    /// A panic while it is held leaves at worst text without an entry: still readable.
    state: Mutex<State>,
    grown: Notify,
    /// Woken once, when nothing follows any more.
    closed: Notify,
    subscribers: AtomicUsize,
    subscribers_changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    text: String,
    entries: Vec<Entry>,
    /// Events that are not text, by the index of their entry.
    others: Vec<(usize, Event)>,
    ended: bool,
    cut: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    kind: EntryKind,
    /// When it was appended, in milliseconds since the log was created.
    at: u32,
    end: usize,
}

#[derive(Clone, Copy, Debug)]
enum EntryKind {
    Token,
    Thinking,
    Other,
}

impl State {
    fn text_end(&self, entries: usize) -> usize {
        let last = entries.checked_sub(1).and_then(|last| self.entries.get(last));
        last.map_or(0, |entry| entry.end)
    }

    fn event(&self, index: usize) -> Option<EventRef<'_>> {
        let entry = self.entries.get(index)?;
        let text = || self.text.get(self.text_end(index)..entry.end);
        match entry.kind {
            EntryKind::Token => text().map(EventRef::Token),
            EntryKind::Thinking => text().map(EventRef::Thinking),
            EntryKind::Other => {
                let at = self.others.binary_search_by_key(&index, |(at, _)| *at).ok()?;
                self.others.get(at).map(|(_, event)| event.as_ref())
            }
        }
    }

    fn end(&self) -> Option<&End> {
        match self.others.last() {
            Some((_, Event::End(end))) => Some(end),
            _ => None,
        }
    }

    /// The id of the event at that index.
    fn id(&self, index: usize) -> u64 {
        let is_end = self.ended && index + 1 == self.entries.len();
        let has_gap = is_end && self.end().is_some_and(|end| end.by_recovery);
        index as u64 + if has_gap { RECOVERY_GAP } else { 1 }
    }

    fn last_id(&self) -> u64 {
        self.entries.len().checked_sub(1).map_or(0, |last| self.id(last))
    }

    /// The index of the event after that id.
    fn index_after(&self, id: u64) -> usize {
        let index = usize::try_from(id).unwrap_or(usize::MAX);
        // An id from the gap before the ending.
        if self.ended && id < self.last_id() { index.min(self.entries.len() - 1) } else { index }
    }

    fn is_closed(&self) -> bool {
        self.ended || self.cut
    }

    /// About how many bytes the events before that one take on the wire.
    fn size_before(&self, index: usize) -> usize {
        self.text_end(index) + index * FRAME_OVERHEAD
    }
}

impl EventLog {
    pub fn new() -> Arc<Self> {
        Self::created_at(Instant::now())
    }

    fn created_at(created: Instant) -> Arc<Self> {
        Arc::new(Self {
            created,
            state: Mutex::default(),
            grown: Notify::new(),
            closed: Notify::new(),
            subscribers: AtomicUsize::new(0),
            subscribers_changed: Notify::new(),
        })
    }

    /// Appends what `write` appends, and wakes every subscriber once.
    pub fn write<T>(&self, write: impl FnOnce(&mut Writer<'_>) -> T) -> T {
        let at = u32::try_from(self.created.elapsed().as_millis()).unwrap_or(u32::MAX);
        let mut state = self.state.lock();
        let before = state.entries.len();
        let written = write(&mut Writer { state: &mut state, at });
        let (grown, closed) = (state.entries.len() > before, state.is_closed());
        drop(state);
        if grown {
            self.grown.notify_waiters();
        }
        if grown && closed {
            self.closed.notify_waiters();
        }
        written
    }

    pub fn append(&self, events: impl IntoIterator<Item = Event>) -> u64 {
        self.write(|writer| {
            for event in events {
                writer.push(event);
            }
            writer.state.last_id()
        })
    }

    /// Passes the events after that id to `take`, with their ids, until it says `false`; returns the id of the last one.
    pub fn for_each_after(&self, id: u64, mut take: impl FnMut(u64, EventRef<'_>) -> bool) -> u64 {
        let state = self.state.lock();
        for index in state.index_after(id)..state.entries.len() {
            let id = state.id(index);
            if let Some(event) = state.event(index)
                && !take(id, event)
            {
                return id;
            }
        }
        state.last_id()
    }

    /// Tells every subscriber that no more events come from here, without an ending: they may resume elsewhere.
    pub fn cut(&self) {
        self.state.lock().cut = true;
        self.grown.notify_waiters();
        self.closed.notify_waiters();
    }

    pub fn last_id(&self) -> u64 {
        self.state.lock().last_id()
    }

    pub fn has_ended(&self) -> bool {
        self.state.lock().ended
    }

    pub fn subscriber_count(&self) -> usize {
        self.subscribers.load(Ordering::SeqCst)
    }

    /// Resolves when there is a subscriber (`true`) or none (`false`).
    pub async fn until_subscribed(&self, subscribed: bool) {
        loop {
            let changed = self.subscribers_changed.notified();
            if (self.subscriber_count() > 0) == subscribed {
                return;
            }
            changed.await;
        }
    }
}

pub struct Writer<'a> {
    state: &'a mut State,
    at: u32,
}

impl Writer<'_> {
    pub fn token(&mut self, text: &str) {
        self.text(EntryKind::Token, text);
    }

    pub fn thinking(&mut self, text: &str) {
        self.text(EntryKind::Thinking, text);
    }

    /// Appends an event. Nothing is appended after an ending.
    pub fn push(&mut self, event: Event) {
        match event {
            Event::Token(text) => self.token(&text),
            Event::Thinking(text) => self.thinking(&text),
            other if !self.state.ended => {
                self.state.ended = matches!(other, Event::End(_));
                self.state.others.push((self.state.entries.len(), other));
                self.entry(EntryKind::Other);
            }
            _ => {}
        }
    }

    fn text(&mut self, kind: EntryKind, text: &str) {
        if !self.state.ended {
            self.state.text.push_str(text);
            self.entry(kind);
        }
    }

    fn entry(&mut self, kind: EntryKind) {
        let (at, end) = (self.at, self.state.text.len());
        self.state.entries.push(Entry { kind, at, end });
    }
}

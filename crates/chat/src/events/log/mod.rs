//! A turn's events in memory: one writer appends, any number of readers follow at their own pace.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{sync::Notify, time::Instant};

use crate::domain::event::{Event, Kind};

mod subscriber;

pub use crate::events::log::subscriber::{LAG_LIMIT, Step, Watch};

/// What an event takes on the wire beside its data, about: its id, its name, the names of members.
const DRESS: usize = 48;

/// The events of one turn, from id 1. Text is kept once, however many read it.
#[derive(Debug)]
pub struct EventLog {
    born: Instant,
    state: Mutex<State>,
    grown: Notify,
    watchers: AtomicUsize,
    watchers_changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    text: String,
    marks: Vec<Mark>,
    ended: bool,
    cut: bool,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    kind: Kind,
    /// When it came, in milliseconds after the log's birth.
    at: u32,
    end: usize,
}

impl State {
    fn event(&self, index: usize) -> Option<(Kind, &str)> {
        let mark = self.marks.get(index)?;
        let start = index
            .checked_sub(1)
            .and_then(|before| self.marks.get(before))
            .map_or(0, |mark| mark.end);
        Some((mark.kind, self.text.get(start..mark.end)?))
    }

    /// Bytes on the wire, about, of the events before that one.
    fn size_before(&self, index: usize) -> usize {
        let text = index
            .checked_sub(1)
            .and_then(|before| self.marks.get(before))
            .map_or(0, |mark| mark.end);
        text + index * DRESS
    }
}

impl EventLog {
    /// An empty log.
    pub fn new() -> Arc<Self> {
        Self::born(Instant::now())
    }

    fn born(born: Instant) -> Arc<Self> {
        Arc::new(Self {
            born,
            state: Mutex::default(),
            grown: Notify::new(),
            watchers: AtomicUsize::new(0),
            watchers_changed: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held leaves at worst an event half appended to `text` and not marked: still readable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends what `write` writes, and wakes every reader once.
    pub fn write<T>(&self, write: impl FnOnce(&mut Page<'_>) -> T) -> T {
        let at = u32::try_from(self.born.elapsed().as_millis()).unwrap_or(u32::MAX);
        let mut state = self.state();
        let before = state.marks.len();
        let written = write(&mut Page {
            state: &mut state,
            at,
        });
        let grown = state.marks.len() > before;
        drop(state);
        if grown {
            self.grown.notify_waiters();
        }
        written
    }

    /// Appends events, and returns the last id.
    pub fn append(&self, events: impl IntoIterator<Item = Event>) -> u64 {
        self.write(|page| {
            for event in events {
                page.push(event.kind, &event.data);
            }
            page.state.marks.len() as u64
        })
    }

    /// Hands every event so far to `take`.
    pub fn each(&self, mut take: impl FnMut(Kind, &str)) {
        let state = self.state();
        for (kind, data) in (0..state.marks.len()).filter_map(|index| state.event(index)) {
            take(kind, data);
        }
    }

    /// Tells every reader that no more will come from here, without an ending: they are cut, and may resume elsewhere.
    pub fn cut(&self) {
        self.state().cut = true;
        self.grown.notify_waiters();
    }

    /// The last id.
    pub fn last_id(&self) -> u64 {
        self.state().marks.len() as u64
    }

    /// Whether the ending is in.
    pub fn has_ended(&self) -> bool {
        self.state().ended
    }

    /// The ending, if it is in: its id and kind.
    pub fn ending(&self) -> Option<(u64, Kind)> {
        let state = self.state();
        let last = state.marks.last()?;
        state.ended.then_some((state.marks.len() as u64, last.kind))
    }

    /// The events after that id as lines for the store, and the last id among them.
    pub fn lines_after(&self, id: u64) -> (String, u64) {
        let state = self.state();
        let mut lines = String::new();
        for index in usize::try_from(id).unwrap_or(usize::MAX)..state.marks.len() {
            if let Some((kind, data)) = state.event(index) {
                Event::write_line(index as u64 + 1, kind, data, &mut lines);
            }
        }
        (lines, state.marks.len() as u64)
    }

    /// How many read it now.
    pub fn watchers(&self) -> usize {
        self.watchers.load(Ordering::SeqCst)
    }

    /// Resolves when nobody reads it (`true`) or somebody does (`false`).
    pub async fn until_watched(&self, watched: bool) {
        loop {
            let changed = self.watchers_changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if (self.watchers() > 0) == watched {
                return;
            }
            changed.await;
        }
    }
}

/// Where a log is written.
pub struct Page<'a> {
    state: &'a mut State,
    at: u32,
}

impl Page<'_> {
    /// Appends an event. Nothing is taken after an ending.
    pub fn push(&mut self, kind: Kind, data: &str) {
        if self.state.ended {
            return;
        }
        self.state.text.push_str(data);
        let end = self.state.text.len();
        let at = self.at;
        self.state.marks.push(Mark { kind, at, end });
        self.state.ended = kind.is_ending();
    }
}

//! The stored form of a turn's events: batches of lines, each with an id, a kind and JSON.

use common::store::Bytes;

use crate::domain::event::{End, Event, EventRef};

/// Bytes at which a batch is full; the event that fills it still belongs to it.
const BATCH_SIZE: usize = 16 * 1024;

/// Bytes that most batches need.
const SMALL_BATCH: usize = 256;

/// Events that are appended to a turn's stored log together.
#[derive(Clone, Debug, Default)]
pub struct EventBatch {
    /// Items of the stored list, so small that a few of them can be read at a time.
    batches: Vec<Vec<u8>>,
}

impl EventBatch {
    /// Appends an event, as the line `<id> <kind> <JSON>`.
    pub fn push(&mut self, id: u64, event: EventRef<'_>) {
        if self.batches.last().is_none_or(|last| last.len() >= BATCH_SIZE) {
            self.batches.push(Vec::with_capacity(SMALL_BATCH));
        }
        let Some(lines) = self.batches.last_mut() else { return };
        lines.extend_from_slice(itoa::Buffer::new().format(id).as_bytes());
        match event {
            EventRef::Start(start) => append(lines, b" start ", start),
            EventRef::Queued { position } => append(lines, b" queued ", &position),
            EventRef::Token(text) => append(lines, b" token ", text),
            EventRef::Thinking(text) => append(lines, b" thinking ", text),
            EventRef::End(end) => append(lines, b" end ", end),
        }
        lines.push(b'\n');
    }

    /// The same events with another one in the place of the last.
    pub(super) fn with_last(&self, id: u64, event: EventRef<'_>) -> Self {
        let mut events = self.clone();
        if let Some(lines) = events.batches.last_mut() {
            let others = lines.split_inclusive(|byte| *byte == b'\n').rev().skip(1);
            lines.truncate(others.map(<[u8]>::len).sum());
        }
        events.push(id, event);
        events
    }

    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub fn size(&self) -> usize {
        self.batches.iter().map(Vec::len).sum()
    }

    pub(super) fn lines(&self) -> String {
        String::from_utf8(self.batches.concat()).unwrap_or_default()
    }

    pub(super) fn items(&self) -> impl ExactSizeIterator<Item = Bytes> {
        self.batches.iter().map(|lines| Bytes::from(lines.clone()))
    }
}

/// Events read from a turn's stored log.
#[derive(Clone, Debug, Default)]
pub struct StoredEvents {
    pub batches: usize,
    /// The events with their ids. A batch whose append was repeated occurs twice.
    pub events: Vec<(u64, Event)>,
    /// Whether there may be more behind them.
    pub more: bool,
}

impl StoredEvents {
    pub(super) fn decode(batches: &[Bytes]) -> Self {
        let lines =
            batches.iter().filter_map(|batch| std::str::from_utf8(batch).ok()).flat_map(str::lines);
        Self { batches: batches.len(), events: lines.filter_map(parse).collect(), more: false }
    }
}

/// The event of a line, with its id.
fn parse(line: &str) -> Option<(u64, Event)> {
    let mut parts = line.splitn(3, ' ');
    let id = parts.next()?.parse().ok()?;
    let (kind, json) = (parts.next()?, parts.next()?);
    let event = match kind {
        "start" => Event::Start(serde_json::from_str(json).ok()?),
        "queued" => Event::Queued { position: json.parse().ok()? },
        "token" => Event::Token(serde_json::from_str(json).ok()?),
        "thinking" => Event::Thinking(serde_json::from_str(json).ok()?),
        "end" => Event::End(serde_json::from_str::<End>(json).ok()?),
        _ => return None,
    };
    Some((id, event))
}

/// Strings, numbers and structs of these: encoding them into memory cannot fail.
fn append<T: serde::Serialize + ?Sized>(line: &mut Vec<u8>, kind: &[u8], value: &T) {
    line.extend_from_slice(kind);
    let _ = serde_json::to_writer(line, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Ending;

    #[test]
    fn events_are_read_as_they_were_written() {
        let texts = ["", "a b\nc", "\u{2028}data: x\r\n\n", "\"\\", "\u{1}\u{7f}"];
        let mut events: Vec<Event> = texts
            .iter()
            .flat_map(|text| [Event::Token((*text).into()), Event::Thinking((*text).into())])
            .collect();
        events.push(Event::Queued { position: 3 });
        events.push(Event::end(Ending::interrupted(), &"r".into()));
        let mut batch = EventBatch::default();
        for (id, event) in (1..).zip(&events) {
            batch.push(id, event.as_ref());
        }
        let read = StoredEvents::decode(&batch.items().collect::<Vec<_>>());
        assert_eq!(read.events, (1..).zip(events).collect::<Vec<_>>());
    }

    #[test]
    fn many_events_become_batches_of_bounded_size() {
        let mut batch = EventBatch::default();
        let text = "\u{1}".repeat(1000);
        for id in 1..=100 {
            batch.push(id, EventRef::Token(&text));
        }
        let items: Vec<Bytes> = batch.items().collect();
        assert!(items.iter().all(|item| item.len() < BATCH_SIZE + 6100));
        assert!(items.len() > 20, "{}", items.len());
        assert_eq!(batch.size(), items.iter().map(Bytes::len).sum::<usize>());
        assert_eq!(StoredEvents::decode(&items).events.len(), 100);
    }
}

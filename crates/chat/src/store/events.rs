//! The stored form of a turn's events: batches of lines, each with an id, a kind and JSON.

use common::store::Bytes;

use crate::domain::event::{End, Event, EventRef};

/// Events that are appended to a turn's stored log together.
#[derive(Clone, Debug, Default)]
pub struct EventBatch {
    lines: String,
}

impl EventBatch {
    /// Appends an event, as the line `<id> <kind> <JSON>`.
    pub fn push(&mut self, id: u64, event: EventRef<'_>) {
        let (kind, json) = match event {
            EventRef::Start(start) => ("start", json(start)),
            EventRef::Queued { position } => ("queued", json(&position)),
            EventRef::Token(text) => ("token", json(text)),
            EventRef::Thinking(text) => ("thinking", json(text)),
            EventRef::End(end) => ("end", json(end)),
        };
        self.lines.push_str(itoa::Buffer::new().format(id));
        for part in [" ", kind, " ", &json, "\n"] {
            self.lines.push_str(part);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(super) fn bytes(&self) -> Bytes {
        self.lines.clone().into()
    }
}

/// Events read from a turn's stored log.
#[derive(Clone, Debug, Default)]
pub struct StoredEvents {
    /// How many batches were read.
    pub batches: usize,
    /// The events with their ids. A batch whose append was repeated occurs twice.
    pub events: Vec<(u64, Event)>,
}

impl StoredEvents {
    pub(super) fn decode(batches: &[Bytes]) -> Self {
        let lines = batches
            .iter()
            .filter_map(|batch| std::str::from_utf8(batch).ok())
            .flat_map(str::lines);
        Self {
            batches: batches.len(),
            events: lines.filter_map(parse).collect(),
        }
    }
}

/// The event of a line, with its id.
fn parse(line: &str) -> Option<(u64, Event)> {
    let mut parts = line.splitn(3, ' ');
    let id = parts.next()?.parse().ok()?;
    let (kind, json) = (parts.next()?, parts.next()?);
    let event = match kind {
        "start" => Event::Start(serde_json::from_str(json).ok()?),
        "queued" => Event::Queued {
            position: json.parse().ok()?,
        },
        "token" => Event::Token(serde_json::from_str(json).ok()?),
        "thinking" => Event::Thinking(serde_json::from_str(json).ok()?),
        "end" => Event::End(serde_json::from_str::<End>(json).ok()?),
        _ => return None,
    };
    Some((id, event))
}

/// Strings, numbers and structs of these: encoding them cannot fail.
fn json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
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
            .flat_map(|text| {
                [
                    Event::Token((*text).into()),
                    Event::Thinking((*text).into()),
                ]
            })
            .collect();
        events.push(Event::Queued { position: 3 });
        events.push(Event::end(Ending::interrupted(), &"r".into()));
        let mut batch = EventBatch::default();
        for (id, event) in (1..).zip(&events) {
            batch.push(id, event.as_ref());
        }
        let read = StoredEvents::decode(&[batch.bytes()]);
        assert_eq!(read.events, (1..).zip(events).collect::<Vec<_>>());
    }
}

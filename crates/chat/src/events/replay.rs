//! Rebuilds a log from stored events.

use crate::{domain::event::Event, events::log::EventLog, store::events::StoredEvents};

/// Appends stored events to a log, but for those that it has.
pub fn append_stored(log: &EventLog, stored: StoredEvents) {
    let mut last = log.last_id();
    let next = stored.events.into_iter().filter_map(|(id, event)| {
        let is_next = id == last + 1;
        last += u64::from(is_next);
        is_next.then_some(event)
    });
    let next: Vec<Event> = next.collect();
    log.append(next);
}

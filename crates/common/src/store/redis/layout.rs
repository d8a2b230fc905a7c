//! Which node serves which slot.

use std::{sync::Arc, time::Instant};

use redis::Value;

use super::{node::Node, reply::Failure};
use crate::clients::redis::address::join;

pub(super) const SLOTS: u16 = 16384;

const NOBODY: u16 = u16::MAX;

/// The slot of a key: CRC16 of its hash tag, or of all of it where it has none.
pub(super) fn slot(key: &str) -> u16 {
    crc16::State::<crc16::XMODEM>::calculate(tag(key).as_bytes()) % SLOTS
}

/// What stands in the first braces, if anything does; else the whole key.
pub(in crate::store) fn tag(key: &str) -> &str {
    // Every key of every transaction is asked this: bytes, since looking for a `char` costs several times as much.
    let inside = || {
        let (_, rest) = key.split_at_checked(key.bytes().position(|byte| byte == b'{')? + 1)?;
        rest.get(..rest.bytes().position(|byte| byte == b'}')?)
    };
    inside().filter(|tag| !tag.is_empty()).unwrap_or(key)
}

/// Slots from the first to the second, and the address of the node that serves them.
pub(super) type Range = (u16, u16, String);

#[derive(Clone)]
pub(super) struct Layout {
    owners: Vec<SlotOwner>,
    slots: Box<[u16]>,
}

#[derive(Clone)]
pub(super) struct SlotOwner {
    pub(super) node: Arc<Node>,
    /// When it took over from another node, as far as was seen from here.
    pub(super) since: Option<Instant>,
}

impl Layout {
    pub(super) fn of_one(node: Arc<Node>, since: Option<Instant>) -> Self {
        Self { owners: vec![SlotOwner { node, since }], slots: vec![0; usize::from(SLOTS)].into() }
    }

    /// By ranges; `node` finds the node of an address. What was no owner `before` is new.
    pub(super) fn of_ranges(
        ranges: &[Range],
        before: Option<&Self>,
        node: impl Fn(&str) -> Option<Arc<Node>>,
    ) -> Self {
        let mut layout =
            Self { owners: Vec::new(), slots: vec![NOBODY; usize::from(SLOTS)].into() };
        for (first, last, address) in ranges {
            let Some(node) = node(address) else { continue };
            let owner = layout.add(node, before);
            let range = usize::from(*first)..=usize::from(*last);
            if let Some(slots) = layout.slots.get_mut(range) {
                slots.fill(owner);
            }
        }
        layout
    }

    pub(super) fn with_moved(&self, slot: u16, node: Arc<Node>) -> Self {
        let mut layout = self.clone();
        let owner = layout.add(node, Some(self));
        if let Some(slot) = layout.slots.get_mut(usize::from(slot)) {
            *slot = owner;
        }
        layout
    }

    fn add(&mut self, node: Arc<Node>, before: Option<&Self>) -> u16 {
        let address = node.address().to_owned();
        let is_it = |owner: &SlotOwner| owner.node.address() == address;
        let position = self.owners.iter().position(is_it).unwrap_or_else(|| {
            let since = before.and_then(|before| match before.owners.iter().find(|o| is_it(o)) {
                Some(owner) => owner.since,
                None => Some(Instant::now()),
            });
            self.owners.push(SlotOwner { node, since });
            self.owners.len() - 1
        });
        u16::try_from(position).unwrap_or(NOBODY)
    }

    pub(super) fn owner(&self, slot: u16) -> Option<&SlotOwner> {
        let position = *self.slots.get(usize::from(slot))?;
        self.owners.get(usize::from(position))
    }

    /// The node that serves the slot.
    pub(super) fn node(&self, slot: u16) -> Result<&Arc<Node>, Failure> {
        let owner = self.owner(slot).map(|owner| &owner.node);
        owner.ok_or_else(|| Failure::Again("no node of the cluster serves this slot".to_owned()))
    }

    pub(super) fn owners(&self) -> &[SlotOwner] {
        &self.owners
    }

    pub(super) fn unserved(&self) -> usize {
        self.slots.iter().filter(|owner| **owner == NOBODY).count()
    }
}

/// What a node answers to CLUSTER SLOTS; `own_host` stands for a host that it leaves empty.
pub(super) fn ranges(answer: Value, own_host: &str) -> Option<Vec<Range>> {
    let Value::Array(entries) = answer else { return None };
    let mut ranges: Vec<Range> =
        entries.into_iter().filter_map(|entry| range(entry, own_host)).collect();
    ranges.sort_unstable();
    Some(ranges)
}

/// `[first, last, [host, port, …], replicas…]`.
fn range(entry: Value, own_host: &str) -> Option<Range> {
    let Value::Array(entry) = entry else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = entry.as_slice() else {
        return None;
    };
    let [host, Value::Int(port), ..] = master.as_slice() else { return None };
    let host = match host {
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        _ => "",
    };
    let host = match host {
        "?" => return None,
        "" => own_host,
        host => host,
    };
    let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
    Some((first, last, join(host, u16::try_from(*port).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // As CLUSTER KEYSLOT answers.
        for (key, expected) in [
            ("123456789", 12739),
            ("foo", 12182),
            ("c:{foo}:0:s", 12182),
            ("{}foo", slot("{}foo")),
            ("a:{user1000}:x{bar}", slot("user1000")),
        ] {
            assert_eq!(slot(key), expected, "{key}");
        }
        assert_eq!(tag("c:{}:x"), "c:{}:x");
    }

    #[test]
    fn an_answer_to_cluster_slots_is_read() {
        let node = |host: &str, port| {
            Value::Array(vec![
                Value::BulkString(host.as_bytes().to_vec()),
                Value::Int(port),
                Value::BulkString(b"id".to_vec()),
            ])
        };
        let entry = |first, last, master| {
            Value::Array(vec![Value::Int(first), Value::Int(last), master, node("10.0.0.9", 9)])
        };
        let answer = Value::Array(vec![
            entry(8192, 16383, node("", 7001)),
            entry(0, 8191, node("10.0.0.1", 7000)),
        ]);
        let found = ranges(answer, "::1").unwrap();
        assert_eq!(
            found,
            [(0, 8191, "10.0.0.1:7000".to_owned()), (8192, 16383, "[::1]:7001".to_owned())]
        );
    }
}

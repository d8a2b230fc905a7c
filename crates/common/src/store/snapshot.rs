//! What can be read in one look: the reads, and the snapshot that answers them.

use std::{collections::HashMap, mem::replace};

use super::{Bytes, Key};

/// One thing to read. An absent or expired key reads as empty.
#[derive(Clone, Debug)]
pub enum Read {
    /// A plain value: [`Snapshot::value`].
    Value(Key),
    /// One field of a hash: [`Snapshot::value`].
    Field(Key, &'static str),
    /// All fields of a hash: [`Snapshot::fields`].
    Fields(Key),
    /// Items of a list from `start` to `stop`, both included; negative counts from the end (-1 is the last): [`Snapshot::items`].
    Items { key: Key, start: i64, stop: i64 },
    /// How many items a list has: [`Snapshot::count`].
    Length(Key),
    /// Members of an index by falling score (then falling member), below `before` if given: [`Snapshot::members`].
    Newest {
        key: Key,
        /// Only members that come after this (score, member) in that order: the last of the page before.
        before: Option<(i64, String)>,
        limit: usize,
    },
    /// Members of an index with a score of at least `score`, by rising score: [`Snapshot::members`].
    Since { key: Key, score: i64, limit: usize },
}

impl Read {
    pub fn key(&self) -> &str {
        match self {
            Read::Value(key)
            | Read::Field(key, _)
            | Read::Fields(key)
            | Read::Length(key)
            | Read::Items { key, .. }
            | Read::Newest { key, .. }
            | Read::Since { key, .. } => key,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Of [`Read::Value`] and [`Read::Field`].
    Value(Option<Bytes>),
    /// Of [`Read::Fields`]; empty where the key is absent.
    Fields(HashMap<String, Bytes>),
    Items(Vec<Bytes>),
    Count(u64),
    /// Of [`Read::Newest`] and [`Read::Since`]: (member, score).
    Members(Vec<(String, i64)>),
}

impl Found {
    /// The plain value or field; `None` where it is absent.
    pub fn value(self) -> Option<Bytes> {
        if let Found::Value(value) = self { value } else { None }
    }

    pub fn fields(self) -> HashMap<String, Bytes> {
        if let Found::Fields(fields) = self { fields } else { HashMap::new() }
    }

    pub fn items(self) -> Vec<Bytes> {
        if let Found::Items(items) = self { items } else { Vec::new() }
    }

    pub fn count(self) -> u64 {
        if let Found::Count(count) = self { count } else { 0 }
    }

    pub fn members(self) -> Vec<(String, i64)> {
        if let Found::Members(members) = self { members } else { Vec::new() }
    }
}

/// What was found, in the order asked, all at one moment of the store's clock.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The store's clock: milliseconds since the Unix epoch.
    pub now: i64,
    pub found: Vec<Found>,
}

/// What is taken out of it is gone: a position counts once.
impl Snapshot {
    /// The plain value or field at position `i` of the reads; `None` where it is absent.
    pub fn value(&mut self, i: usize) -> Option<Bytes> {
        self.take(i).value()
    }

    /// The hash at position `i` of the reads; empty where it is absent.
    pub fn fields(&mut self, i: usize) -> HashMap<String, Bytes> {
        self.take(i).fields()
    }

    pub fn items(&mut self, i: usize) -> Vec<Bytes> {
        self.take(i).items()
    }

    pub fn count(&mut self, i: usize) -> u64 {
        self.take(i).count()
    }

    pub fn members(&mut self, i: usize) -> Vec<(String, i64)> {
        self.take(i).members()
    }

    fn take(&mut self, i: usize) -> Found {
        let nothing = Found::Value(None);
        match self.found.get_mut(i) {
            Some(found) => replace(found, nothing),
            None => nothing,
        }
    }
}

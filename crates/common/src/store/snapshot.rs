//! What can be read in one look: the reads, and the snapshot that answers them.

use std::collections::HashMap;

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

/// What was found, in the order asked, all at one moment of the store's clock.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The store's clock: milliseconds since the Unix epoch.
    pub now: i64,
    pub found: Vec<Found>,
}

impl Snapshot {
    /// The plain value or field at position `i` of the reads; `None` where it is absent.
    pub fn value(&mut self, i: usize) -> Option<Bytes> {
        match self.found.get_mut(i) {
            Some(Found::Value(value)) => value.take(),
            _ => None,
        }
    }

    /// The hash at position `i` of the reads; empty where it is absent.
    pub fn fields(&mut self, i: usize) -> HashMap<String, Bytes> {
        match self.found.get_mut(i) {
            Some(Found::Fields(fields)) => std::mem::take(fields),
            _ => HashMap::new(),
        }
    }

    pub fn items(&mut self, i: usize) -> Vec<Bytes> {
        match self.found.get_mut(i) {
            Some(Found::Items(items)) => std::mem::take(items),
            _ => Vec::new(),
        }
    }

    pub fn count(&self, i: usize) -> u64 {
        match self.found.get(i) {
            Some(Found::Count(count)) => *count,
            _ => 0,
        }
    }

    pub fn members(&mut self, i: usize) -> Vec<(String, i64)> {
        match self.found.get_mut(i) {
            Some(Found::Members(members)) => std::mem::take(members),
            _ => Vec::new(),
        }
    }
}

/// A hash field that counts; 0 where it is absent, below zero, or no number.
pub fn counter(field: Option<&Bytes>) -> u64 {
    let text = field.and_then(|field| std::str::from_utf8(field).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

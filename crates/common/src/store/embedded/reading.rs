//! Reads of the embedded store, all within one read transaction.

use std::{collections::HashMap, ops::RangeInclusive};

use redb::{Database, ReadOnlyTable, ReadableDatabase};

use super::{
    entry::{Content, Rows},
    fault::Fault,
    tables::{KEYS, ORDER, ROWS, field, live, live_rows, position},
};
use crate::store::{
    Bytes, Found, Read, Snapshot, StoreError,
    plan::{self, KeyType},
};

struct ReadTables {
    keys: ReadOnlyTable<&'static str, &'static [u8]>,
    rows: ReadOnlyTable<(u64, &'static [u8]), &'static [u8]>,
    order: ReadOnlyTable<(u64, i64, &'static str), ()>,
    now: i64,
}

pub(super) fn snapshot(database: &Database, reads: &[Read], now: i64) -> Result<Snapshot, Fault> {
    let txn = database.begin_read()?;
    let (keys, rows, order) =
        (txn.open_table(KEYS)?, txn.open_table(ROWS)?, txn.open_table(ORDER)?);
    let tables = ReadTables { keys, rows, order, now };
    let found = reads.iter().map(|read| tables.read(read)).collect::<Result<_, _>>()?;
    Ok(Snapshot { now, found })
}

fn name(bytes: &[u8]) -> Result<String, Fault> {
    let name = std::str::from_utf8(bytes)
        .map_err(|_| StoreError::Corrupt("a stored name is not text".into()));
    Ok(name.map_err(Fault::Said)?.to_owned())
}

/// Positions from `start` to `stop`, both included and negative from the end, that are in a list of `count`.
fn span(start: i64, stop: i64, count: u64) -> Option<RangeInclusive<u64>> {
    let count = i64::try_from(count).ok()?;
    let from_end = |at: i64| if at < 0 { at.saturating_add(count) } else { at };
    let (start, stop) = (from_end(start).max(0), from_end(stop).min(count - 1));
    if start > stop {
        return None;
    }
    Some(u64::try_from(start).ok()?..=u64::try_from(stop).ok()?)
}

impl ReadTables {
    fn read(&self, read: &Read) -> Result<Found, Fault> {
        Ok(match read {
            Read::Value(key) => match live(&self.keys, key, self.now)?.map(|entry| entry.held) {
                None => Found::Value(None),
                Some(Content::Value(value)) => Found::Value(Some(value)),
                Some(Content::Rows(_)) => return Err(Fault::Said(plan::corrupt(key))),
            },
            Read::Field(key, name) => {
                Found::Value(field(&self.keys, &self.rows, (key, name), self.now)?)
            }
            Read::Fields(key) => Found::Fields(self.fields(key)?),
            Read::Items { key, start, stop } => Found::Items(self.items(key, *start, *stop)?),
            Read::Length(key) => {
                Found::Count(self.rows_of(key, KeyType::List)?.map_or(0, |rows| rows.count))
            }
            Read::Newest { key, before, limit } => {
                let Some(rows) = self.rows_of(key, KeyType::Index)? else {
                    return Ok(Found::Members(Vec::new()));
                };
                let end = match before {
                    Some((score, member)) => (rows.id, *score, member.as_str()),
                    None => (rows.id + 1, i64::MIN, ""),
                };
                let range = self.order.range((rows.id, i64::MIN, "")..end)?;
                Found::Members(members(range.rev().take(*limit))?)
            }
            Read::Since { key, score, limit } => {
                let Some(rows) = self.rows_of(key, KeyType::Index)? else {
                    return Ok(Found::Members(Vec::new()));
                };
                let range = self.order.range((rows.id, *score, "")..(rows.id + 1, i64::MIN, ""))?;
                Found::Members(members(range.take(*limit))?)
            }
        })
    }

    fn rows_of(&self, key: &str, kind: KeyType) -> Result<Option<Rows>, Fault> {
        Ok(live_rows(&self.keys, key, kind, self.now)?.map(|(rows, _)| rows))
    }

    fn fields(&self, key: &str) -> Result<HashMap<String, Bytes>, Fault> {
        let Some(rows) = self.rows_of(key, KeyType::Hash)? else { return Ok(HashMap::new()) };
        let range = self.rows.range((rows.id, &[][..])..(rows.id + 1, &[][..]))?;
        range
            .map(|row| {
                let (place, value) = row?;
                Ok((name(place.value().1)?, Bytes::copy_from_slice(value.value())))
            })
            .collect()
    }

    fn items(&self, key: &str, start: i64, stop: i64) -> Result<Vec<Bytes>, Fault> {
        let Some(rows) = self.rows_of(key, KeyType::List)? else { return Ok(Vec::new()) };
        let Some(span) = span(start, stop, rows.count) else { return Ok(Vec::new()) };
        let (first, last) = (position(*span.start()), position(*span.end()));
        let range = self.rows.range((rows.id, &first[..])..=(rows.id, &last[..]))?;
        range.map(|row| Ok(Bytes::copy_from_slice(row?.1.value()))).collect()
    }
}

type Place<'a> = redb::AccessGuard<'a, (u64, i64, &'static str)>;

fn members<'a>(
    range: impl Iterator<Item = Result<(Place<'a>, redb::AccessGuard<'a, ()>), redb::StorageError>>,
) -> Result<Vec<(String, i64)>, Fault> {
    range
        .map(|row| {
            let (place, _) = row?;
            let (_, score, member) = place.value();
            Ok((member.to_owned(), score))
        })
        .collect()
}

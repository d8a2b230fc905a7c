//! The tables of the embedded store, and the small steps on them that every operation is made of.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `keys` | the key | [`Entry`]: kind, expiry, and the plain value or where its rows are |
//! | `rows` | (id, field, position or member) | value, item or score |
//! | `order` | (id, score, member) | nothing |
//! | `expiry` | (when, key) | nothing |
//! | `garbage` | id | nothing: rows that belong to no key any more |
//! | `numbers` | name | the next free id; the version of this layout |

use redb::{Database, ReadableTable, StorageError, Table, TableDefinition, WriteTransaction};

use super::{
    entry::{Content, Entry, NEVER, Rows},
    fault::Fault,
};
use crate::store::{
    Bytes, StoreError,
    plan::{self, KeyType},
};

pub(super) const KEYS: TableDefinition<&str, &[u8]> = TableDefinition::new("keys");
pub(super) const ROWS: TableDefinition<(u64, &[u8]), &[u8]> = TableDefinition::new("rows");
pub(super) const ORDER: TableDefinition<(u64, i64, &str), ()> = TableDefinition::new("order");
pub(super) const EXPIRY: TableDefinition<(i64, &str), ()> = TableDefinition::new("expiry");
pub(super) const GARBAGE: TableDefinition<u64, ()> = TableDefinition::new("garbage");
const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");

const VERSION: u64 = 1;

/// Makes the tables of a new file; refuses the file of another version.
pub(super) fn create(database: &Database) -> Result<(), Fault> {
    let txn = database.begin_write()?;
    {
        let mut numbers = txn.open_table(NUMBERS)?;
        let version = numbers.get("version")?.map(|version| version.value());
        match version {
            None => {
                numbers.insert("version", VERSION)?;
            }
            Some(VERSION) => {}
            Some(other) => {
                return Err(Fault::Said(StoreError::Corrupt(format!(
                    "the file has layout {other}, this program knows {VERSION}"
                ))));
            }
        }
        txn.open_table(KEYS)?;
        txn.open_table(ROWS)?;
        txn.open_table(ORDER)?;
        txn.open_table(EXPIRY)?;
        txn.open_table(GARBAGE)?;
    }
    txn.commit()?;
    Ok(())
}

pub(super) fn live(
    keys: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &str,
    now: i64,
) -> Result<Option<Entry>, Fault> {
    let Some(stored) = keys.get(key)? else { return Ok(None) };
    let entry = Entry::decode(stored.value()).ok_or_else(|| Fault::Said(plan::corrupt(key)))?;
    Ok(Some(entry).filter(|entry| entry.expires > now))
}

/// The rows of a key that is alive, and its expiry.
pub(super) fn live_rows(
    keys: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &str,
    kind: KeyType,
    now: i64,
) -> Result<Option<(Rows, i64)>, Fault> {
    match live(keys, key, now)? {
        None => Ok(None),
        Some(Entry { expires, held: Content::Rows(rows) }) if rows.kind == kind => {
            Ok(Some((rows, expires)))
        }
        Some(_) => Err(Fault::Said(plan::corrupt(key))),
    }
}

/// A field of a hash, by the hash's key and its own name.
pub(super) fn field(
    keys: &impl ReadableTable<&'static str, &'static [u8]>,
    rows: &impl ReadableTable<(u64, &'static [u8]), &'static [u8]>,
    (key, name): (&str, &str),
    now: i64,
) -> Result<Option<Bytes>, Fault> {
    let Some((hash, _)) = live_rows(keys, key, KeyType::Hash, now)? else { return Ok(None) };
    let held = rows.get((hash.id, name.as_bytes()))?;
    Ok(held.map(|held| Bytes::copy_from_slice(held.value())))
}

/// The position of an item in the order of rows.
pub(super) fn position(at: u64) -> [u8; 8] {
    at.to_be_bytes()
}

/// Where position `at` is in a list of `count`; negative counts from the end.
pub(super) fn index(at: i64, count: u64) -> Option<u64> {
    let at = if at < 0 {
        u64::try_from(i64::try_from(count).ok()? + at).ok()?
    } else {
        u64::try_from(at).ok()?
    };
    (at < count).then_some(at)
}

pub(super) struct WriteTables<'t> {
    pub(super) keys: Table<'t, &'static str, &'static [u8]>,
    pub(super) rows: Table<'t, (u64, &'static [u8]), &'static [u8]>,
    pub(super) order: Table<'t, (u64, i64, &'static str), ()>,
    pub(super) expiry: Table<'t, (i64, &'static str), ()>,
    pub(super) garbage: Table<'t, u64, ()>,
    numbers: Table<'t, &'static str, u64>,
    pub(super) now: i64,
    pub(super) changed: bool,
}

impl<'t> WriteTables<'t> {
    pub(super) fn open(txn: &'t WriteTransaction, now: i64) -> Result<Self, Fault> {
        Ok(Self {
            keys: txn.open_table(KEYS)?,
            rows: txn.open_table(ROWS)?,
            order: txn.open_table(ORDER)?,
            expiry: txn.open_table(EXPIRY)?,
            garbage: txn.open_table(GARBAGE)?,
            numbers: txn.open_table(NUMBERS)?,
            now,
            changed: false,
        })
    }

    pub(super) fn field(&self, key: &str, name: &str) -> Result<Option<Bytes>, Fault> {
        field(&self.keys, &self.rows, (key, name), self.now)
    }

    pub(super) fn number(&self, key: &str, field: &str) -> Result<i64, Fault> {
        match self.field(key, field)? {
            None => Ok(0),
            Some(held) => plan::whole(&held).ok_or_else(|| Fault::Said(plan::corrupt(key))),
        }
    }

    pub(super) fn rows_of(&self, key: &str, kind: KeyType) -> Result<Option<(Rows, i64)>, Fault> {
        live_rows(&self.keys, key, kind, self.now)
    }

    pub(super) fn expiry(&self, ttl: std::time::Duration) -> i64 {
        self.now.saturating_add(i64::try_from(ttl.as_millis()).unwrap_or(NEVER).max(1))
    }

    pub(super) fn put(&mut self, key: &str, entry: &Entry) -> Result<(), StorageError> {
        self.keys.insert(key, &entry.encode()[..])?;
        Ok(())
    }

    pub(super) fn expire(&mut self, key: &str, expires: i64) -> Result<(), StorageError> {
        if expires != NEVER {
            self.expiry.insert((expires, key), ())?;
        }
        Ok(())
    }

    /// Takes a key away, alive or dead; its rows are swept later.
    pub(super) fn remove(&mut self, key: &str) -> Result<(), Fault> {
        let Some(stored) = self.keys.remove(key)? else { return Ok(()) };
        let entry = Entry::decode(stored.value()).ok_or_else(|| Fault::Said(plan::corrupt(key)))?;
        drop(stored);
        self.changed = true;
        self.tidy(key, Some(entry))
    }

    /// Clears up after an entry that is gone.
    pub(super) fn tidy(&mut self, key: &str, old: Option<Entry>) -> Result<(), Fault> {
        let Some(old) = old else { return Ok(()) };
        if old.expires != NEVER {
            self.expiry.remove((old.expires, key))?;
        }
        if let Content::Rows(rows) = old.held {
            self.garbage.insert(rows.id, ())?;
        }
        Ok(())
    }

    /// The rows of a key, begun where it is absent.
    pub(super) fn begin(&mut self, key: &str, kind: KeyType) -> Result<(Rows, i64), Fault> {
        if let Some(held) = self.rows_of(key, kind)? {
            return Ok(held);
        }
        self.remove(key)?;
        let id = self.numbers.get("next id")?.map_or(1, |next| next.value());
        self.numbers.insert("next id", id + 1)?;
        Ok((Rows { kind, id, count: 0 }, NEVER))
    }

    /// Writes the new count; a key without rows is absent.
    pub(super) fn count(
        &mut self,
        key: &str,
        rows: Rows,
        expires: i64,
        count: u64,
    ) -> Result<(), Fault> {
        if count == 0 {
            return self.remove(key);
        }
        self.put(key, &Entry { expires, held: Content::Rows(Rows { count, ..rows }) })?;
        Ok(())
    }

    pub(super) fn set_row(
        &mut self,
        key: &str,
        kind: KeyType,
        name: &str,
        value: &[u8],
    ) -> Result<(), Fault> {
        let (rows, expires) = self.begin(key, kind)?;
        let new = self.rows.insert((rows.id, name.as_bytes()), value)?.is_none();
        if new { self.count(key, rows, expires, rows.count + 1) } else { Ok(()) }
    }

    pub(super) fn delete_row(&mut self, key: &str, kind: KeyType, name: &str) -> Result<(), Fault> {
        let Some((rows, expires)) = self.rows_of(key, kind)? else { return Ok(()) };
        if kind == KeyType::Index {
            self.unorder(rows, name)?;
        }
        let was = self.rows.remove((rows.id, name.as_bytes()))?.is_some();
        if was { self.count(key, rows, expires, rows.count - 1) } else { Ok(()) }
    }

    pub(super) fn push(&mut self, key: &str, item: &[u8]) -> Result<(), Fault> {
        let (rows, expires) = self.begin(key, KeyType::List)?;
        self.rows.insert((rows.id, &position(rows.count)[..]), item)?;
        self.count(key, rows, expires, rows.count + 1)
    }

    pub(super) fn unorder(&mut self, rows: Rows, member: &str) -> Result<(), Fault> {
        let score = self
            .rows
            .get((rows.id, member.as_bytes()))?
            .map(|held| score(held.value()))
            .transpose()?;
        if let Some(score) = score {
            self.order.remove((rows.id, score, member))?;
        }
        Ok(())
    }

    /// Replaces an item of a list; `false` where it is not there.
    pub(super) fn set_item(&mut self, key: &str, at: i64, item: &[u8]) -> Result<bool, Fault> {
        let Some((rows, _)) = self.rows_of(key, KeyType::List)? else { return Ok(false) };
        let Some(at) = index(at, rows.count) else { return Ok(false) };
        self.rows.insert((rows.id, &position(at)[..]), item)?;
        Ok(true)
    }

    pub(super) fn pop(&mut self, key: &str) -> Result<(), Fault> {
        let Some((rows, expires)) = self.rows_of(key, KeyType::List)? else { return Ok(()) };
        let last = position(rows.count - 1);
        self.rows.remove((rows.id, &last[..]))?;
        self.count(key, rows, expires, rows.count - 1)
    }

    pub(super) fn set_member(&mut self, key: &str, member: &str, score: i64) -> Result<(), Fault> {
        let (rows, expires) = self.begin(key, KeyType::Index)?;
        self.unorder(rows, member)?;
        self.order.insert((rows.id, score, member), ())?;
        let score = score.to_le_bytes();
        let old = self.rows.insert((rows.id, member.as_bytes()), &score[..])?;
        let is_new = old.is_none();
        drop(old);
        if is_new {
            self.count(key, rows, expires, rows.count + 1)?;
        }
        Ok(())
    }

    pub(super) fn members_below(&mut self, key: &str, score: i64) -> Result<(), Fault> {
        let Some((rows, expires)) = self.rows_of(key, KeyType::Index)? else { return Ok(()) };
        let below = (rows.id, i64::MIN, "")..(rows.id, score, "");
        let mut gone = 0;
        for taken in self.order.extract_from_if(below, |_, ()| true)? {
            let (place, _) = taken?;
            let (id, _, member) = place.value();
            self.rows.remove((id, member.as_bytes()))?;
            gone += 1;
        }
        self.count(key, rows, expires, rows.count.saturating_sub(gone))
    }
}

fn score(stored: &[u8]) -> Result<i64, Fault> {
    let bytes = stored
        .try_into()
        .map_err(|_| Fault::Said(StoreError::Corrupt("a score cannot be read".into())))?;
    Ok(i64::from_le_bytes(bytes))
}

//! Failures of the disk, played by a storage below redb that can be told to fail.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use redb::{Database, StorageBackend, backends::FileBackend};

use super::{Embedded, buckets::Buckets, file::File};
use crate::{
    clock::Clock,
    store::{Committed, Found, Op, Quota, Read, StoreError, Txn},
};

const WELL: u8 = 0;
/// What is there can be written over, nothing can be added.
const NO_ROOM: u8 = 1;
/// Nothing can be written.
const NO_WRITES: u8 = 2;
/// Everything is written, and nothing is known to be on disk.
const NO_SYNC: u8 = 3;
/// The storage panics.
const PANICS: u8 = 4;

#[derive(Debug)]
struct Disk {
    file: FileBackend,
    mood: Arc<AtomicU8>,
}

impl Disk {
    fn mood(&self) -> u8 {
        self.mood.load(Ordering::SeqCst)
    }
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        match self.mood() {
            NO_ROOM | NO_WRITES if len > self.file.len()? => Err(full()),
            _ => self.file.set_len(len),
        }
    }
    fn sync_data(&self) -> io::Result<()> {
        match self.mood() {
            NO_SYNC => Err(io::Error::other("the disk is gone")),
            _ => self.file.sync_data(),
        }
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match self.mood() {
            NO_WRITES => Err(full()),
            PANICS => panic!("the storage panics"),
            _ => self.file.write(offset, data),
        }
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

fn on_a_disk(dir: &std::path::Path) -> (Embedded, Arc<AtomicU8>) {
    let (path, mood) = (dir.join("disk"), Arc::new(AtomicU8::new(WELL)));
    let of_disk = mood.clone();
    let opener = move || {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        Database::builder()
            .create_with_backend(Disk { file: FileBackend::new(file)?, mood: of_disk.clone() })
    };
    (Embedded::on(File::with_opener(Box::new(opener)).unwrap(), Clock::system()).unwrap(), mood)
}

fn set(name: &str, size: usize) -> Txn {
    Txn::durable().op(Op::Set { key: name.into(), value: vec![b'x'; size].into(), ttl: None })
}

async fn size(store: &Embedded, name: &str) -> Result<usize, StoreError> {
    match store.read(vec![Read::Value(name.into())]).await?.found.remove(0) {
        Found::Value(value) => Ok(value.map_or(0, |value| value.len())),
        found => panic!("not a value: {found:?}"),
    }
}

/// Waits until a write works again.
async fn recovers(store: &Embedded) {
    let begun = Instant::now();
    while store.commit(set("after", 3)).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(3), "it does not recover");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(size(store, "before").await.unwrap(), 7);
    assert_eq!(size(store, "after").await.unwrap(), 3);
}

/// Writes more and more until there is no room.
async fn fill(store: &Embedded) -> StoreError {
    for n in 0..200 {
        if let Err(error) = store.commit(set(&format!("filler {n}"), 1 << 20)).await {
            return error;
        }
    }
    panic!("it is never full")
}

#[tokio::test]
async fn a_disk_without_room_is_full_reads_go_on_and_it_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mood) = on_a_disk(dir.path());
    assert_eq!(store.commit(set("before", 7)).await.unwrap(), Committed::Applied);
    mood.store(NO_ROOM, Ordering::SeqCst);
    let error = fill(&store).await;
    assert!(matches!(error, StoreError::Full(_)), "{error}");
    assert_eq!(size(&store, "before").await.unwrap(), 7, "reads go on");
    mood.store(WELL, Ordering::SeqCst);
    recovers(&store).await;
}

#[tokio::test]
async fn on_a_full_disk_something_can_be_deleted_and_then_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mood) = on_a_disk(dir.path());
    store.commit(set("before", 7)).await.unwrap();
    mood.store(NO_ROOM, Ordering::SeqCst);
    let mut written = 0;
    while store.commit(set(&format!("n{written}"), 10_000)).await.is_ok() {
        written += 1;
        assert!(written < 100_000, "it is never full");
    }
    let delete = |n: usize| Txn::durable().op(Op::Delete(format!("n{n}")));
    for n in 0..written / 2 {
        let deleted = store.commit(delete(n)).await;
        assert!(matches!(deleted, Ok(Committed::Applied)), "{n}: {deleted:?}");
    }
    assert_eq!(size(&store, "n0").await.unwrap(), 0);
    recovers(&store).await;
    assert_eq!(mood.load(Ordering::SeqCst), NO_ROOM, "the disk is as full as before");
}

#[tokio::test]
async fn a_disk_that_was_full_for_long_is_used_again_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mood) = on_a_disk(dir.path());
    store.commit(set("before", 7)).await.unwrap();
    mood.store(NO_ROOM, Ordering::SeqCst);
    fill(&store).await;
    store.commit(Txn::durable().op(Op::Delete("none".into()))).await.unwrap();
    // So long that the try after the removal has failed.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(store.commit(set("no", 1 << 20)).await.is_err());
    mood.store(WELL, Ordering::SeqCst);
    let begun = Instant::now();
    recovers(&store).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn a_panic_while_a_file_is_opened_is_told_as_damage() {
    let opened = File::with_opener(Box::new(|| panic!("a page makes no sense")));
    let said = opened.err().unwrap().into_store_error();
    assert!(matches!(said, StoreError::Corrupt(_)), "{said:?}");
}

#[tokio::test]
async fn a_disk_that_takes_no_write_is_full_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mood) = on_a_disk(dir.path());
    store.commit(set("before", 7)).await.unwrap();
    mood.store(NO_WRITES, Ordering::SeqCst);
    for _ in 0..3 {
        let said = store.commit(set("no", 100)).await;
        assert!(matches!(said, Err(StoreError::Full(_))), "{said:?}");
    }
    mood.store(WELL, Ordering::SeqCst);
    recovers(&store).await;
    assert_eq!(size(&store, "no").await.unwrap(), 0);
}

#[tokio::test]
async fn a_sync_that_fails_is_unavailable_and_it_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mood) = on_a_disk(dir.path());
    store.commit(set("before", 7)).await.unwrap();
    mood.store(NO_SYNC, Ordering::SeqCst);
    let said = store.commit(set("unknown", 100)).await;
    assert!(matches!(said, Err(StoreError::Unavailable(_))), "{said:?}");
    mood.store(WELL, Ordering::SeqCst);
    recovers(&store).await;
}

#[tokio::test]
async fn a_panic_below_does_not_end_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mood) = on_a_disk(dir.path());
    store.commit(set("before", 7)).await.unwrap();
    mood.store(PANICS, Ordering::SeqCst);
    let said = store.commit(set("no", 100)).await;
    assert!(matches!(said, Err(StoreError::Unavailable(_))), "{said:?}");
    mood.store(WELL, Ordering::SeqCst);
    recovers(&store).await;
}

#[test]
fn full_buckets_are_thrown_away() {
    let (buckets, short) =
        (Buckets::new(Clock::system()), Quota { burst: 1, period: Duration::from_micros(1) });
    for n in 0..100_000 {
        buckets.take(&n.to_string(), short, 1);
    }
    assert!(buckets.len() < 5000, "{} are kept", buckets.len());
}

//! The database file: opening it, keeping others out, and opening it anew after a disk error.

use std::{
    fs::{DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{PoisonError, RwLock},
};

use redb::{
    Database, DatabaseError,
    backends::{FileBackend, InMemoryBackend},
};

use super::tables;
use crate::store::StoreError;

/// The name of the file in its folder.
const NAME: &str = "chatbot.redb";

/// Most memory for pages of the file.
const CACHE: usize = 64 * 1024 * 1024;

/// Why work on the database failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The database itself; it must be opened anew.
    Broken(redb::Error),
    /// What the caller is told; the database is well, and nothing was changed.
    Said(StoreError),
    /// The same, but halfway through a change: the transaction round it must not be committed.
    Spoiled(StoreError),
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::ValueTooLarge(size) => Fault::Spoiled(StoreError::Full(format!(
                "a value of {size} bytes is too large"
            ))),
            error => Fault::Broken(error),
        }
    }
}

impl Fault {
    /// The same fault, found halfway through a change.
    pub(super) fn halfway(self) -> Self {
        match self {
            Fault::Said(error) => Fault::Spoiled(error),
            fault => fault,
        }
    }

    /// What a caller is told.
    pub(super) fn told(self) -> StoreError {
        match self {
            Fault::Said(error) | Fault::Spoiled(error) => error,
            Fault::Broken(redb::Error::Io(error)) if is_full(&error) => {
                StoreError::Full(error.to_string())
            }
            Fault::Broken(redb::Error::Corrupted(why)) => StoreError::Corrupt(why),
            Fault::Broken(error) => StoreError::Unavailable(error.to_string()),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// The database, while it is open.
pub(super) struct File {
    opener: Opener,
    database: RwLock<Option<Database>>,
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("File")
    }
}

impl File {
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let cannot = |error: io::Error| {
            StoreError::Unavailable(format!("{} cannot be used: {error}", dir.display()))
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(cannot)?;
        let path = dir.join(NAME);
        let opened = path.clone();
        Self::with_opener(Box::new(move || open(&opened))).map_err(|error| told(&path, error))
    }

    pub(super) fn memory() -> Result<Self, StoreError> {
        Self::with_opener(Box::new(|| {
            Database::builder().create_with_backend(InMemoryBackend::new())
        }))
        .map_err(|error| told(Path::new("memory"), error))
    }

    pub(super) fn with_opener(opener: Opener) -> Result<Self, Fault> {
        let database = opener()?;
        tables::create(&database)?;
        Ok(Self {
            opener,
            database: RwLock::new(Some(database)),
        })
    }

    /// Does something with the open database.
    pub(super) fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        match &*self.database.read().unwrap_or_else(PoisonError::into_inner) {
            Some(database) => work(database),
            None => Err(Fault::Said(StoreError::Unavailable(
                "the file is being opened".into(),
            ))),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.database
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    /// Closes the database and opens it again, which mends what a failed write left; waits for reads under way.
    pub(super) fn reopen(&self) -> Result<(), Fault> {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // Closed first: two cannot have the file open. redb panics on some damage, which is no reason to end the caller.
        let old = database.take();
        let opened = catch_unwind(AssertUnwindSafe(|| {
            drop(old);
            (self.opener)()
        }));
        *database = Some(opened.map_err(|_| Fault::Broken(redb::Error::DatabaseClosed))??);
        Ok(())
    }
}

fn open(path: &Path) -> Result<Database, DatabaseError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    Database::builder()
        .set_cache_size(CACHE)
        .create_with_backend(FileBackend::new(file)?)
}

/// What the operator is told at the start.
fn told(path: &Path, error: Fault) -> StoreError {
    match error {
        Fault::Broken(redb::Error::DatabaseAlreadyOpen) => {
            StoreError::Unavailable(format!("{} is in use by another process", path.display()))
        }
        Fault::Broken(error) => {
            StoreError::Unavailable(format!("{} cannot be opened: {error}", path.display()))
        }
        Fault::Said(error) | Fault::Spoiled(error) => error,
    }
}

//! The database file: opening it, keeping others out, and opening it anew after a disk error.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use parking_lot::RwLock;
use redb::{
    Database, DatabaseError,
    backends::{FileBackend, InMemoryBackend},
};

use super::{fault::Fault, tables};
use crate::store::StoreError;

const NAME: &str = "chatbot.redb";

/// Most memory for pages of the file.
const CACHE: usize = 64 * 1024 * 1024;

type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

pub(in crate::store) struct File {
    opener: Opener,
    /// Where the file is, if not in memory.
    dir: Option<PathBuf>,
    database: RwLock<Option<Database>>,
}

impl File {
    /// Opens or makes the file in `dir`, which is made too; both are for their owner alone.
    pub(in crate::store) fn open(dir: &Path) -> Result<Self, StoreError> {
        let cannot = |error: io::Error| {
            StoreError::Unavailable(format!("{} cannot be used: {error}", dir.display()))
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(cannot)?;
        let path = dir.join(NAME);
        let opened = path.clone();
        let file = Self::with_opener(Box::new(move || open(&opened)));
        let file = file.map_err(|error| with_path(&path, error))?;
        Ok(Self { dir: Some(dir.to_owned()), ..file })
    }

    pub(in crate::store) fn memory() -> Result<Self, StoreError> {
        Self::with_opener(Box::new(|| {
            Database::builder().create_with_backend(InMemoryBackend::new())
        }))
        .map_err(|error| with_path(Path::new("memory"), error))
    }

    pub(super) fn with_opener(opener: Opener) -> Result<Self, Fault> {
        let database = guarded(|| {
            let database = opener()?;
            tables::create(&database)?;
            Ok(database)
        })?;
        Ok(Self { opener, dir: None, database: RwLock::new(Some(database)) })
    }

    pub(super) fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        match &*self.database.read() {
            Some(database) => work(database),
            None => Err(Fault::Said(StoreError::Unavailable("the file is being opened".into()))),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.database.read().is_some()
    }

    /// Closes the database and opens it again, which mends what a failed write left; waits for reads under way.
    pub(super) fn reopen(&self) -> Result<(), Fault> {
        let mut database = self.database.write();
        // Closed first: two cannot have the file open.
        let old = database.take();
        *database = Some(guarded(|| {
            drop(old);
            Ok((self.opener)()?)
        })?);
        Ok(())
    }

    /// Whether the disk has room for so much more. A write that fails instead costs opening the database anew.
    pub(super) fn has_room(&self, size: usize) -> bool {
        let Some(dir) = &self.dir else { return true };
        let path = dir.join("room");
        let written = fs::write(&path, vec![0; size]);
        fs::remove_file(&path).ok();
        written.is_ok()
    }
}

/// redb panics on some damage, which is no reason to end the caller.
fn guarded<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Fault::Broken(redb::Error::Corrupted("a page of it is damaged".into())))
    })
}

fn open(path: &Path) -> Result<Database, DatabaseError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    Database::builder().set_cache_size(CACHE).create_with_backend(FileBackend::new(file)?)
}

/// What the operator is told at the start.
fn with_path(path: &Path, error: Fault) -> StoreError {
    match error {
        Fault::Broken(redb::Error::DatabaseAlreadyOpen) => StoreError::Unavailable(format!(
            "{} is in use by another process: stop that one first",
            path.display()
        )),
        Fault::Broken(error) => {
            StoreError::Unavailable(format!("{} cannot be opened: {error}", path.display()))
        }
        Fault::Said(error) | Fault::Spoiled(error) => error,
    }
}

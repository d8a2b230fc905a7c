//! Why work on the database failed, and what callers are told of it.

use std::io;

use crate::store::StoreError;

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
            redb::Error::ValueTooLarge(size) => {
                Fault::Spoiled(StoreError::Full(format!("a value of {size} bytes is too large")))
            }
            error => Fault::Broken(error),
        }
    }
}

impl Fault {
    pub(super) fn halfway(self) -> Self {
        match self {
            Fault::Said(error) => Fault::Spoiled(error),
            fault => fault,
        }
    }

    pub(super) fn into_store_error(self) -> StoreError {
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

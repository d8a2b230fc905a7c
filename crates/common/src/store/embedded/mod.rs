//! The store in this process: one redb file, or memory.

use std::path::Path;

use super::{Admission, Committed, Op, Quota, Read, Snapshot, StoreError, Txn};

/// The embedded store.
#[derive(Clone, Debug)]
pub(super) struct Embedded;

impl Embedded {
    pub(super) fn open(_dir: &Path) -> Result<Self, StoreError> {
        Err(StoreError::Unavailable("not built yet".into()))
    }
    pub(super) fn memory() -> Result<Self, StoreError> {
        Err(StoreError::Unavailable("not built yet".into()))
    }
    pub(super) async fn read(&self, _: Vec<Read>) -> Result<Snapshot, StoreError> {
        Err(StoreError::Unavailable("not built yet".into()))
    }
    pub(super) async fn commit(&self, _: Txn) -> Result<Committed, StoreError> {
        Err(StoreError::Unavailable("not built yet".into()))
    }
    pub(super) async fn apply(&self, _: Vec<Op>) -> Result<Vec<bool>, StoreError> {
        Err(StoreError::Unavailable("not built yet".into()))
    }
    pub(super) fn admit(&self, _: &str, quota: Quota, cost: i64) -> Admission {
        quota.decide(0, 0, cost).1
    }
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

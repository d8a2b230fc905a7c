//! The store in this process: one redb file, or memory.
//!
//! Reads run on Tokio's blocking threads, each in a read transaction of its own. One thread writes; it takes all that is
//! waiting into one redb transaction and answers once that is committed, so that many callers share one `fsync`. What is relaxed
//! is on disk within [`writer::FLUSH_EVERY`] and at a proper end. After a disk error the file is opened anew, which can
//! take back what was relaxed and not yet on disk. Rate limits are kept in memory alone.

mod ballast;
mod buckets;
mod entry;
mod fault;
mod file;
mod job;
mod reading;
mod sweep;
mod tables;
#[cfg(test)]
mod tests;
mod transaction;
mod writer;

use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};

pub(super) use self::file::File;
use self::{
    buckets::Buckets,
    fault::Fault,
    job::{Job, JobResult, QueuedJob},
    writer::Writer,
};
use super::{Admission, Bucket, Committed, Op, Quota, Read, Snapshot, StoreError, Txn, plan};
use crate::clock::Clock;

/// Writes that may wait for the writer; further callers wait for a place within their own deadline.
const WAITING: usize = 1024;

#[derive(Clone)]
pub(super) struct Embedded {
    file: Arc<File>,
    clock: Clock,
    buckets: Arc<Buckets>,
    places: Arc<Semaphore>,
    writer: Arc<Writer>,
}

impl Embedded {
    pub(super) fn on(file: File, clock: Clock) -> Result<Self, StoreError> {
        let file = Arc::new(file);
        let writer = Writer::start(file.clone(), clock.clone())?;
        Ok(Self {
            file,
            buckets: Arc::new(Buckets::new(clock.clone())),
            clock,
            places: Arc::new(Semaphore::new(WAITING)),
            writer: Arc::new(writer),
        })
    }

    pub(super) async fn read(&self, reads: Vec<Read>) -> Result<Snapshot, StoreError> {
        let (file, clock) = (self.file.clone(), self.clock.clone());
        let read =
            move || file.with(|database| reading::snapshot(database, &reads, clock.now_ms()));
        tokio::task::spawn_blocking(read)
            .await
            .map_err(|_| StoreError::Unavailable("a read was broken off".into()))?
            .map_err(Fault::into_store_error)
    }

    pub(super) async fn commit(&self, txn: Txn) -> Result<Committed, StoreError> {
        plan::guards(&txn)?;
        match self.write(Job::Commit(txn)).await? {
            JobResult::Committed(committed) => Ok(committed),
            _ => Err(out_of_order()),
        }
    }

    pub(super) async fn apply_each(
        &self,
        ops: Vec<Op>,
    ) -> Result<Vec<Result<bool, StoreError>>, StoreError> {
        if ops.is_empty() {
            return Ok(Vec::new());
        }
        match self.write(Job::Apply(ops)).await? {
            JobResult::Applied(applied) => Ok(applied),
            _ => Err(out_of_order()),
        }
    }

    pub(super) fn admit(&self, key: &str, quota: Quota, cost: i64) -> Admission {
        self.buckets.take(key, quota, cost)
    }

    pub(super) async fn admit_and_commit(
        &self,
        bucket: &Bucket,
        txn: Txn,
    ) -> Result<(Admission, Option<Committed>), StoreError> {
        let admission = self.admit(&bucket.key, bucket.quota, bucket.quota.cost(1));
        if !admission.allowed {
            return Ok((admission, None));
        }
        Ok((admission, Some(self.commit(txn).await?)))
    }

    /// Asks the writer: it is the part that can be stuck.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        self.write(Job::Ping).await.map(drop)
    }

    async fn write(&self, job: Job) -> Result<JobResult, StoreError> {
        let ended = || StoreError::Unavailable("the writer has ended".into());
        let place = self.places.clone().acquire_owned().await.map_err(|_| ended())?;
        let (answer, answered) = oneshot::channel();
        if !self.writer.send(QueuedJob { job, answer, _place: place }) {
            return Err(ended());
        }
        answered.await.map_err(|_| ended())?
    }
}

fn out_of_order() -> StoreError {
    StoreError::Unavailable("answered out of order".into())
}

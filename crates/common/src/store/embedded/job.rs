//! What the writer can be asked, and how it answers.

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{fault::Fault, tables::WriteTables, transaction};
use crate::store::{Committed, Op, StoreError, Txn};

pub(super) enum Job {
    Commit(Txn),
    Apply(Vec<Op>),
    Ping,
}

/// One request, with its place among those that may wait.
pub(super) struct QueuedJob {
    pub(super) job: Job,
    /// Nobody may be waiting for it any more; that is no matter.
    pub(super) answer: oneshot::Sender<Result<JobResult, StoreError>>,
    pub(super) _place: OwnedSemaphorePermit,
}

pub(super) enum JobResult {
    Committed(Committed),
    Applied(Vec<Result<bool, StoreError>>),
    Pong,
}

impl Job {
    /// Does it. The outer `Err` only for what spoils the whole group.
    pub(super) fn on(
        &self,
        tables: &mut WriteTables<'_>,
    ) -> Result<Result<JobResult, StoreError>, Fault> {
        let done = match self {
            Job::Commit(txn) => transaction::commit(tables, txn).map(JobResult::Committed),
            Job::Apply(ops) => transaction::apply(tables, ops).map(JobResult::Applied),
            Job::Ping => Ok(JobResult::Pong),
        };
        match done {
            Err(Fault::Said(error)) => Ok(Err(error)),
            done => done.map(Ok),
        }
    }
}

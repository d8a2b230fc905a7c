//! What the writer can be asked, and how it answers.

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{fault::Fault, tables::WriteTables, transaction};
use crate::store::{Committed, Op, StoreError, Txn};

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What can be asked of the writer.
pub(super) enum Job {
    Commit(Txn, Answer<Committed>),
    Apply(Vec<Op>, Answer<Vec<bool>>),
    Ping(Answer<()>),
}

/// One request, with its place among those that may wait.
pub(super) struct QueuedJob {
    pub(super) job: Job,
    pub(super) _place: OwnedSemaphorePermit,
}

/// What one request is answered with once its group is on disk.
pub(super) enum JobResult {
    Commit(Result<Committed, StoreError>),
    Apply(Result<Vec<bool>, StoreError>),
    Ping,
}

impl Job {
    /// Whether nobody waits for the answer any more.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Job::Commit(_, answer) => answer.is_closed(),
            Job::Apply(_, answer) => answer.is_closed(),
            Job::Ping(answer) => answer.is_closed(),
        }
    }

    /// Does it. `Err` only for what spoils the whole group.
    pub(super) fn on(&self, tables: &mut WriteTables<'_>) -> Result<JobResult, Fault> {
        Ok(match self {
            Job::Commit(txn, _) => JobResult::Commit(match transaction::commit(tables, txn) {
                Err(Fault::Said(error)) => Err(error),
                Err(broken) => return Err(broken),
                Ok(committed) => Ok(committed),
            }),
            Job::Apply(ops, _) => JobResult::Apply(transaction::apply(tables, ops)?),
            Job::Ping(_) => JobResult::Ping,
        })
    }

    /// Nobody may be waiting any more; that is no matter.
    pub(super) fn answer(self, outcome: JobResult) {
        match (self, outcome) {
            (Job::Commit(_, answer), JobResult::Commit(result)) => drop(answer.send(result)),
            (Job::Apply(_, answer), JobResult::Apply(result)) => drop(answer.send(result)),
            (Job::Ping(answer), _) => drop(answer.send(Ok(()))),
            (work, _) => work.refuse(&StoreError::Unavailable("answered out of order".into())),
        }
    }

    pub(super) fn refuse(self, error: &StoreError) {
        match self {
            Job::Commit(_, answer) => drop(answer.send(Err(error.clone()))),
            Job::Apply(_, answer) => drop(answer.send(Err(error.clone()))),
            Job::Ping(answer) => drop(answer.send(Err(error.clone()))),
        }
    }
}

//! What the writer can be asked, and how it answers.

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{file::Fault, tables::Tables};
use crate::store::{Committed, Op, StoreError, Txn};

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What can be asked of the writer.
pub(super) enum Work {
    Commit(Txn, Answer<Committed>),
    Apply(Vec<Op>, Answer<Vec<bool>>),
    Ping(Answer<()>),
}

/// One request, with its place among those that may wait.
pub(super) struct Request {
    pub(super) work: Work,
    pub(super) _place: OwnedSemaphorePermit,
}

/// What one request is answered with once its group is on disk.
pub(super) enum Outcome {
    Commit(Result<Committed, StoreError>),
    Apply(Result<Vec<bool>, StoreError>),
    Ping,
}

/// Every caller of a failed group is told the same.
pub(super) fn copy(error: &StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(why) => StoreError::Unavailable(why.clone()),
        StoreError::Full(why) => StoreError::Full(why.clone()),
        StoreError::Corrupt(why) => StoreError::Corrupt(why.clone()),
    }
}

impl Work {
    /// Whether nobody waits for the answer any more.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Work::Commit(_, answer) => answer.is_closed(),
            Work::Apply(_, answer) => answer.is_closed(),
            Work::Ping(answer) => answer.is_closed(),
        }
    }

    /// Does it. `Err` only for what spoils the whole group.
    pub(super) fn on(&self, tables: &mut Tables<'_>) -> Result<Outcome, Fault> {
        Ok(match self {
            Work::Commit(txn, _) => Outcome::Commit(match tables.commit(txn) {
                Err(Fault::Said(error)) => Err(error),
                Err(broken) => return Err(broken),
                Ok(committed) => Ok(committed),
            }),
            Work::Apply(ops, _) => Outcome::Apply(tables.apply(ops)?),
            Work::Ping(_) => Outcome::Ping,
        })
    }

    /// Nobody may be waiting any more; that is no matter.
    pub(super) fn answer(self, outcome: Outcome) {
        match (self, outcome) {
            (Work::Commit(_, answer), Outcome::Commit(result)) => drop(answer.send(result)),
            (Work::Apply(_, answer), Outcome::Apply(result)) => drop(answer.send(result)),
            (Work::Ping(answer), _) => drop(answer.send(Ok(()))),
            (work, _) => work.refuse(&StoreError::Unavailable("answered out of order".into())),
        }
    }

    pub(super) fn refuse(self, error: &StoreError) {
        match self {
            Work::Commit(_, answer) => drop(answer.send(Err(copy(error)))),
            Work::Apply(_, answer) => drop(answer.send(Err(copy(error)))),
            Work::Ping(answer) => drop(answer.send(Err(copy(error)))),
        }
    }
}

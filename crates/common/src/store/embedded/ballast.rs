//! Room that is set aside in the file, so that a full disk does not keep anybody from deleting.
//!
//! redb copies what it changes, so that deleting, too, needs free pages. While the file has its ballast everything is tried.
//! When a write finds no room, the ballast is taken out, and only what removes is done until it is back: the same as a full
//! Redis does, which refuses a transaction at its first operation that grows something.

use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::{fault::Fault, job::Job};
use crate::store::{Op, Txn};

const BALLAST: TableDefinition<u64, &[u8]> = TableDefinition::new("ballast");

/// Pieces of the ballast: small enough to be put back one by one where the room is in pieces.
const PIECES: u64 = 32;

/// Bytes of a piece, with what redb adds 32 KiB.
const PIECE: usize = 32 * 1024 - 256;

/// Bytes of all of it, and as much again for what redb copies.
pub(super) const SIZE: usize = 2 * PIECES as usize * 32 * 1024;

/// Puts in what is missing. Whether anything was.
pub(super) fn put_in(txn: &WriteTransaction) -> Result<((), bool), Fault> {
    let mut table = txn.open_table(BALLAST)?;
    let piece = vec![0; PIECE];
    let mut is_missing = false;
    for at in 0..PIECES {
        if table.get(at)?.is_none() {
            table.insert(at, &piece[..])?;
            is_missing = true;
        }
    }
    Ok(((), is_missing))
}

pub(super) fn take_out(txn: &WriteTransaction) -> Result<((), bool), Fault> {
    Ok(((), txn.delete_table(BALLAST)?))
}

/// Whether that can be done without room to grow: it removes first.
pub(super) fn frees(job: &Job) -> bool {
    match job {
        Job::Commit(Txn { ops, .. }) => ops.first().is_none_or(removes),
        Job::Apply(ops) => ops.iter().all(removes),
        Job::Ping => true,
    }
}

fn removes(op: &Op) -> bool {
    match op {
        Op::Delete(_)
        | Op::FieldDelete(..)
        | Op::Pop(_)
        | Op::MemberDelete(..)
        | Op::MembersBelow(..)
        | Op::Expire(..) => true,
        Op::Set { .. }
        | Op::FieldSet(..)
        | Op::FieldAdd(..)
        | Op::Push(..)
        | Op::PushExisting(..)
        | Op::ItemSet(..)
        | Op::MemberSet(..) => false,
    }
}

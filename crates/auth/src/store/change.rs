//! Changes of an account: one transaction in its user's slot, refused if the account has changed since it was read.

use common::{
    identity::{AccountState, Owner, UserId, api_keys_index, state},
    store::{Bytes, Check, Op, Txn},
};

use super::{accounts::account_key, number, set_field};
use crate::domain::account::{Account, AccountSnapshot};

/// Checks and operations on one account. Logins, API keys and attempts add their own; see the files beside this one.
pub struct Change {
    pub(super) user: UserId,
    state: AccountState,
    is_new_state: bool,
    next_revision: u64,
    txn: Txn,
}

impl Change {
    /// Nothing yet, on condition that the account is still as `current` has it.
    pub fn of(current: &AccountSnapshot) -> Self {
        Self {
            user: current.user.clone(),
            state: current.state.clone(),
            is_new_state: false,
            // An id whose state was removed must never get a revision again that somebody still has in a cache.
            next_revision: match current.state.revision {
                0 => u64::try_from(current.now).unwrap_or(1),
                revision => revision + 1,
            },
            txn: Txn::durable().check(current.state.unchanged(&current.user)),
        }
    }

    pub(super) fn check(mut self, check: Check) -> Self {
        self.txn.checks.push(check);
        self
    }

    pub(super) fn op(mut self, op: Op) -> Self {
        self.txn.ops.push(op);
        self
    }

    pub fn put(self, account: &Account) -> Self {
        let key = account_key(&self.user);
        let password = match &account.password {
            Some(password) => set_field(&key, "password", Bytes::from(password.clone())),
            None => Op::FieldDelete(key.clone(), "password".into()),
        };
        let mut change = self
            .op(set_field(&key, "v", number(1)))
            .op(set_field(&key, "created", number(account.created_at)))
            .op(set_field(&key, "logins_end", number(account.logins_end_at)))
            .op(password)
            .new_revision();
        change.state.live = true;
        change.state.has_password = account.password.is_some();
        change
    }

    /// Deletes the account; the id begins a new generation.
    pub fn delete(self) -> Self {
        let record = Op::Delete(account_key(&self.user));
        let mut change = self.op(record).new_revision();
        change.state.generation += 1;
        change.state.live = false;
        change.state.has_password = false;
        change.state.kept = None;
        change
    }

    /// Records when the account's last login is over.
    pub fn extend_logins(self, logins_end_at: i64) -> Self {
        let key = account_key(&self.user);
        self.op(set_field(&key, "logins_end", number(logins_end_at)))
    }

    /// Removes an account without a password whose logins are over and which has no API keys, unless somebody has logged in
    /// meanwhile. The state of generation 0 goes with it, since nothing is left that it could refuse; another generation must be
    /// remembered, so that the id does not see what earlier ones left.
    pub fn expire(self, owner: &Owner, account: &Account) -> Self {
        let (key, seen) = (account_key(&self.user), number(account.logins_end_at));
        let mut change = self
            .check(Check::FieldEquals(key.clone(), "logins_end".into(), seen))
            .op(Op::Delete(key))
            .op(Op::Delete(api_keys_index(owner)));
        if owner.generation == 0 {
            let state = state(&change.user);
            return change.op(Op::Delete(state));
        }
        change.state.live = false;
        change.new_revision()
    }

    pub fn end_logins(self, kept: Option<&str>) -> Self {
        let mut change = self.new_revision();
        change.state.epoch += 1;
        change.state.kept = kept.map(str::to_owned);
        change
    }

    /// Makes every process check the account's credentials again.
    pub fn new_revision(mut self) -> Self {
        self.is_new_state = true;
        self.state.revision = self.next_revision;
        self
    }

    pub(super) fn into_txn(self) -> Txn {
        let mut txn = self.txn;
        if self.is_new_state {
            // A full Redis applies a transaction whole if its first operation removes something.
            let key = state(&self.user);
            let is_ending = self.state.kept.is_none();
            let first = is_ending.then(|| Op::FieldDelete(key.clone(), "kept".into()));
            let fields = self.state.fields().into_iter();
            let set = fields.map(|(field, value)| set_field(&key, field, value));
            txn.ops.extend(first.into_iter().chain(set));
        }
        txn
    }
}

//! Failed attempts: counted for an account in its slot, and for a network address as a quota.

use std::{net::IpAddr, time::Duration};

use common::{
    http::network,
    identity::UserId,
    store::{Admission, Check, Committed, Key, Op, Quota, Read, Store, StoreError, Txn},
};

use super::{Change, number, set_field, text};
use crate::domain::attempts::Attempts;

/// How long a count is kept after the last attempt. Longer than sixty of the longest waits would be pointless, shorter
/// than five of them would make it pay to wait for the free ones.
const KEPT: Duration = Duration::from_secs(15 * 60);
const FAILURES: Quota = Quota { burst: 100, period: Duration::from_secs(60) };
const REGISTRATIONS: Quota = Quota { burst: 20, period: Duration::from_secs(60) };

#[derive(Clone)]
pub struct AttemptStore {
    store: Store,
}

fn attempts_key(user: &UserId) -> Key {
    format!("a:{{{user}}}:attempts")
}

fn address_key(address: IpAddr, what: &str) -> Key {
    format!("a:address:{{{}}}:{what}", network(address))
}

impl AttemptStore {
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// The attempts on an id, whether or not it has an account.
    pub async fn load(&self, user: &UserId) -> Result<Attempts, StoreError> {
        let read = Read::Fields(attempts_key(user));
        let mut found = self.store.read(vec![read]).await?;
        let fields = found.fields(0);
        let whole = |name| -> i64 {
            let value = text(&fields, name).and_then(|it| it.parse().ok());
            value.unwrap_or(0)
        };
        Ok(Attempts {
            now: found.now,
            failed: u32::try_from(whole("failed")).unwrap_or(u32::MAX),
            until: whole("until"),
        })
    }

    /// Counts one more attempt on an id than `seen`; false if somebody else did meanwhile.
    pub async fn count(&self, user: &UserId, seen: &Attempts) -> Result<bool, StoreError> {
        let (key, counted) = (attempts_key(user), seen.counted());
        let check = match seen.failed {
            0 => Check::FieldAbsent(key.clone(), "failed".into()),
            failed => Check::FieldEquals(key.clone(), "failed".into(), number(failed)),
        };
        let txn = Txn::relaxed()
            .check(check)
            .op(set_field(&key, "failed", number(counted.failed)))
            .op(set_field(&key, "until", number(counted.until)))
            .op(Op::Expire(key, Some(KEPT)));
        Ok(self.store.commit(txn).await? == Committed::Applied)
    }

    pub async fn admit_failure(&self, address: IpAddr) -> Result<Admission, StoreError> {
        let key = address_key(address, "failures");
        self.store.admit(&key, FAILURES, 1).await
    }

    /// Takes back [`Self::admit_failure`]: the attempt did not fail.
    pub async fn refund_failure(&self, address: IpAddr) -> Result<(), StoreError> {
        let key = address_key(address, "failures");
        self.store.refund(&key, FAILURES, 1).await
    }

    pub async fn admit_registration(&self, address: IpAddr) -> Result<Admission, StoreError> {
        let key = address_key(address, "registrations");
        self.store.admit(&key, REGISTRATIONS, 1).await
    }
}

impl Change {
    pub fn forget_attempts(self) -> Self {
        let key = attempts_key(&self.user);
        self.op(Op::Delete(key))
    }
}

//! Failed attempts: counted for an account in its slot, and for a network address as a quota.

use std::{net::IpAddr, time::Duration};

use common::{
    identity::UserId,
    store::{Admission, Check, Committed, Key, Op, Quota, Read, StoreError, Txn},
};

use super::{Change, Repository, number, text};

/// How long a count is kept after the last attempt. Longer than sixty of the longest waits would be pointless, shorter
/// than five of them would make it pay to wait for the free ones.
const KEPT: Duration = Duration::from_secs(15 * 60);
/// Failed attempts of one address.
const FAILURES: Quota = Quota {
    burst: 100,
    period: Duration::from_secs(60),
};
/// Registrations of one address.
const REGISTRATIONS: Quota = Quota {
    burst: 20,
    period: Duration::from_secs(60),
};

/// How an account's attempts stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempts {
    /// The store's clock: Unix milliseconds.
    pub now: i64,
    /// How many have failed, or are under way.
    pub failed: u32,
    /// When the next one may be made: Unix milliseconds.
    pub until: i64,
}

fn attempts_key(user: &UserId) -> Key {
    format!("a:{{{user}}}:attempts")
}

fn address_key(address: IpAddr, what: &str) -> Key {
    format!("a:address:{{{}}}:{what}", network(address))
}

/// What counts as one address: an IPv6 subscriber has a /64 to choose from.
fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::")
        }
    }
}

impl Repository {
    /// How the attempts of an id stand, whether or not it has an account.
    pub async fn attempts(&self, user: &UserId) -> Result<Attempts, StoreError> {
        let mut found = self
            .store
            .read(vec![Read::Fields(attempts_key(user))])
            .await?;
        let fields = found.fields(0);
        let whole = |name: &str| {
            text(&fields, name)
                .and_then(|it| it.parse::<i64>().ok())
                .unwrap_or(0)
        };
        Ok(Attempts {
            now: found.now,
            failed: u32::try_from(whole("failed")).unwrap_or(u32::MAX),
            until: whole("until"),
        })
    }

    /// Counts one more attempt, if nobody else did meanwhile; the next may be made at `until`.
    pub async fn count_attempt(
        &self,
        user: &UserId,
        seen: &Attempts,
        until: i64,
    ) -> Result<bool, StoreError> {
        let key = attempts_key(user);
        let check = match seen.failed {
            0 => Check::FieldAbsent(key.clone(), "failed".into()),
            failed => Check::FieldEquals(key.clone(), "failed".into(), number(failed)),
        };
        let txn = Txn::relaxed()
            .check(check)
            .op(Op::FieldSet(
                key.clone(),
                "failed".into(),
                number(seen.failed.saturating_add(1)),
            ))
            .op(Op::FieldSet(key.clone(), "until".into(), number(until)))
            .op(Op::Expire(key, Some(KEPT)));
        Ok(self.store.commit(txn).await? == Committed::Applied)
    }

    /// Forgets the failed attempts of an id.
    pub async fn forget_attempts(&self, user: &UserId) -> Result<(), StoreError> {
        self.store
            .commit(Txn::relaxed().op(Op::Delete(attempts_key(user))))
            .await
            .map(drop)
    }

    /// Takes one of an address's attempts.
    pub async fn admit_attempt(&self, address: IpAddr) -> Result<Admission, StoreError> {
        self.store
            .admit(&address_key(address, "failures"), FAILURES, 1)
            .await
    }

    /// Gives it back: it did not fail.
    pub async fn refund_attempt(&self, address: IpAddr) -> Result<(), StoreError> {
        self.store
            .refund(&address_key(address, "failures"), FAILURES, 1)
            .await
            .map(drop)
    }

    /// Takes one of an address's registrations.
    pub async fn admit_registration(&self, address: IpAddr) -> Result<Admission, StoreError> {
        self.store
            .admit(&address_key(address, "registrations"), REGISTRATIONS, 1)
            .await
    }
}

impl Change {
    /// Forgets the failed attempts of an id.
    pub fn forget_attempts(self, user: &UserId) -> Self {
        self.op(Op::Delete(attempts_key(user)))
    }
}

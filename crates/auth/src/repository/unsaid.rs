//! What is about to be revoked: announced before it is, and struck out once every process can know it. Whoever dies in
//! between leaves the announcement, and any instance of `auth` finishes what it says.

use common::{
    identity::{Owner, Revocation, UserId},
    store::{Op, Read, StoreError, Txn},
};

use super::Repository;

/// The index of announcements, of no user's slot; members `<user>:<generation>:<entry>`, as `i:revoked` spells entries.
const UNSAID: &str = "a:unsaid";

/// A revocation that was announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Whose.
    pub owner: Owner,
    /// What is to be refused, if it came to that.
    pub entry: Revocation,
    /// When it was announced: Unix milliseconds.
    pub at: i64,
}

fn member(owner: &Owner, entry: &Revocation) -> String {
    format!("{}:{}:{}", owner.user, owner.generation, entry.member())
}

fn parse(member: &str, at: i64) -> Option<Announced> {
    let mut parts = member.splitn(3, ':');
    let user = UserId::parse(parts.next()?)?;
    let generation = parts.next()?.parse().ok()?;
    let entry = Revocation::parse(parts.next()?)?;
    let owner = Owner { user, generation };
    Some(Announced { owner, entry, at })
}

impl Repository {
    /// Announces revocations; they are not in force before what they are of has changed.
    pub async fn announce(
        &self,
        owner: &Owner,
        entries: &[Revocation],
        now: i64,
    ) -> Result<(), StoreError> {
        let txn = entries.iter().fold(Txn::durable(), |txn, entry| {
            txn.op(Op::MemberSet(UNSAID.into(), member(owner, entry), now))
        });
        self.store.commit(txn).await.map(drop)
    }

    /// Strikes announcements out: they are known, or came to nothing.
    pub async fn strike(&self, owner: &Owner, entries: &[Revocation]) -> Result<(), StoreError> {
        let txn = entries.iter().fold(Txn::relaxed(), |txn, entry| {
            txn.op(Op::MemberDelete(UNSAID.into(), member(owner, entry)))
        });
        self.store.commit(txn).await.map(drop)
    }

    /// The oldest announcements that nobody has struck out, and the store's clock.
    pub async fn announced(&self, limit: usize) -> Result<(i64, Vec<Announced>), StoreError> {
        let read = Read::Since {
            key: UNSAID.into(),
            score: 0,
            limit,
        };
        let mut page = self.store.read(vec![read]).await?;
        let members = page.members(0).into_iter();
        let announced = members.filter_map(|(member, at)| parse(&member, at));
        Ok((page.now, announced.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_announcement_is_read_back_as_it_was_written() {
        let owner = Owner {
            user: UserId::parse("al.ice@x-y_z").unwrap(),
            generation: 3,
        };
        for entry in [
            Revocation::Login("2-ab_c-d".into()),
            Revocation::ApiKey("xyz".into()),
            Revocation::Account(owner.clone()),
            Revocation::Logins {
                owner: owner.clone(),
                epoch: 3,
                kept: Some("2-x".into()),
            },
        ] {
            let announced = Announced {
                owner: owner.clone(),
                entry,
                at: 7,
            };
            assert_eq!(parse(&member(&owner, &announced.entry), 7), Some(announced));
        }
        for garbage in ["", "alice", "alice:0", "alice:x:login:a", "alice:0:new:a"] {
            assert_eq!(parse(garbage, 0), None, "{garbage}");
        }
    }
}

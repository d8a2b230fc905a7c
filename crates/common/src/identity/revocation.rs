//! What was revoked and has not expired yet: written by `auth` to one index, polled by every process, asked in memory.
//!
//! The index `i:revoked` has one member a [`Revocation`], scored by the store's clock when it was written. A process
//! reads what is new every second, with an overlap for writes that were under way, and all of it once a minute. While
//! the store is down, what is known stays known. The same poll learns how far this machine's clock is from the store's,
//! so that all instances judge expiry by one clock.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{Credential, Identity, Owner, UserId};
use crate::{
    clock,
    shutdown::Shutdown,
    store::{Op, Read, Store, StoreError, Txn},
};

/// The index of revocations.
pub const REVOKED: &str = "i:revoked";
/// Between two polls; a revocation is seen everywhere within that and one store call.
const INTERVAL: Duration = Duration::from_secs(1);
/// How far back a poll looks behind the one before, in milliseconds: a write that was held up appears late.
const OVERLAP_MS: i64 = 60_000;
/// Every so many polls the whole index is read, and what `auth` has trimmed is forgotten.
const FULL_EVERY: u64 = 60;
/// Most members read in one call.
const PAGE: usize = 10_000;

/// One thing that is refused from now on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Revocation {
    /// One login (`sid`).
    Login(String),
    /// One API key, by its id.
    ApiKey(String),
    /// A deleted account: that generation and every one before.
    Account(Owner),
    /// Every login of an account that began before that epoch, but for one.
    Logins {
        /// The account.
        owner: Owner,
        /// Logins of earlier epochs are refused: see [`login_epoch`].
        epoch: u64,
        /// The login that stays.
        kept: Option<String>,
    },
}

impl Revocation {
    /// The index member.
    pub fn member(&self) -> String {
        match self {
            Self::Login(login) => format!("login:{login}"),
            Self::ApiKey(id) => format!("key:{id}"),
            Self::Account(Owner { user, generation }) => format!("account:{user}:{generation}"),
            Self::Logins {
                owner: Owner { user, generation },
                epoch,
                kept,
            } => {
                format!(
                    "logins:{user}:{generation}:{epoch}:{}",
                    kept.as_deref().unwrap_or("")
                )
            }
        }
    }

    /// What an index member says; `None` for one that a newer version wrote.
    pub fn parse(member: &str) -> Option<Self> {
        let mut parts = member.split(':');
        let kind = parts.next()?;
        let owner = |parts: &mut std::str::Split<'_, char>| {
            let user = UserId::parse(parts.next()?)?;
            Some(Owner {
                user,
                generation: parts.next()?.parse().ok()?,
            })
        };
        let parsed = match kind {
            "login" => Self::Login(parts.next()?.to_owned()),
            "key" => Self::ApiKey(parts.next()?.to_owned()),
            "account" => Self::Account(owner(&mut parts)?),
            "logins" => Self::Logins {
                owner: owner(&mut parts)?,
                epoch: parts.next()?.parse().ok()?,
                kept: parts
                    .next()
                    .filter(|kept| !kept.is_empty())
                    .map(str::to_owned),
            },
            _ => return None,
        };
        parts.next().is_none().then_some(parsed)
    }
}

/// The epoch that a login began in: the number before the first `-` of its id. An account's epoch grows whenever all of
/// its logins end at once, so that ending any number of them is one entry.
pub fn login_epoch(login: &str) -> u64 {
    login
        .split_once('-')
        .and_then(|(epoch, _)| epoch.parse().ok())
        .unwrap_or(0)
}

#[derive(Default)]
struct Known {
    /// Scores by entry, to know when a full read may forget one.
    logins: HashMap<String, i64>,
    api_keys: HashMap<String, i64>,
    /// The highest deleted generation.
    accounts: HashMap<UserId, (u64, i64)>,
    /// The newest epoch and the login that it kept.
    epochs: HashMap<Owner, (u64, Option<String>, i64)>,
}

impl Known {
    /// Takes an entry in; whether it said anything new.
    fn insert(&mut self, entry: Revocation, score: i64) -> bool {
        match entry {
            Revocation::Login(login) => self.logins.insert(login, score).is_none(),
            Revocation::ApiKey(id) => self.api_keys.insert(id, score).is_none(),
            Revocation::Account(Owner { user, generation }) => match self.accounts.get(&user) {
                Some((known, _)) if *known >= generation => false,
                _ => {
                    self.accounts.insert(user, (generation, score));
                    true
                }
            },
            Revocation::Logins { owner, epoch, kept } => match self.epochs.get(&owner) {
                Some((known, ..)) if *known >= epoch => false,
                _ => {
                    self.epochs.insert(owner, (epoch, kept, score));
                    true
                }
            },
        }
    }

    /// Takes over what another set has from `score` on: entries of this process that a full read was too early for.
    fn keep_since(&mut self, other: &Known, score: i64) {
        let fresh = |at: &i64| *at >= score;
        self.logins.extend(
            other
                .logins
                .iter()
                .filter(|(_, at)| fresh(at))
                .map(|(k, at)| (k.clone(), *at)),
        );
        self.api_keys.extend(
            other
                .api_keys
                .iter()
                .filter(|(_, at)| fresh(at))
                .map(|(k, at)| (k.clone(), *at)),
        );
        for (user, (generation, at)) in other.accounts.iter().filter(|(_, (_, at))| fresh(at)) {
            self.insert(
                Revocation::Account(Owner {
                    user: user.clone(),
                    generation: *generation,
                }),
                *at,
            );
        }
        for (owner, (epoch, kept, at)) in other.epochs.iter().filter(|(_, (.., at))| fresh(at)) {
            self.insert(
                Revocation::Logins {
                    owner: owner.clone(),
                    epoch: *epoch,
                    kept: kept.clone(),
                },
                *at,
            );
        }
    }

    fn has(&self, identity: &Identity) -> bool {
        let owner = &identity.owner;
        if self
            .accounts
            .get(&owner.user)
            .is_some_and(|(generation, _)| *generation >= owner.generation)
        {
            return true;
        }
        match &identity.credential {
            Credential::Token { login, .. } => {
                let ended = self.epochs.get(owner).is_some_and(|(epoch, kept, _)| {
                    login_epoch(login) < *epoch && kept.as_deref() != Some(login.as_str())
                });
                ended || self.logins.contains_key(login)
            }
            Credential::ApiKey { id, .. } => self.api_keys.contains_key(id),
            Credential::Open => false,
        }
    }
}

/// What this process knows to be revoked. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Revocations {
    known: Arc<RwLock<Known>>,
    /// Counts changes; 0 until the index was read once.
    version: watch::Sender<u64>,
    /// The store's clock minus this machine's, in milliseconds.
    offset_ms: Arc<AtomicI64>,
}

impl Revocations {
    /// Begins to poll; ends with the second stage of the shutdown.
    pub fn start(store: Store, shutdown: &Shutdown) -> Self {
        let revocations = Self {
            known: Arc::default(),
            version: watch::Sender::new(0),
            offset_ms: Arc::new(AtomicI64::new(0)),
        };
        shutdown.spawn({
            let (revocations, shutdown) = (revocations.clone(), shutdown.clone());
            async move {
                tokio::select! {
                    () = shutdown.stopping() => {}
                    () = revocations.poll(store) => {}
                }
            }
        });
        revocations
    }

    /// Whether that identity is known to be refused.
    pub fn has(&self, identity: &Identity) -> bool {
        self.known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .has(identity)
    }

    /// Resolves once that identity is refused.
    pub async fn wait_for(&self, identity: &Identity) {
        let mut version = self.version.subscribe();
        while !self.has(identity) {
            if version.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until the index was read at least once, at most until `deadline`; whether it was.
    pub async fn loaded(&self, deadline: Instant) -> bool {
        let mut version = self.version.subscribe();
        tokio::time::timeout_at(deadline.into(), version.wait_for(|version| *version > 0))
            .await
            .is_ok_and(|it| it.is_ok())
    }

    /// Now by the store's clock, in milliseconds since the Unix epoch, as far as this process knows it.
    pub fn now_ms(&self) -> i64 {
        clock::now_ms().saturating_add(self.offset_ms.load(Ordering::Relaxed))
    }

    /// Writes entries to the index and knows them at once. `now` is the store's clock. Safe to repeat.
    pub async fn publish(
        &self,
        store: &Store,
        now: i64,
        entries: Vec<Revocation>,
    ) -> Result<(), StoreError> {
        let txn = entries.iter().fold(Txn::durable(), |txn, entry| {
            txn.op(Op::MemberSet(REVOKED.into(), entry.member(), now))
        });
        let written = store.commit(txn).await;
        // Known here even where the write is in doubt: whoever asked for it wanted it.
        self.learn(entries.into_iter().map(|entry| (entry, now)).collect());
        written.map(|_| ())
    }

    fn learn(&self, entries: Vec<(Revocation, i64)>) {
        let mut changed = false;
        {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            for (entry, score) in entries {
                changed |= known.insert(entry, score);
            }
        }
        if changed {
            // 0 stays 0: knowing one entry is not having read the index.
            self.version
                .send_modify(|version| *version += u64::from(*version > 0));
        }
    }

    async fn poll(&self, store: Store) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut polls, mut since) = (0_u64, 0);
        loop {
            ticks.tick().await;
            let full = polls.is_multiple_of(FULL_EVERY);
            match self.read(&store, if full { 0 } else { since }).await {
                Ok((now, entries)) => {
                    if full {
                        self.replace(entries, now - 2 * OVERLAP_MS);
                    } else {
                        self.learn(entries);
                    }
                    since = now - OVERLAP_MS;
                    polls += 1;
                }
                Err(error) => tracing::debug!(error = %error, "revocations not read"),
            }
        }
    }

    async fn read(
        &self,
        store: &Store,
        since: i64,
    ) -> Result<(i64, Vec<(Revocation, i64)>), StoreError> {
        let (mut entries, mut score, mut limit) = (Vec::new(), since, PAGE);
        loop {
            let mut page = store
                .read(vec![Read::Since {
                    key: REVOKED.into(),
                    score,
                    limit,
                }])
                .await?;
            self.offset_ms
                .store(page.now - clock::now_ms(), Ordering::Relaxed);
            let members = page.members(0);
            let last = members.last().map_or(score, |(_, last)| *last);
            let more = members.len() >= limit;
            entries.extend(
                members
                    .into_iter()
                    .filter_map(|(member, at)| Some((Revocation::parse(&member)?, at))),
            );
            if !more {
                return Ok((page.now, entries));
            }
            // A page of one score only: the next must be larger, or it would be the same again.
            limit = if last == score { limit * 2 } else { PAGE };
            score = last;
        }
    }

    fn replace(&self, entries: Vec<(Revocation, i64)>, keep_since: i64) {
        let mut fresh = Known::default();
        for (entry, score) in entries {
            fresh.insert(entry, score);
        }
        {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            fresh.keep_since(&known, keep_since);
            *known = fresh;
        }
        self.version.send_modify(|version| *version += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(generation: u64) -> Owner {
        Owner {
            user: UserId::parse("al.ice@x-y_z").unwrap(),
            generation,
        }
    }

    fn token(login: &str, generation: u64) -> Identity {
        Identity {
            owner: owner(generation),
            credential: Credential::Token {
                login: login.into(),
                expires_at: 0,
            },
        }
    }

    #[test]
    fn every_entry_is_read_back_as_it_was_written() {
        for entry in [
            Revocation::Login("2-ab_c-d".into()),
            Revocation::ApiKey("xyz".into()),
            Revocation::Account(owner(4)),
            Revocation::Logins {
                owner: owner(1),
                epoch: 3,
                kept: Some("2-x".into()),
            },
            Revocation::Logins {
                owner: owner(1),
                epoch: 3,
                kept: None,
            },
        ] {
            assert_eq!(Revocation::parse(&entry.member()), Some(entry));
        }
        for garbage in [
            "",
            "login",
            "account:alice",
            "account:alice:x",
            "new:thing",
            "login:a:b",
        ] {
            assert_eq!(Revocation::parse(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn ending_all_logins_spares_the_one_kept_and_those_that_come_after() {
        let mut known = Known::default();
        known.insert(
            Revocation::Logins {
                owner: owner(0),
                epoch: 2,
                kept: Some("1-mine".into()),
            },
            0,
        );
        assert!(known.has(&token("0-old", 0)) && known.has(&token("1-other", 0)));
        assert!(!known.has(&token("1-mine", 0)) && !known.has(&token("2-new", 0)));
        assert!(!known.has(&token("0-old", 1)), "another account of that id");
        known.insert(
            Revocation::Logins {
                owner: owner(0),
                epoch: 1,
                kept: None,
            },
            0,
        );
        assert!(
            !known.has(&token("1-mine", 0)),
            "an older entry that is read later changes nothing"
        );
    }

    #[test]
    fn a_deleted_account_takes_everything_of_its_generation_along() {
        let mut known = Known::default();
        known.insert(Revocation::Account(owner(1)), 0);
        let key = Credential::ApiKey {
            id: "k".into(),
            expires_at: None,
        };
        assert!(known.has(&Identity {
            owner: owner(1),
            credential: key.clone()
        }));
        assert!(known.has(&token("0-x", 0)));
        assert!(!known.has(&Identity {
            owner: owner(2),
            credential: key
        }));
    }

    #[test]
    fn a_full_read_forgets_what_was_trimmed_and_keeps_what_is_younger_than_it() {
        let (mut old, mut fresh) = (Known::default(), Known::default());
        old.insert(Revocation::Login("0-trimmed".into()), 10);
        old.insert(Revocation::Login("0-young".into()), 1000);
        fresh.keep_since(&old, 500);
        assert!(!fresh.has(&token("0-trimmed", 0)) && fresh.has(&token("0-young", 0)));
    }
}

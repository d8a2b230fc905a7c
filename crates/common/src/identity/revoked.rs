//! What can be revoked, how an entry of the index spells it, and whether it covers an identity.

use std::collections::HashMap;

use super::{Credential, Identity, Owner, UserId};

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
    /// What kind it is, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Login(_) => "login",
            Self::ApiKey(_) => "key",
            Self::Account(_) => "account",
            Self::Logins { .. } => "logins",
        }
    }

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

/// Every entry that a process knows.
#[derive(Default)]
pub(super) struct Known {
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
    pub fn insert(&mut self, entry: Revocation, score: i64) -> bool {
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
    pub fn keep_since(&mut self, other: &Known, score: i64) {
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

    /// Whether an entry covers that identity.
    pub fn has(&self, identity: &Identity) -> bool {
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

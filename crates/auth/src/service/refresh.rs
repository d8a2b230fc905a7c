//! Refresh tokens take turns: each works once, a repeat within seconds gets the same answer, a later one is theft.

use std::time::Duration;

use common::{
    identity::{Opaque, digest},
    store::Bytes,
};

use super::{
    Accounts, AuthError, ROUNDS, count_ending,
    tokens::{REFRESH_PREFIX, random_bytes, successor, was_issued},
};
use crate::{
    models::TokenPair,
    repository::{Change, Ended, Loaded, LoginRecord},
};

/// How long a token that was just used gives the same successor again: for a lost answer, or two tabs.
const GRACE: Duration = Duration::from_secs(10);

/// What a presented refresh token means.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// It is the one that works: the next takes its place.
    Rotate,
    /// It was used just now, and what it gave was not: the same again, from this nonce.
    Repeat(Bytes),
    /// It was used, and it is too late for a repeat.
    Theft,
    /// The login is over.
    Over(Ended),
    /// It was never issued.
    Unknown,
}

fn turn(record: &LoginRecord, nonce: Option<Bytes>, presented: &Opaque, text: &str) -> Turn {
    if !was_issued(presented, &record.proof_key) {
        return Turn::Unknown;
    }
    let presented = digest(text);
    match (record.ended, nonce) {
        (Some(why), _) => Turn::Over(why),
        (None, _) if record.current == presented => Turn::Rotate,
        (None, Some(nonce)) if record.previous.as_deref() == Some(&presented) => {
            Turn::Repeat(nonce)
        }
        (None, _) => Turn::Theft,
    }
}

impl Accounts {
    /// The next access and refresh token of a login.
    pub async fn refresh(&self, text: &str) -> Result<TokenPair, AuthError> {
        let token = Opaque::decode(REFRESH_PREFIX, text).ok_or(AuthError::InvalidRefresh)?;
        for _ in 0..ROUNDS {
            let reads = LoginRecord::reads(&token.owner, &token.id);
            let mut loaded = self.repository.load(&token.owner.user, reads).await?;
            let (record, nonce) = LoginRecord::found(&mut loaded.snapshot);
            let record = record.ok_or(AuthError::InvalidRefresh)?;
            match turn(&record, nonce, &token, text) {
                Turn::Unknown => return Err(AuthError::InvalidRefresh),
                _ if !counts(&loaded, &token) => return Err(AuthError::Revoked),
                Turn::Over(Ended::Logout) => return Err(AuthError::Revoked),
                Turn::Over(Ended::Reused) => return Err(AuthError::Reused),
                Turn::Repeat(nonce) => {
                    let next = successor(&token.owner, &token.id, &record.proof_key, &nonce, text);
                    return self.grant(&token, &record, next, loaded.now);
                }
                Turn::Rotate => {
                    let nonce = random_bytes();
                    let next = successor(&token.owner, &token.id, &record.proof_key, &nonce, text);
                    let change = Change::of(&loaded.current).rotate(
                        &token.owner,
                        &token.id,
                        (&record.current, &digest(&next)),
                        (nonce, GRACE),
                    );
                    if self.repository.commit(change).await? {
                        return self.grant(&token, &record, next, loaded.now);
                    }
                }
                Turn::Theft => {
                    let change = Change::of(&loaded.current).end_login(
                        &token.owner,
                        &token.id,
                        Ended::Reused,
                        self.settings.access_ttl,
                    );
                    if self.repository.commit(change).await? {
                        count_ending("login");
                        tracing::warn!(user_id = %token.owner.user, "refresh token used twice: login ended");
                        return Err(AuthError::Reused);
                    }
                }
            }
        }
        Err(AuthError::Contended)
    }

    fn grant(
        &self,
        token: &Opaque,
        record: &LoginRecord,
        next: String,
        now: i64,
    ) -> Result<TokenPair, AuthError> {
        let (access_token, expires_in) =
            self.access_token(&token.owner, &token.id, record.started_at, now)?;
        Ok(TokenPair {
            access_token,
            expires_in,
            refresh_token: next,
        })
    }
}

/// Whether the login belongs to the account that the id has now, and was not ended with all others.
fn counts(loaded: &Loaded, token: &Opaque) -> bool {
    let current = &loaded.current;
    current.account_of(&token.owner).is_some() && current.state.counts_login(&token.id)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use common::identity::{Owner, UserId};
    use proptest::prelude::*;

    use super::*;
    use crate::service::tokens::first_refresh;

    /// What clients do: show the token that they got so many answers ago, or one that was never given; time passes.
    #[derive(Clone, Debug)]
    enum Step {
        Show { back: usize },
        MadeUp,
        GraceEnds,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => Just(Step::Show { back: 0 }),
            3 => Just(Step::Show { back: 1 }),
            1 => (2_usize..5).prop_map(|back| Step::Show { back }),
            1 => Just(Step::MadeUp),
            2 => Just(Step::GraceEnds),
        ];
        prop::collection::vec(step, 1..40)
    }

    /// A login as the store has it.
    struct Stored {
        record: LoginRecord,
        nonce: Option<Bytes>,
    }

    fn owner() -> Owner {
        Owner {
            user: UserId::parse("alice").unwrap(),
            generation: 0,
        }
    }

    impl Stored {
        fn show(&mut self, text: &str) -> Result<String, Turn> {
            let token = Opaque::decode(REFRESH_PREFIX, text).unwrap();
            let next =
                |nonce: &Bytes, key: &Bytes| successor(&token.owner, &token.id, key, nonce, text);
            match turn(&self.record, self.nonce.clone(), &token, text) {
                Turn::Rotate => {
                    let nonce = random_bytes();
                    let given = next(&nonce, &self.record.proof_key);
                    self.record.previous =
                        Some(std::mem::replace(&mut self.record.current, digest(&given)));
                    self.nonce = Some(nonce);
                    Ok(given)
                }
                Turn::Repeat(nonce) => Ok(next(&nonce, &self.record.proof_key)),
                Turn::Theft => {
                    self.record.ended = Some(Ended::Reused);
                    Err(Turn::Theft)
                }
                refused => Err(refused),
            }
        }
    }

    proptest! {
        #[test]
        fn tokens_take_turns_whatever_clients_do(steps in steps()) {
            let proof_key = random_bytes();
            let first = first_refresh(&owner(), "0-x", &proof_key);
            let record = LoginRecord {
                started_at: 0, proof_key, current: digest(&first), previous: None, ended: None,
            };
            let mut stored = Stored { record, nonce: None };
            // The model: every token in the order given, whether the newest but one may repeat, whether it is over.
            let (mut given, mut grace, mut over) = (vec![first], false, false);
            for step in steps {
                match step {
                    Step::GraceEnds => {
                        stored.nonce = None;
                        grace = false;
                    }
                    Step::MadeUp => {
                        let made_up = first_refresh(&owner(), "0-x", b"another key");
                        prop_assert_eq!(stored.show(&made_up), Err(Turn::Unknown));
                    }
                    Step::Show { back } => {
                        let at = given.len().saturating_sub(back + 1);
                        let age = given.len() - 1 - at;
                        let answer = stored.show(&given[at].clone());
                        if over {
                            prop_assert_eq!(answer, Err(Turn::Over(Ended::Reused)));
                        } else if age == 0 {
                            given.push(answer.unwrap());
                            grace = true;
                        } else if age == 1 && grace {
                            prop_assert_eq!(answer.as_deref(), Ok(given[at + 1].as_str()));
                        } else {
                            prop_assert_eq!(answer, Err(Turn::Theft));
                            over = true;
                        }
                    }
                }
            }
            let distinct: HashSet<_> = given.iter().collect();
            prop_assert_eq!(distinct.len(), given.len());
        }
    }
}

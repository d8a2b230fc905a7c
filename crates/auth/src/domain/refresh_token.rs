//! Refresh tokens: each works once, a repetition within seconds gets the same successor, a later one is theft.

use std::time::Duration;

use common::identity::{Opaque, Owner, REFRESH_TOKEN_PREFIX, digest};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::login::{EndReason, LoginRecord};

/// How long a token that was just used gives the same successor again: for a lost answer, or two tabs.
pub const GRACE: Duration = Duration::from_secs(10);
/// The random part of a token's secret, in bytes; a proof of [`PROOF`] follows.
const RANDOM: usize = 32;
const PROOF: usize = 16;

#[derive(Debug, PartialEq, Eq)]
pub enum RefreshUse {
    /// It is the one that works: its successor takes its place.
    Rotate,
    /// It was used just now, and its successor was not: the same successor again, from this nonce.
    Repeat(Vec<u8>),
    /// It was used before, and it is too late for a repetition.
    Theft,
    Ended(EndReason),
    Unknown,
}

/// The parts of a refresh token; `None` for any other text.
pub fn decode(text: &str) -> Option<Opaque> {
    Opaque::decode(REFRESH_TOKEN_PREFIX, text)
}

/// What `token`, whose text is `text`, means to the login that it names. `nonce` is that of the last rotation, while it is kept.
pub fn classify(
    record: &LoginRecord,
    nonce: Option<Vec<u8>>,
    token: &Opaque,
    text: &str,
) -> RefreshUse {
    if !was_issued(token, &record.proof_key) {
        return RefreshUse::Unknown;
    }
    let presented = digest(text);
    match (record.ended, nonce) {
        (Some(reason), _) => RefreshUse::Ended(reason),
        (None, _) if record.current == presented => RefreshUse::Rotate,
        (None, Some(nonce)) if record.previous.as_deref() == Some(&presented) => {
            RefreshUse::Repeat(nonce)
        }
        (None, _) => RefreshUse::Theft,
    }
}

pub fn random_secret() -> Vec<u8> {
    rand::random::<[u8; RANDOM]>().to_vec()
}

pub fn first(owner: &Owner, login: &str, proof_key: &[u8]) -> String {
    encode(owner, login, proof_key, &random_secret())
}

/// The token that follows `token`, made from its text and a stored nonce: neither alone gives it.
pub fn successor(token: &Opaque, proof_key: &[u8], nonce: &[u8], text: &str) -> String {
    let random = mac(nonce, text.as_bytes());
    encode(&token.owner, &token.id, proof_key, &random)
}

/// Whether a refresh token was issued for the login with that proof key, however long ago. It keeps somebody who knows only a
/// login's id from ending it with a made-up token.
fn was_issued(token: &Opaque, proof_key: &[u8]) -> bool {
    match token.secret.split_at_checked(RANDOM) {
        Some((random, proof)) if proof.len() == PROOF => {
            bool::from(proof_of(proof_key, random).ct_eq(proof))
        }
        _ => false,
    }
}

fn encode(owner: &Owner, login: &str, proof_key: &[u8], random: &[u8]) -> String {
    let token = Opaque {
        owner: owner.clone(),
        id: login.to_owned(),
        secret: [random, &proof_of(proof_key, random)].concat(),
    };
    token.encode(REFRESH_TOKEN_PREFIX)
}

fn proof_of(proof_key: &[u8], random: &[u8]) -> Vec<u8> {
    let mut proof = mac(proof_key, random);
    proof.truncate(PROOF);
    proof
}

fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    // HMAC takes a key of any length.
    let mac = Hmac::<Sha256>::new_from_slice(key).map(|mac| mac.chain_update(message));
    mac.map(|mac| mac.finalize().into_bytes().to_vec()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use common::identity::UserId;
    use proptest::prelude::*;

    use super::*;

    /// What clients do: present the token of so many answers ago, or a made-up one; time passes.
    #[derive(Clone, Debug)]
    enum Step {
        Present { back: usize },
        MadeUp,
        GraceEnds,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => Just(Step::Present { back: 0 }),
            3 => Just(Step::Present { back: 1 }),
            1 => (2_usize..5).prop_map(|back| Step::Present { back }),
            1 => Just(Step::MadeUp),
            2 => Just(Step::GraceEnds),
        ];
        prop::collection::vec(step, 1..40)
    }

    /// A login as the store has it.
    struct Stored {
        record: LoginRecord,
        nonce: Option<Vec<u8>>,
    }

    fn owner() -> Owner {
        Owner { user: UserId::parse("alice").unwrap(), generation: 0 }
    }

    impl Stored {
        fn present(&mut self, text: &str) -> Result<String, RefreshUse> {
            let token = decode(text).unwrap();
            let next = |nonce: &[u8], key: &[u8]| successor(&token, key, nonce, text);
            match classify(&self.record, self.nonce.clone(), &token, text) {
                RefreshUse::Rotate => {
                    let nonce = random_secret();
                    let given = next(&nonce, &self.record.proof_key);
                    self.record.previous =
                        Some(std::mem::replace(&mut self.record.current, digest(&given)));
                    self.nonce = Some(nonce);
                    Ok(given)
                }
                RefreshUse::Repeat(nonce) => Ok(next(&nonce, &self.record.proof_key)),
                RefreshUse::Theft => {
                    self.record.ended = Some(EndReason::Reused);
                    Err(RefreshUse::Theft)
                }
                refused => Err(refused),
            }
        }
    }

    proptest! {
        #[test]
        fn each_token_works_once_whatever_clients_do(steps in steps()) {
            let proof_key = random_secret();
            let oldest = first(&owner(), "0-x", &proof_key);
            let record = LoginRecord {
                started_at: 0, proof_key, current: digest(&oldest), previous: None, ended: None,
            };
            let mut stored = Stored { record, nonce: None };
            // The model: every token in the order given, whether the newest but one may repeat, whether it is over.
            let (mut given, mut grace, mut over) = (vec![oldest], false, false);
            for step in steps {
                match step {
                    Step::GraceEnds => {
                        stored.nonce = None;
                        grace = false;
                    }
                    Step::MadeUp => {
                        let made_up = first(&owner(), "0-x", b"another key");
                        prop_assert_eq!(stored.present(&made_up), Err(RefreshUse::Unknown));
                    }
                    Step::Present { back } => {
                        let at = given.len().saturating_sub(back + 1);
                        let age = given.len() - 1 - at;
                        let answer = stored.present(&given[at].clone());
                        if over {
                            prop_assert_eq!(answer, Err(RefreshUse::Ended(EndReason::Reused)));
                        } else if age == 0 {
                            given.push(answer.unwrap());
                            grace = true;
                        } else if age == 1 && grace {
                            prop_assert_eq!(answer.as_deref(), Ok(given[at + 1].as_str()));
                        } else {
                            prop_assert_eq!(answer, Err(RefreshUse::Theft));
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

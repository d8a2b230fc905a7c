//! Hashes and verifies passwords.

use argon2::{CustomizedPasswordHasher, PasswordHash, PasswordVerifier, password_hash::phc::Salt};

use crate::{
    domain::password::normalize,
    services::{
        error::AuthError,
        hash_pool::{HashPool, PooledArgon2, hashing_error},
    },
};

/// Passwords as Argon2id in PHC strings. Each is hashed in the pool.
#[derive(Default)]
pub struct PasswordHasher {
    pool: HashPool,
}

impl PasswordHasher {
    pub async fn hash(&self, password: &str) -> Result<String, AuthError> {
        let password = normalize(password);
        let work = move || Ok(hash_with(&password, &Salt::generate())?.to_string());
        self.pool.run(work).await
    }

    /// Whether a password is the one behind `stored`. Where nothing is stored it is not, and that takes as long.
    pub async fn verify(&self, password: &str, stored: Option<&str>) -> Result<bool, AuthError> {
        let (password, stored) = (normalize(password), stored.map(str::to_owned));
        let work = move || {
            let Some(stored) = stored else {
                return hash_with(&password, &[0; 16]).map(|_| false);
            };
            let hash = PasswordHash::new(&stored).map_err(hashing_error)?;
            Ok(PooledArgon2.verify_password(password.as_bytes(), &hash).is_ok())
        };
        self.pool.run(work).await
    }

    /// As [`Self::verify`], unless it is the hash that was `verified` before.
    ///
    /// # Errors
    /// [`AuthError::InvalidCredentials`] where the password is wrong.
    pub(super) async fn verify_once(
        &self,
        password: &str,
        stored: Option<&str>,
        verified: &mut Option<String>,
    ) -> Result<(), AuthError> {
        if stored.is_some() && verified.as_deref() == stored {
            return Ok(());
        }
        if !self.verify(password, stored).await? {
            return Err(AuthError::InvalidCredentials);
        }
        *verified = stored.map(str::to_owned);
        Ok(())
    }
}

fn hash_with(password: &str, salt: &[u8]) -> Result<PasswordHash, AuthError> {
    PooledArgon2
        .hash_password_with_params(password.as_bytes(), salt, argon2::Params::default())
        .map_err(hashing_error)
}

/// Whether a stored hash was made with weaker parameters than today's.
pub(super) fn is_outdated(stored: &str) -> bool {
    let today = argon2::Params::default();
    let Ok(hash) = PasswordHash::new(stored) else { return true };
    let is_weaker = |params: argon2::Params| {
        params.m_cost() < today.m_cost() || params.t_cost() < today.t_cost()
    };
    hash.algorithm.as_str() != "argon2id" || argon2::Params::try_from(&hash).map_or(true, is_weaker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hashes_are_argon2id_with_their_own_salts_and_forgive_only_unicode_form() {
        let passwords = PasswordHasher::default();
        let one = passwords.hash("caf\u{e9} au lait").await.unwrap();
        let two = passwords.hash("caf\u{e9} au lait").await.unwrap();
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$") && one != two);
        assert!(passwords.verify("cafe\u{301} au lait", Some(&one)).await.unwrap());
        for other in
            ["caf\u{e9} au lait ", "caf\u{e9} au lai", "Caf\u{e9} au lait", "caf\u{e9} au lait\0"]
        {
            assert!(!passwords.verify(other, Some(&one)).await.unwrap(), "{other:?}");
        }
        assert!(!passwords.verify("caf\u{e9} au lait", None).await.unwrap());
        let long = "x".repeat(72);
        let hash = passwords.hash(&format!("{long}a")).await.unwrap();
        assert!(!passwords.verify(&format!("{long}b"), Some(&hash)).await.unwrap());
        assert!(!is_outdated(&one));
        assert!(is_outdated(
            "$argon2id$v=19$m=4096,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g"
        ));
    }
}

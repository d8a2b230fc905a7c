//! Makes tokens: signed access tokens, and the refresh tokens that turn into one another.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use common::{
    identity::{Opaque, Owner, TOKEN_TYPE},
    store::Bytes,
};
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::{Algorithm, Header};
use serde::Serialize;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::{Accounts, AuthError};

/// How a refresh token begins.
pub const REFRESH_PREFIX: &str = "cbr_";
/// The random part of a refresh token's secret, in bytes; a proof of 16 follows.
const RANDOM: usize = 32;
const PROOF: usize = 16;

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    sid: &'a str,
    jti: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    #[serde(rename = "gen")]
    generation: u64,
}

impl Accounts {
    /// An access token for that login at `now` (ms), with its lifetime in seconds; it does not outlive the login.
    pub(crate) fn access_token(
        &self,
        owner: &Owner,
        login: &str,
        started: i64,
        now: i64,
    ) -> Result<(String, i64), AuthError> {
        let (kid, key) = self.ring.signer().ok_or(AuthError::NoKey)?;
        let iat = now.div_euclid(1000);
        let login_ends = (started / 1000).saturating_add(seconds(self.settings.refresh_ttl));
        let exp = iat
            .saturating_add(seconds(self.settings.access_ttl))
            .min(login_ends);
        let claims = Claims {
            iss: &self.settings.issuer,
            aud: &self.settings.audience,
            sub: owner.user.as_str(),
            sid: login,
            jti: random_id(),
            iat,
            nbf: iat,
            exp,
            generation: owner.generation,
        };
        let header = Header {
            typ: Some(TOKEN_TYPE.into()),
            kid: Some(kid),
            ..Header::new(Algorithm::EdDSA)
        };
        let token = jsonwebtoken::encode(&header, &claims, &key).map_err(AuthError::Signing)?;
        Ok((token, exp - iat))
    }
}

/// Whole seconds of a lifetime.
pub(crate) fn seconds(lifetime: std::time::Duration) -> i64 {
    i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX)
}

/// 128 random bits as text of `A-Z a-z 0-9 _ -`.
pub(crate) fn random_id() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>())
}

/// 32 random bytes.
pub(crate) fn random_bytes() -> Bytes {
    Bytes::copy_from_slice(&rand::random::<[u8; RANDOM]>())
}

/// The first refresh token of a login.
pub(crate) fn first_refresh(owner: &Owner, login: &str, proof_key: &[u8]) -> String {
    refresh(owner, login, proof_key, &rand::random::<[u8; RANDOM]>())
}

/// The token that follows `presented`, made from it and a stored nonce: neither alone gives it.
pub(crate) fn successor(
    owner: &Owner,
    login: &str,
    proof_key: &[u8],
    nonce: &[u8],
    presented: &str,
) -> String {
    refresh(owner, login, proof_key, &mac(nonce, presented.as_bytes()))
}

/// Whether a refresh token was issued for the login with that proof key, be it long ago. It says nothing of whether the
/// token still works; it keeps somebody who knows only a login's id from ending it with a made-up token.
pub(crate) fn was_issued(token: &Opaque, proof_key: &[u8]) -> bool {
    match token.secret.split_at_checked(RANDOM) {
        Some((random, proof)) if proof.len() == PROOF => {
            bool::from(proof_of(proof_key, random).ct_eq(proof))
        }
        _ => false,
    }
}

fn refresh(owner: &Owner, login: &str, proof_key: &[u8], random: &[u8]) -> String {
    let secret = [random, &proof_of(proof_key, random)].concat();
    Opaque {
        owner: owner.clone(),
        id: login.to_owned(),
        secret,
    }
    .encode(REFRESH_PREFIX)
}

fn proof_of(proof_key: &[u8], random: &[u8]) -> Vec<u8> {
    let mut proof = mac(proof_key, random);
    proof.truncate(PROOF);
    proof
}

fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    // HMAC takes a key of any length.
    Hmac::<Sha256>::new_from_slice(key).map_or_else(
        |_| Vec::new(),
        |mut mac| {
            mac.update(message);
            mac.finalize().into_bytes().to_vec()
        },
    )
}

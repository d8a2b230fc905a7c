//! Issues access tokens and refresh tokens, and exchanges refresh tokens for new ones.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use common::{
    config,
    identity::{Opaque, Owner, TOKEN_TYPE, digest},
};
use jsonwebtoken::{Algorithm, Header};
use serde::Serialize;

use super::{ROUNDS, error::AuthError, seconds, signing_keys::SigningKeys};
use crate::{
    domain::{
        account::{AccountSnapshot, TokenPair},
        login::{EndReason, LoginRecord},
        refresh_token::{self, GRACE, RefreshUse},
    },
    metrics::count_revocation,
    store::{AccountStore, Change},
};

#[derive(Clone)]
pub struct TokenService {
    store: AccountStore,
    keys: SigningKeys,
    settings: config::Auth,
}

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

impl TokenService {
    pub fn new(store: AccountStore, keys: SigningKeys, settings: &config::Auth) -> Self {
        Self { store, keys, settings: settings.clone() }
    }

    /// A new login of an account, and `change` with what begins it.
    pub(super) fn begin_login(
        &self,
        change: Change,
        current: &AccountSnapshot,
    ) -> Result<(Change, TokenPair), AuthError> {
        let (owner, now) = (current.owner(), current.now);
        let id = format!("{}-{}", current.state.epoch, random_id());
        let proof_key = refresh_token::random_secret();
        let refresh_token = refresh_token::first(&owner, &id, &proof_key);
        let pair = self.pair(&owner, &id, (now, now), refresh_token)?;
        let record = LoginRecord {
            started_at: now,
            proof_key,
            current: digest(&pair.refresh_token),
            previous: None,
            ended: None,
        };
        let change = change.begin_login(&owner, &id, record, self.settings.refresh_ttl);
        Ok((change, pair))
    }

    /// When a login that begins now is over: Unix milliseconds.
    pub(super) fn login_end(&self, now: i64) -> i64 {
        let ttl = i64::try_from(self.settings.refresh_ttl.as_millis()).unwrap_or(i64::MAX);
        now.saturating_add(ttl)
    }

    pub(super) fn end_login(
        &self,
        change: Change,
        owner: &Owner,
        login: &str,
        reason: EndReason,
    ) -> Change {
        change.end_login(owner, login, reason, self.settings.access_ttl)
    }

    pub async fn refresh(&self, text: &str) -> Result<TokenPair, AuthError> {
        let token = refresh_token::decode(text).ok_or(AuthError::InvalidRefresh)?;
        let Opaque { owner, id, .. } = &token;
        for _ in 0..ROUNDS {
            let (current, record, nonce) = self.store.load_login(owner, id).await?;
            let record = record.ok_or(AuthError::InvalidRefresh)?;
            let change = Change::of(&current);
            let times = (record.started_at, current.now);
            match refresh_token::classify(&record, nonce, &token, text) {
                RefreshUse::Unknown => return Err(AuthError::InvalidRefresh),
                _ if !current.counts_login(owner, id) => return Err(AuthError::Revoked),
                RefreshUse::Ended(EndReason::Logout) => return Err(AuthError::Revoked),
                RefreshUse::Ended(EndReason::Reused) => return Err(AuthError::Reused),
                RefreshUse::Repeat(nonce) => {
                    let next = refresh_token::successor(&token, &record.proof_key, &nonce, text);
                    return self.pair(owner, id, times, next);
                }
                RefreshUse::Rotate => {
                    let nonce = refresh_token::random_secret();
                    let next = refresh_token::successor(&token, &record.proof_key, &nonce, text);
                    let digests = (record.current, digest(&next));
                    let change = change.rotate(owner, id, digests, (nonce, GRACE));
                    if self.store.commit(change).await? {
                        return self.pair(owner, id, times, next);
                    }
                }
                RefreshUse::Theft => {
                    let change = self.end_login(change, owner, id, EndReason::Reused);
                    if self.store.commit(change).await? {
                        count_revocation("login");
                        tracing::warn!(user_id = %owner.user, "refresh token used twice; login ended");
                        return Err(AuthError::Reused);
                    }
                }
            }
        }
        Err(AuthError::Contended)
    }

    /// A refresh token with an access token for a login that began at `started`, signed at `now` (both ms). The access token does
    /// not outlive the login.
    fn pair(
        &self,
        owner: &Owner,
        login: &str,
        (started, now): (i64, i64),
        refresh_token: String,
    ) -> Result<TokenPair, AuthError> {
        let (kid, key) = self.keys.signer().ok_or(AuthError::NoKey)?;
        let iat = now.div_euclid(1000);
        let login_ends = (started / 1000).saturating_add(seconds(self.settings.refresh_ttl));
        let exp = iat.saturating_add(seconds(self.settings.access_ttl)).min(login_ends);
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
        let signed = jsonwebtoken::encode(&header, &claims, &key);
        Ok(TokenPair {
            access_token: signed.map_err(AuthError::Signing)?,
            expires_in: exp - iat,
            refresh_token,
        })
    }
}

/// 128 random bits as text of `A-Z a-z 0-9 _ -`.
fn random_id() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>())
}

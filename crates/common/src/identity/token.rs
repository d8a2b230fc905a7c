//! Verifies access tokens: a strict JWT check that accepts exactly what `auth` issues.
//!
//! `jsonwebtoken::decode` is not used: it ignores unknown header members and duplicate claims, and parses the payload twice.
//! Here the algorithm is fixed, the key is looked up in memory by `kid`, and a header member other than `alg`, `typ` and
//! `kid` is refused. The signature is verified before any claim is parsed.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::{Deserialize, Deserializer, de::Error};

use super::{Credential, Owner, UserId, error::IdentityError};
use crate::errors::json;

/// `typ` of an access token (RFC 9068).
pub const TOKEN_TYPE: &str = "at+jwt";
/// How far clocks may differ, in seconds.
pub const LEEWAY_S: i64 = 30;
/// Longest token that is looked at, in bytes.
pub(super) const MAX_LENGTH: usize = 8 * 1024;
/// The last second of the year 9999: no sensible time lies beyond, and arithmetic on times cannot overflow.
const LATEST_S: f64 = 253_402_300_799.0;

/// The values that a token's claims must have exactly.
#[derive(Clone, Debug)]
pub struct TokenRules {
    pub issuer: String,
    /// The only `aud`: the string itself, or a list of exactly this one string.
    pub audience: String,
}

/// A token split into its parts; the header has been read, the signature not yet verified.
pub(super) struct UnverifiedToken<'a> {
    pub kid: String,
    message: &'a str,
    payload: &'a str,
    signature: &'a str,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
}

/// Splits a token and reads its header.
pub(super) fn parse(token: &str) -> Result<UnverifiedToken<'_>, IdentityError> {
    if token.len() > MAX_LENGTH {
        return Err(IdentityError::Invalid("too long"));
    }
    let (message, signature) = token.rsplit_once('.').ok_or(IdentityError::Invalid("not a JWT"))?;
    let (header, payload) = message.split_once('.').ok_or(IdentityError::Invalid("not a JWT"))?;
    if payload.contains('.') {
        return Err(IdentityError::Invalid("not a JWT"));
    }
    let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| IdentityError::Invalid("header"))?;
    let header: Header =
        serde_json::from_slice(&header).map_err(|_| IdentityError::Invalid("header"))?;
    if header.alg != "EdDSA" {
        return Err(IdentityError::Invalid("algorithm"));
    }
    if header.typ != TOKEN_TYPE {
        return Err(IdentityError::Invalid("type"));
    }
    Ok(UnverifiedToken { kid: header.kid, message, payload, signature })
}

impl UnverifiedToken<'_> {
    pub fn verify(&self, key: &DecodingKey) -> Result<Claims, IdentityError> {
        let good = crypto::verify(self.signature, self.message.as_bytes(), key, Algorithm::EdDSA);
        if !good.unwrap_or(false) {
            return Err(IdentityError::Invalid("signature"));
        }
        let payload =
            URL_SAFE_NO_PAD.decode(self.payload).map_err(|_| IdentityError::Invalid("payload"))?;
        parse_claims(&payload)
    }
}

/// Parses a payload. Nothing in it has been validated yet.
pub(super) fn parse_claims(payload: &[u8]) -> Result<Claims, IdentityError> {
    json::parse(payload).map_err(|_| IdentityError::Invalid("claims"))
}

/// Whether a token with this `exp` has expired at `now` (Unix seconds), leeway included.
pub(super) fn is_expired(expires_at: i64, now: i64) -> bool {
    now >= expires_at.saturating_add(LEEWAY_S)
}

/// `aud`: one string, or a list of exactly one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    List([String; 1]),
}

/// The claims that are read, all but the last required. Others are ignored, but a member that occurs twice is an error.
#[derive(Deserialize)]
pub(super) struct Claims {
    iss: String,
    aud: Audience,
    sub: String,
    sid: String,
    jti: String,
    #[serde(deserialize_with = "seconds")]
    iat: i64,
    #[serde(deserialize_with = "seconds")]
    nbf: i64,
    #[serde(deserialize_with = "seconds")]
    exp: i64,
    /// Where absent, as before the first deletion of an account of that id.
    #[serde(rename = "gen")]
    generation: Option<u64>,
}

/// Reads a NumericDate, a whole or fractional JSON number of seconds, and rounds it down.
fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    let seconds = serde_json::Number::deserialize(from)?.as_f64().unwrap_or(f64::NAN);
    if !(0.0..=LATEST_S).contains(&seconds) {
        return Err(D::Error::custom("out of range"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "the range was checked")]
    let whole = seconds.floor() as i64;
    Ok(whole)
}

/// From when until when a token is valid: Unix seconds.
pub(super) struct Validity {
    not_before: i64,
    expires_at: i64,
}

impl Validity {
    pub fn check(&self, now: i64) -> Result<(), IdentityError> {
        if self.not_before > now.saturating_add(LEEWAY_S) {
            return Err(IdentityError::Invalid("not valid yet"));
        }
        if is_expired(self.expires_at, now) {
            return Err(IdentityError::Expired);
        }
        Ok(())
    }
}

impl Claims {
    /// Compares every claim but the times with `rules`.
    pub fn check(self, rules: &TokenRules) -> Result<(Owner, Credential, Validity), IdentityError> {
        if self.iss != rules.issuer {
            return Err(IdentityError::Invalid("iss"));
        }
        let (Audience::One(audience) | Audience::List([audience])) = self.aud;
        if audience != rules.audience {
            return Err(IdentityError::Invalid("aud"));
        }
        let user = UserId::parse(&self.sub).ok_or(IdentityError::Invalid("sub"))?;
        if self.sid.is_empty() || self.jti.is_empty() {
            return Err(IdentityError::Invalid("sid or jti"));
        }
        let expires_at = self.exp;
        let owner = Owner { user, generation: self.generation.unwrap_or(0) };
        let credential = Credential::Token { login: self.sid, expires_at };
        let validity = Validity { not_before: self.nbf.max(self.iat), expires_at };
        Ok((owner, credential, validity))
    }
}

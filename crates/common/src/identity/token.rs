//! Reads an access token: a strict JWT check that accepts exactly what `auth` issues.
//!
//! Nothing in a token chooses how it is checked: the algorithm is fixed, the key is looked up in memory by `kid`, and a
//! header member other than `alg`, `typ` and `kid` is refused, whatever it means. The signature is checked before a
//! single claim is parsed.

use std::collections::HashSet;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use super::{Credential, Identity, Owner, UserId};

/// `typ` of an access token (RFC 9068).
pub const TOKEN_TYPE: &str = "at+jwt";
/// How far clocks may differ, in seconds.
pub const LEEWAY_S: i64 = 30;
/// Longest token that is looked at, in bytes.
pub(super) const MAX_LENGTH: usize = 8 * 1024;
/// The last second of the year 9999: no sensible time lies beyond, and arithmetic on times cannot overflow.
const LATEST_S: f64 = 253_402_300_799.0;

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// It was good once.
    #[error("the token has expired")]
    Expired,
    /// It is not, or not yet, a token of ours.
    #[error("the token is not valid: {0}")]
    Invalid(&'static str),
}

/// What a token must say, to the letter.
#[derive(Clone, Debug)]
pub struct Verifier {
    /// The only `iss`.
    pub issuer: String,
    /// The only `aud`: the string itself, or a list of exactly this one string.
    pub audience: String,
}

/// A token cut into its parts, with its header read and the signature not yet checked.
pub(super) struct Unchecked<'a> {
    /// Which key signed it.
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

/// Cuts a token and reads its header.
pub(super) fn open(token: &str) -> Result<Unchecked<'_>, Refusal> {
    if token.len() > MAX_LENGTH {
        return Err(Refusal::Invalid("too long"));
    }
    let (message, signature) = token
        .rsplit_once('.')
        .ok_or(Refusal::Invalid("not a JWT"))?;
    let (header, payload) = message
        .split_once('.')
        .ok_or(Refusal::Invalid("not a JWT"))?;
    if payload.contains('.') {
        return Err(Refusal::Invalid("not a JWT"));
    }
    let header = URL_SAFE_NO_PAD
        .decode(header)
        .map_err(|_| Refusal::Invalid("header"))?;
    let header: Header = serde_json::from_slice(&header).map_err(|_| Refusal::Invalid("header"))?;
    if header.alg != "EdDSA" {
        return Err(Refusal::Invalid("algorithm"));
    }
    if header.typ != TOKEN_TYPE {
        return Err(Refusal::Invalid("type"));
    }
    Ok(Unchecked {
        kid: header.kid,
        message,
        payload,
        signature,
    })
}

impl Unchecked<'_> {
    /// Checks the signature, and reads what was signed.
    pub fn signed(&self, key: &DecodingKey) -> Result<Claims, Refusal> {
        let good = crypto::verify(
            self.signature,
            self.message.as_bytes(),
            key,
            Algorithm::EdDSA,
        );
        if !good.unwrap_or(false) {
            return Err(Refusal::Invalid("signature"));
        }
        let payload = URL_SAFE_NO_PAD
            .decode(self.payload)
            .map_err(|_| Refusal::Invalid("payload"))?;
        claims(&payload)
    }
}

/// What a token says of itself, before anything of it is believed.
pub(super) fn claims(payload: &[u8]) -> Result<Claims, Refusal> {
    serde_json::from_slice(payload).map_err(|_| Refusal::Invalid("claims"))
}

/// Whether a token with this `exp` has expired at `now`, both Unix seconds.
pub(super) fn expired(expires_at: i64, now: i64) -> bool {
    now >= expires_at.saturating_add(LEEWAY_S)
}

/// A NumericDate: a whole or fractional JSON number of seconds, and nothing else.
struct Seconds(f64);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = serde_json::Number::deserialize(deserializer)?
            .as_f64()
            .unwrap_or(f64::NAN);
        if (0.0..=LATEST_S).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(serde::de::Error::custom("out of range"))
        }
    }
}

impl Seconds {
    /// The last whole second that is not after it.
    fn floor(&self) -> i64 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the range was checked when it was read"
        )]
        let whole = self.0.floor() as i64;
        whole
    }
}

/// `aud`: one string, or a list of exactly one.
struct Audience(String);

impl<'de> Deserialize<'de> for Audience {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Shape {
            One(String),
            List([String; 1]),
        }
        Ok(match Shape::deserialize(deserializer)? {
            Shape::One(audience) | Shape::List([audience]) => Self(audience),
        })
    }
}

/// Every claim that a token must have. Further ones are ignored, but no member may stand there twice.
pub(super) struct Claims {
    iss: String,
    aud: Audience,
    sub: String,
    sid: String,
    jti: String,
    iat: Seconds,
    nbf: Seconds,
    exp: Seconds,
    generation: u64,
}

impl Claims {
    /// Whom the claims speak for at `now` (Unix seconds).
    pub fn check(self, expected: &Verifier, now: i64) -> Result<Identity, Refusal> {
        if self.iss != expected.issuer {
            return Err(Refusal::Invalid("iss"));
        }
        if self.aud.0 != expected.audience {
            return Err(Refusal::Invalid("aud"));
        }
        let user = UserId::parse(&self.sub).ok_or(Refusal::Invalid("sub"))?;
        if self.sid.is_empty() || self.jti.is_empty() {
            return Err(Refusal::Invalid("sid or jti"));
        }
        let latest = now.saturating_add(LEEWAY_S);
        if self.nbf.floor() > latest || self.iat.floor() > latest {
            return Err(Refusal::Invalid("not valid yet"));
        }
        let expires_at = self.exp.floor();
        if expired(expires_at, now) {
            return Err(Refusal::Expired);
        }
        Ok(Identity {
            owner: Owner {
                user,
                generation: self.generation,
            },
            credential: Credential::Token {
                login: self.sid,
                expires_at,
            },
        })
    }
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ClaimsVisitor)
    }
}

struct ClaimsVisitor;

impl<'de> Visitor<'de> for ClaimsVisitor {
    type Value = Claims;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the claims of an access token")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
        use serde::de::Error;
        let mut seen = HashSet::new();
        let (mut iss, mut aud, mut sub, mut sid, mut jti) = (None, None, None, None, None);
        let (mut iat, mut nbf, mut exp, mut generation) = (None, None, None, None);
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "iss" => iss = Some(map.next_value()?),
                "aud" => aud = Some(map.next_value()?),
                "sub" => sub = Some(map.next_value()?),
                "sid" => sid = Some(map.next_value()?),
                "jti" => jti = Some(map.next_value()?),
                "iat" => iat = Some(map.next_value()?),
                "nbf" => nbf = Some(map.next_value()?),
                "exp" => exp = Some(map.next_value()?),
                "gen" => generation = Some(map.next_value()?),
                _ => {
                    // Read as a value, so that the limit on nesting holds here too.
                    map.next_value::<serde_json::Value>()?;
                }
            }
            if !seen.insert(name) {
                return Err(A::Error::custom("a member stands there twice"));
            }
        }
        Ok(Claims {
            iss: iss.ok_or_else(|| A::Error::missing_field("iss"))?,
            aud: aud.ok_or_else(|| A::Error::missing_field("aud"))?,
            sub: sub.ok_or_else(|| A::Error::missing_field("sub"))?,
            sid: sid.ok_or_else(|| A::Error::missing_field("sid"))?,
            jti: jti.ok_or_else(|| A::Error::missing_field("jti"))?,
            iat: iat.ok_or_else(|| A::Error::missing_field("iat"))?,
            nbf: nbf.ok_or_else(|| A::Error::missing_field("nbf"))?,
            exp: exp.ok_or_else(|| A::Error::missing_field("exp"))?,
            generation: generation.ok_or_else(|| A::Error::missing_field("gen"))?,
        })
    }
}

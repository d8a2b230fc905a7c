//! The JSON Web Key Set that `auth` publishes.

use std::{collections::HashMap, sync::Arc};

use jsonwebtoken::DecodingKey;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::LoginMode;

/// What `/.well-known/jwks.json` answers.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JwkSet {
    pub keys: Vec<Jwk>,
    /// `open` or `password`: whether a user id alone logs in. Absent means `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
}

/// One public key (RFC 8037); members other than these are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Jwk {
    #[serde(default)]
    pub kty: String,
    #[serde(default)]
    pub crv: String,
    /// The public key, base64url.
    #[serde(default)]
    pub x: String,
    /// The RFC 7638 thumbprint (SHA-256) of the key.
    #[serde(default)]
    pub kid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
    #[serde(rename = "use", default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<String>,
}

impl Jwk {
    pub fn ed25519(x: String, kid: String) -> Self {
        Self {
            kty: "OKP".into(),
            crv: "Ed25519".into(),
            x,
            kid,
            alg: Some("EdDSA".into()),
            usage: Some("sig".into()),
        }
    }

    /// `None` unless this is an Ed25519 signature key with an id.
    fn decoding_key(&self) -> Option<DecodingKey> {
        let ours = self.kty == "OKP"
            && self.crv == "Ed25519"
            && !self.kid.is_empty()
            && self.alg.as_deref().is_none_or(|alg| alg == "EdDSA" || alg == "Ed25519")
            && self.usage.as_deref().is_none_or(|usage| usage == "sig");
        let key = DecodingKey::from_ed_components(&self.x).ok().filter(|_| ours)?;
        key.try_get_as_bytes().is_ok_and(|bytes| bytes.len() == 32).then_some(key)
    }
}

impl JwkSet {
    pub fn new(keys: Vec<Jwk>, login: LoginMode) -> Self {
        let login = match login {
            LoginMode::Open => "open",
            LoginMode::Password => "password",
        };
        Self { keys, login: Some(login.into()) }
    }

    /// The keys that can verify our tokens, by `kid`.
    pub(super) fn decoding_keys(&self) -> HashMap<String, Arc<DecodingKey>> {
        let keyed = |jwk: &Jwk| Some((jwk.kid.clone(), Arc::new(jwk.decoding_key()?)));
        self.keys.iter().filter_map(keyed).collect()
    }
}

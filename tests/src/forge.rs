//! Tokens made by hand: good ones with other claims, and the kinds that nobody may accept.

use std::path::Path;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
use serde_json::Value;

/// The head of a PKCS#8 document with an Ed25519 key; the 32 bytes of the key follow.
const PKCS8_HEAD: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// The head of a public Ed25519 key in DER; the 32 bytes of the key follow.
const SPKI_HEAD: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A new signing key, as an operator would make one: Ed25519, PKCS#8, PEM.
pub fn signing_key() -> String {
    let key = [&PKCS8_HEAD[..], &rand::random::<[u8; 32]>()].concat();
    let body = STANDARD.encode(key);
    format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
}

/// Makes tokens after the pattern of a real one.
pub struct Forge {
    real: EncodingKey,
    stranger: EncodingKey,
    /// Header of the real token.
    pub header: Value,
    /// Claims of the real token.
    pub claims: Value,
    /// The public key that the service publishes, 32 bytes.
    pub public: Vec<u8>,
    token: String,
}

impl Forge {
    /// Reads a real token, the signing key that made it, and the published key set.
    ///
    /// # Panics
    /// When they do not fit together.
    pub fn new(token: &str, keys_dir: &Path, key_set: &Value) -> Self {
        let parts: Vec<&str> = token.split('.').collect();
        let (header, claims) = (decode(parts[0]), decode(parts[1]));
        let published = key_set["keys"]
            .as_array()
            .expect("keys")
            .iter()
            .find(|key| key["kid"] == header["kid"]);
        let x = published.expect("the key of the token is published")["x"].as_str().expect("x");
        let public = URL_SAFE_NO_PAD.decode(x).expect("base64url");
        let mut files: Vec<_> =
            std::fs::read_dir(keys_dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "pem"));
        files.sort();
        let pem = std::fs::read(files.last().expect("a signing key")).unwrap();
        let seed: [u8; 32] = rand::random();
        let stranger = EncodingKey::from_ed_der(&[&PKCS8_HEAD[..], &seed[..]].concat());
        let real = EncodingKey::from_ed_pem(&pem).expect("an Ed25519 key");
        Self { real, stranger, header, claims, public, token: token.to_owned() }
    }

    /// The real token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The real claims with one of them changed, signed with the real key.
    pub fn with(&self, claim: &str, value: impl Into<Value>) -> String {
        let mut claims = self.claims.clone();
        claims[claim] = value.into();
        self.signed(&self.header, &claims)
    }

    /// The real claims without one of them, signed with the real key.
    pub fn without(&self, claim: &str) -> String {
        let mut claims = self.claims.clone();
        claims.as_object_mut().unwrap().shift_remove(claim);
        self.signed(&self.header, &claims)
    }

    /// The real header with one member changed, signed with the real key.
    pub fn with_header(&self, member: &str, value: impl Into<Value>) -> String {
        let mut header = self.header.clone();
        header[member] = value.into();
        self.signed(&header, &self.claims)
    }

    /// Any header and claims, signed with the real key.
    pub fn signed(&self, header: &Value, claims: &Value) -> String {
        self.signed_text(&header.to_string(), &claims.to_string())
    }

    /// Any texts in the place of header and claims, signed with the real key.
    pub fn signed_text(&self, header: &str, claims: &str) -> String {
        complete(header, claims, |message| sign(message, &self.real, Algorithm::EdDSA).unwrap())
    }

    /// The real header and claims, signed by somebody else's Ed25519 key.
    pub fn by_a_stranger(&self) -> String {
        let (header, claims) = (self.header.to_string(), self.claims.to_string());
        complete(&header, &claims, |message| {
            sign(message, &self.stranger, Algorithm::EdDSA).unwrap()
        })
    }

    /// The real claims under another algorithm's name and no signature.
    pub fn unsigned(&self, algorithm: &str) -> String {
        let mut header = self.header.clone();
        header["alg"] = algorithm.into();
        complete(&header.to_string(), &self.claims.to_string(), |_| String::new())
    }

    /// The real claims as HS256, with that secret.
    pub fn hmac(&self, secret: &[u8]) -> String {
        let mut header = self.header.clone();
        header["alg"] = "HS256".into();
        let key = EncodingKey::from_secret(secret);
        let made = |message: &[u8]| sign(message, &key, Algorithm::HS256).unwrap();
        complete(&header.to_string(), &self.claims.to_string(), made)
    }

    /// The public key as PEM.
    pub fn public_pem(&self) -> String {
        let der = [&SPKI_HEAD[..], &self.public[..]].concat();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }
}

fn complete(header: &str, claims: &str, signature: impl Fn(&[u8]) -> String) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = signature(message.as_bytes());
    format!("{message}.{signature}")
}

fn decode(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
}

//! The signing keys on disk: `YYYYMMDDThhmmss-<anything>.pem`, Ed25519 in PKCS#8, readable by their owner alone.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use common::identity::Jwk;
use jiff::civil::DateTime;
use jsonwebtoken::{
    Algorithm, EncodingKey,
    jwk::{AlgorithmParameters, ThumbprintHash},
};

/// The bytes before the 32 of a private Ed25519 key in PKCS#8 (RFC 8410).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// Largest file that is looked at, in bytes.
const MAX_FILE: u64 = 16 * 1024;

const UNREADABLE: &str = "it cannot be read and is left out";
const NO_KEY: &str = "it is not an Ed25519 key in PKCS#8 PEM and is left out";
const MISNAMED: &str =
    "its name is not of the form YYYYMMDDThhmmss-<anything>.pem, so it is left out";
const EXPOSED: &str = "everybody on this machine can read it: chmod 600 it, or replace it";

#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("the folder of signing keys {0} cannot be used")]
    Folder(PathBuf, #[source] io::Error),
    /// A key that others can read, where that is not accepted.
    #[error(
        "the signing key {0} can be read by everybody on this machine: chmod 600 it, or replace it"
    )]
    WorldReadable(PathBuf),
    #[error("no file in {0} is a usable signing key (Ed25519, PKCS#8, PEM)")]
    NoneUsable(PathBuf),
}

#[derive(Clone)]
pub struct KeyFile {
    /// The file's name; names sort by age.
    pub name: String,
    pub signing: EncodingKey,
    pub public: Jwk,
    /// Whether everybody on this machine can read it.
    pub exposed: bool,
}

/// Makes the first key, named by `now_ms`, where the folder has none. Of several processes that start at once one makes it, under
/// a lock on the folder; the others find it.
pub fn make_first(dir: &Path, now_ms: i64) -> Result<(), KeyFileError> {
    let unusable = |error| KeyFileError::Folder(dir.to_owned(), error);
    if !key_names(dir).unwrap_or_default().is_empty() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(unusable)?;
    let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(dir.join(".lock"));
    let lock = lock.map_err(unusable)?;
    lock.lock().map_err(unusable)?;
    if key_names(dir).map_err(unusable)?.is_empty() {
        write_new(dir, now_ms).map_err(unusable)?;
    }
    Ok(())
}

#[derive(Default)]
pub struct KeyFolder {
    /// The keys, the oldest first; each once, whatever files it stands in.
    pub keys: Vec<KeyFile>,
    /// What is wrong with its files, each with its name.
    pub problems: Vec<(String, &'static str)>,
}

/// Reads every key. Files that cannot be used are left out, and reported.
pub fn read_all(dir: &Path) -> Result<KeyFolder, KeyFileError> {
    let unusable = |error| KeyFileError::Folder(dir.to_owned(), error);
    let mut folder = KeyFolder::default();
    for name in pem_names(dir).map_err(unusable)? {
        if !is_key_name(&name) {
            folder.problems.push((name, MISNAMED));
            continue;
        }
        match read_one(&dir.join(&name), &name) {
            Ok(key) => {
                if key.exposed {
                    folder.problems.push((name, EXPOSED));
                }
                if folder.keys.iter().all(|it| it.public != key.public) {
                    folder.keys.push(key);
                }
            }
            Err(problem) => folder.problems.push((name, problem)),
        }
    }
    if folder.keys.is_empty() {
        for (name, problem) in &folder.problems {
            tracing::error!(file = name, %problem, "signing key not usable");
        }
        return Err(KeyFileError::NoneUsable(dir.to_owned()));
    }
    Ok(folder)
}

/// Whether a file name is a key's: `YYYYMMDDThhmmss-<anything>.pem`.
fn is_key_name(name: &str) -> bool {
    let Some((stamp, rest)) = name.split_once('-') else { return false };
    let is_time = stamp.len() == 15 && DateTime::strptime("%Y%m%dT%H%M%S", stamp).is_ok();
    is_time && rest.len() > ".pem".len() && rest.ends_with(".pem")
}

fn pem_names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        if let Ok(name) = entry?.file_name().into_string()
            && name.ends_with(".pem")
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn key_names(dir: &Path) -> io::Result<Vec<String>> {
    let names = pem_names(dir)?.into_iter();
    Ok(names.filter(|name| is_key_name(name)).collect())
}

fn read_one(path: &Path, name: &str) -> Result<KeyFile, &'static str> {
    let metadata = fs::metadata(path).map_err(|_| UNREADABLE)?;
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        return Err(NO_KEY);
    }
    let pem = fs::read(path).map_err(|_| UNREADABLE)?;
    let (signing, public) = key_pair(&pem).ok_or(NO_KEY)?;
    Ok(KeyFile {
        name: name.to_owned(),
        signing,
        public,
        exposed: metadata.permissions().mode() & 0o004 != 0,
    })
}

fn key_pair(pem: &[u8]) -> Option<(EncodingKey, Jwk)> {
    let signing = EncodingKey::from_ed_pem(pem).ok()?;
    let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&signing, Algorithm::EdDSA).ok()?;
    let kid = jwk.thumbprint(ThumbprintHash::SHA256).ok()?;
    match jwk.algorithm {
        AlgorithmParameters::OctetKeyPair(public) => Some((signing, Jwk::ed25519(public.x, kid))),
        _ => None,
    }
}

/// Writes a new key under a temporary name, then renames it, so that no reader sees half of it.
fn write_new(dir: &Path, now_ms: i64) -> io::Result<()> {
    let mut der = PKCS8_PREFIX.to_vec();
    der.extend_from_slice(&rand::random::<[u8; 32]>());
    let base64 = STANDARD.encode(&der);
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{base64}\n-----END PRIVATE KEY-----\n");
    let temporary = dir.join(format!(".new-{}", uuid::Uuid::new_v4()));
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(pem.as_bytes())?;
    file.sync_all()?;
    let stamp = jiff::Timestamp::from_millisecond(now_ms).map_err(io::Error::other)?;
    let name = format!("{}-first.pem", stamp.strftime("%Y%m%dT%H%M%S"));
    fs::rename(&temporary, dir.join(name))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_form_are_keys() {
        assert!(is_key_name("20260102T030405-first.pem") && is_key_name("20260102T030405-a-b.pem"));
        for name in [
            "20260102T030405-.pem",
            "20260102030405-x.pem",
            "x.pem",
            "20260102T030405.pem",
            "20260102T030405-x.pem~",
        ] {
            assert!(!is_key_name(name), "{name}");
        }
    }
}

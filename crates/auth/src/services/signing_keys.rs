//! The signing keys in use: read again every few seconds, so that adding a file rotates them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use common::{
    clock::Clock,
    config::LoginMode,
    identity::{JwkSet, KeySet},
    shutdown::Shutdown,
};
use jsonwebtoken::EncodingKey;
use parking_lot::Mutex;

use crate::store::key_files::{KeyFile, KeyFileError, KeyFolder, make_first, read_all};

/// How long a key is published before it signs: every `chat` has fetched it by then.
const PUBLISHED_FIRST: Duration = Duration::from_secs(60);
const REREAD_INTERVAL: Duration = Duration::from_secs(5);

/// The keys. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct SigningKeys(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    /// Whether keys that others can read are refused.
    strict: bool,
    login: LoginMode,
    clock: Clock,
    keys: ArcSwap<Vec<PublishedKey>>,
    /// The public half, for whoever verifies in this process.
    public: KeySet,
    /// What was wrong with the folder at the last read: logged once.
    problems: Mutex<Vec<String>>,
}

#[derive(Clone)]
struct PublishedKey {
    file: KeyFile,
    /// By [`Clock::elapsed`].
    since: Duration,
}

impl SigningKeys {
    /// Reads the folder, making the first key where there is none.
    ///
    /// # Errors
    /// The folder is not usable, or holds no usable key.
    pub async fn open(
        dir: PathBuf,
        strict: bool,
        login: LoginMode,
        clock: Clock,
    ) -> Result<Self, KeyFileError> {
        let now_ms = clock.now_ms();
        let folder = blocking(&dir, move |dir| {
            make_first(dir, now_ms)?;
            read_all(dir)
        });
        let folder = folder.await?;
        if let Some(exposed) = folder.keys.iter().find(|key| strict && key.exposed) {
            return Err(KeyFileError::WorldReadable(dir.join(&exposed.name)));
        }
        let keys = Self(Arc::new(Inner {
            dir,
            strict,
            login,
            clock,
            keys: ArcSwap::default(),
            public: KeySet::local(),
            problems: Mutex::default(),
        }));
        keys.replace(folder);
        Ok(keys)
    }

    /// Reads the folder again and again; ends with the second stage of the shutdown.
    pub fn watch(&self, shutdown: &Shutdown) {
        let keys = self.clone();
        shutdown.spawn_until_stop(async move {
            loop {
                tokio::time::sleep(REREAD_INTERVAL).await;
                keys.reread().await;
            }
        });
    }

    /// The public keys, as a set that verifies; it follows these.
    pub fn key_set(&self) -> KeySet {
        self.0.public.clone()
    }

    pub fn jwks(&self) -> JwkSet {
        let keys = self.0.keys.load();
        let public = keys.iter().map(|key| key.file.public.clone());
        JwkSet::new(public.collect(), self.0.login)
    }

    /// The key that signs now, with its id: the newest that was published long enough ago. Where none was (right after a start) the
    /// oldest, which the process before this one is likeliest to have published.
    pub(super) fn signer(&self) -> Option<(String, EncodingKey)> {
        let (keys, now) = (self.0.keys.load(), self.0.clock.elapsed());
        let settled = |key: &&PublishedKey| now.saturating_sub(key.since) >= PUBLISHED_FIRST;
        let PublishedKey { file, .. } = keys.iter().rfind(settled).or(keys.first())?;
        Some((file.public.kid.clone(), file.signing.clone()))
    }

    async fn reread(&self) {
        match blocking(&self.0.dir, read_all).await {
            Ok(folder) => self.replace(folder),
            Err(error) => self.report(vec![format!("{error}; the old keys stay in use")]),
        }
    }

    fn replace(&self, folder: KeyFolder) {
        let problems = folder.problems.iter();
        self.report(problems.map(|(name, it)| format!("{name}: {it}")).collect());
        let before = self.0.keys.load();
        let since = |file: &KeyFile| {
            let same = |key: &&PublishedKey| key.file.public.kid == file.public.kid;
            before.iter().find(same).map(|key| key.since)
        };
        let keys: Vec<PublishedKey> = folder
            .keys
            .into_iter()
            // A key that others could read before it ever signed is not taken; one that signs goes on, since refusing it would
            // end every login.
            .filter(|file| !(self.0.strict && file.exposed) || since(file).is_some())
            .map(|file| PublishedKey {
                since: since(&file).unwrap_or_else(|| self.0.clock.elapsed()),
                file,
            })
            .collect();
        if keys.is_empty() {
            return;
        }
        let name = |key: &PublishedKey| key.file.name.clone();
        if !keys.iter().map(name).eq(before.iter().map(name)) {
            tracing::info!(keys = keys.len(), "signing keys loaded");
        }
        self.0.keys.store(Arc::new(keys));
        self.0.public.replace(&self.jwks());
    }

    /// Logs what is wrong with the folder, unless it was logged after the last read.
    fn report(&self, problems: Vec<String>) {
        let known = &self.0.problems;
        let mut known = known.lock();
        for problem in problems.iter().filter(|it| !known.contains(it)) {
            tracing::warn!(problem, "signing key file not usable");
        }
        *known = problems;
    }
}

async fn blocking(
    dir: &Path,
    work: impl FnOnce(&Path) -> Result<KeyFolder, KeyFileError> + Send + 'static,
) -> Result<KeyFolder, KeyFileError> {
    let path = dir.to_owned();
    let joined = tokio::task::spawn_blocking(move || work(&path)).await;
    joined.unwrap_or_else(|error| {
        let error = std::io::Error::other(error);
        Err(KeyFileError::Folder(dir.to_owned(), error))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn open(dir: &Path, strict: bool) -> Result<SigningKeys, KeyFileError> {
        let clock = Clock::manual(1_790_000_000_000);
        SigningKeys::open(dir.to_owned(), strict, LoginMode::Open, clock).await
    }

    #[tokio::test]
    async fn a_new_key_signs_once_it_was_published_for_a_minute_and_an_only_one_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let keys = open(dir.path(), true).await.unwrap();
        let first = keys.signer().unwrap().0;
        let other = tempfile::tempdir().unwrap();
        make_first(other.path(), 0).unwrap();
        let made = read_all(other.path()).unwrap().keys.remove(0);
        std::fs::copy(other.path().join(&made.name), dir.path().join("29990101T000000-next.pem"))
            .unwrap();
        keys.reread().await;
        assert_eq!(keys.jwks().keys.len(), 2);
        let signs = async |after: u64| {
            keys.0.clock.advance(Duration::from_secs(after));
            keys.reread().await;
            keys.signer().unwrap().0
        };
        assert_eq!((signs(0).await, signs(59).await), (first.clone(), first));
        assert_eq!(signs(1).await, made.public.kid);
    }

    #[tokio::test]
    async fn garbage_beside_a_key_is_left_out_and_garbage_alone_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("20260101T000000-bad.pem"), "no key").unwrap();
        let alone = open(dir.path(), true).await;
        assert!(matches!(alone, Err(KeyFileError::NoneUsable(_))));
        let other = tempfile::tempdir().unwrap();
        make_first(other.path(), 0).unwrap();
        let made = read_all(other.path()).unwrap().keys.remove(0);
        std::fs::copy(other.path().join(&made.name), dir.path().join(&made.name)).unwrap();
        let keys = open(dir.path(), true).await.unwrap();
        assert_eq!(keys.jwks().keys, vec![made.public]);
    }

    #[tokio::test]
    async fn processes_that_start_at_once_share_one_first_key() {
        let dir = tempfile::tempdir().unwrap();
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let dir = dir.path().to_owned();
                std::thread::spawn(move || make_first(&dir, 0))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
        assert_eq!(read_all(dir.path()).unwrap().keys.len(), 1);
    }

    /// Makes a key under that name, readable as `mode` says, and gives its id.
    fn add(dir: &std::path::Path, name: &str, mode: u32) -> String {
        use std::os::unix::fs::PermissionsExt;
        let other = tempfile::tempdir().unwrap();
        make_first(other.path(), 0).unwrap();
        let made = read_all(other.path()).unwrap().keys.remove(0);
        let place = dir.join(name);
        std::fs::copy(other.path().join(&made.name), &place).unwrap();
        std::fs::set_permissions(place, std::fs::Permissions::from_mode(mode)).unwrap();
        made.public.kid
    }

    fn kids(keys: &SigningKeys) -> Vec<String> {
        keys.jwks().keys.into_iter().map(|key| key.kid).collect()
    }

    #[tokio::test]
    async fn a_key_that_everybody_can_read_is_refused_where_that_matters() {
        let dir = tempfile::tempdir().unwrap();
        let kid = add(dir.path(), "20260101T000000-open.pem", 0o644);
        assert_eq!(kids(&open(dir.path(), false).await.unwrap()), [kid]);
        let refused = open(dir.path(), true).await;
        assert!(matches!(refused, Err(KeyFileError::WorldReadable(_))));
    }

    #[tokio::test]
    async fn an_exposed_key_that_is_added_keeps_no_other_from_being_removed() {
        let dir = tempfile::tempdir().unwrap();
        add(dir.path(), "20260101T000000-stolen.pem", 0o600);
        let kept = add(dir.path(), "20260102T000000-good.pem", 0o600);
        let keys = open(dir.path(), true).await.unwrap();
        std::fs::remove_file(dir.path().join("20260101T000000-stolen.pem")).unwrap();
        add(dir.path(), "20260103T000000-open.pem", 0o644);
        keys.reread().await;
        assert_eq!(kids(&keys), [kept]);
    }

    #[tokio::test]
    async fn a_folder_without_a_key_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let kept = vec![add(dir.path(), "20260101T000000-a.pem", 0o600)];
        let keys = open(dir.path(), true).await.unwrap();
        std::fs::remove_file(dir.path().join("20260101T000000-a.pem")).unwrap();
        keys.reread().await;
        assert_eq!(kids(&keys), kept);
        add(dir.path(), "20260102T000000-exposed.pem", 0o644);
        keys.reread().await;
        assert_eq!(kids(&keys), kept);
        assert!(keys.signer().is_some());
    }

    #[tokio::test]
    async fn a_key_in_two_files_is_published_once() {
        let dir = tempfile::tempdir().unwrap();
        let kid = add(dir.path(), "20260101T000000-a.pem", 0o600);
        let name = |name: &str| dir.path().join(name);
        std::fs::copy(name("20260101T000000-a.pem"), name("20260102T000000-b.pem")).unwrap();
        let keys = open(dir.path(), true).await;
        assert_eq!(kids(&keys.unwrap()), [kid]);
    }

    #[tokio::test]
    async fn a_problem_of_a_file_is_logged_once_and_again_when_it_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        add(dir.path(), "20260101T000000-a.pem", 0o600);
        let keys = open(dir.path(), true).await.unwrap();
        let reported = || keys.0.problems.lock().clone();
        assert_eq!(reported(), Vec::<String>::new());
        std::fs::write(dir.path().join("20260102T000000-b.pem"), "no key").unwrap();
        std::fs::write(dir.path().join("march.pem"), "").unwrap();
        keys.reread().await;
        let problems = reported();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("20260102T000000-b.pem: it is not an Ed25519 key"));
        assert!(problems[1].starts_with("march.pem: its name is not of the form"));
        std::fs::remove_file(dir.path().join("march.pem")).unwrap();
        keys.reread().await;
        assert_eq!(reported(), problems[..1]);
    }
}

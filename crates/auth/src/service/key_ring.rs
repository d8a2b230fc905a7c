//! The signing keys in use: read again every few seconds, so that adding a file rotates them.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use common::{
    config::LoginMode,
    identity::{Jwk, JwkSet, KeySet},
    shutdown::Shutdown,
};
use jsonwebtoken::EncodingKey;
use tokio::time::Instant;

use crate::repository::{Folder, KeyFile, KeyFileError, make_first, read_all};

/// How long a key is published before it signs: every `chat` has fetched it by then.
const PUBLISHED_FIRST: Duration = Duration::from_secs(60);
/// Between two looks at the folder.
const REREAD: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct PublishedKey {
    file: KeyFile,
    published: Instant,
}

/// The keys. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct KeyRing {
    dir: PathBuf,
    /// Whether keys that others can read are refused.
    strict: bool,
    login: LoginMode,
    held: Arc<ArcSwap<Vec<PublishedKey>>>,
    /// The public half, for whoever verifies in this process.
    keys: KeySet,
    /// What was wrong with the folder at the last look: said once.
    said: Arc<Mutex<Vec<String>>>,
}

impl KeyRing {
    /// Reads the folder, making the first key where there is none.
    ///
    /// # Errors
    /// The folder is not usable, or holds no usable key.
    pub async fn open(dir: PathBuf, strict: bool, login: LoginMode) -> Result<Self, KeyFileError> {
        let ring = Self {
            dir,
            strict,
            login,
            held: Arc::default(),
            keys: KeySet::local(),
            said: Arc::default(),
        };
        let dir = ring.dir.clone();
        let folder = blocking(&ring.dir, move || {
            make_first(&dir)?;
            read_all(&dir)
        });
        let folder = folder.await?;
        if let Some(exposed) = folder.keys.iter().find(|key| strict && key.exposed) {
            return Err(KeyFileError::WorldReadable(ring.dir.join(&exposed.name)));
        }
        ring.hold(folder, Instant::now());
        Ok(ring)
    }

    /// A ring without any key, for whoever signs nothing.
    pub fn closed(login: LoginMode) -> Self {
        Self {
            dir: PathBuf::new(),
            strict: true,
            login,
            held: Arc::default(),
            keys: KeySet::local(),
            said: Arc::default(),
        }
    }

    /// Reads the folder again and again; ends with the second stage of the shutdown.
    pub fn watch(&self, shutdown: &Shutdown) {
        let (ring, stop) = (self.clone(), shutdown.clone());
        shutdown.spawn(async move {
            loop {
                tokio::select! {
                    () = stop.stopping() => return,
                    () = tokio::time::sleep(REREAD) => ring.reread().await,
                }
            }
        });
    }

    /// The public keys, as a set that verifies; it follows this ring.
    pub fn key_set(&self) -> KeySet {
        self.keys.clone()
    }

    /// What `/.well-known/jwks.json` answers.
    pub fn jwks(&self) -> JwkSet {
        JwkSet::new(self.public(), self.login)
    }

    /// The key that signs now, with its id.
    pub(crate) fn signer(&self) -> Option<(String, EncodingKey)> {
        let held = self.held.load();
        let file = &held.get(signer(&held, Instant::now())?)?.file;
        Some((file.public.kid.clone(), file.signing.clone()))
    }

    fn public(&self) -> Vec<Jwk> {
        self.held
            .load()
            .iter()
            .map(|held| held.file.public.clone())
            .collect()
    }

    async fn reread(&self) {
        let dir = self.dir.clone();
        match blocking(&self.dir, move || read_all(&dir)).await {
            Ok(folder) => self.hold(folder, Instant::now()),
            Err(error) => self.say(vec![format!("{error}; the old keys stay in use")]),
        }
    }

    fn hold(&self, folder: Folder, now: Instant) {
        let complaints = folder.complaints.iter();
        self.say(
            complaints
                .map(|(name, it)| format!("{name}: {it}"))
                .collect(),
        );
        let before = self.held.load();
        let known = |file: &KeyFile| {
            before
                .iter()
                .find(|held| held.file.public.kid == file.public.kid)
        };
        let held: Vec<PublishedKey> = folder
            .keys
            .into_iter()
            // One that others could read before it ever signed is no key to begin with; one that signs goes on, since
            // to refuse it would end every login.
            .filter(|file| !(self.strict && file.exposed) || known(file).is_some())
            .map(|file| PublishedKey {
                published: known(&file).map_or(now, |held| held.published),
                file,
            })
            .collect();
        let names = |all: &[PublishedKey]| -> Vec<String> {
            all.iter().map(|held| held.file.name.clone()).collect()
        };
        if names(&held) != names(&before) {
            tracing::info!(keys = held.len(), "signing keys read");
        }
        if !held.is_empty() {
            self.held.store(Arc::new(held));
            self.keys.replace(&self.jwks());
        }
    }

    /// Logs what is wrong with the folder, unless it was said at the last look.
    fn say(&self, complaints: Vec<String>) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        for complaint in complaints.iter().filter(|it| !said.contains(it)) {
            tracing::warn!(complaint, "signing key");
        }
        *said = complaints;
    }
}

/// Which of the keys, oldest first, signs at `now`: the newest that was published long enough ago. Where none was (right
/// after a start) the oldest, which the process before this one is likeliest to have published.
fn signer(held: &[PublishedKey], now: Instant) -> Option<usize> {
    let settled =
        |held: &PublishedKey| now.saturating_duration_since(held.published) >= PUBLISHED_FIRST;
    held.iter()
        .rposition(settled)
        .or((!held.is_empty()).then_some(0))
}

async fn blocking<T: Send + 'static>(
    dir: &std::path::Path,
    work: impl FnOnce() -> Result<T, KeyFileError> + Send + 'static,
) -> Result<T, KeyFileError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| {
        Err(KeyFileError::Folder(
            dir.to_owned(),
            std::io::Error::other(error),
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_key_signs_once_it_was_published_for_a_minute_and_an_only_one_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let ring = KeyRing::open(dir.path().to_owned(), true, LoginMode::Open)
            .await
            .unwrap();
        let first = ring.signer().unwrap().0;
        let other = tempfile::tempdir().unwrap();
        make_first(other.path()).unwrap();
        let made = read_all(other.path()).unwrap().keys.remove(0);
        std::fs::copy(
            other.path().join(&made.name),
            dir.path().join("29990101T000000-next.pem"),
        )
        .unwrap();
        let now = Instant::now();
        ring.hold(read_all(dir.path()).unwrap(), now);
        assert_eq!(ring.jwks().keys.len(), 2);
        let signs = |after: u64| {
            ring.hold(
                read_all(dir.path()).unwrap(),
                now + Duration::from_secs(after),
            );
            let held = ring.held.load();
            held[signer(&held, now + Duration::from_secs(after)).unwrap()]
                .file
                .public
                .kid
                .clone()
        };
        assert_eq!((signs(0), signs(59)), (first.clone(), first));
        assert_eq!(signs(60), made.public.kid);
    }

    #[tokio::test]
    async fn garbage_beside_a_key_is_left_out_and_garbage_alone_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("20260101T000000-bad.pem"), "no key").unwrap();
        let alone = KeyRing::open(dir.path().to_owned(), true, LoginMode::Open).await;
        assert!(matches!(alone, Err(KeyFileError::NoneUsable(_))));
        let other = tempfile::tempdir().unwrap();
        make_first(other.path()).unwrap();
        let made = read_all(other.path()).unwrap().keys.remove(0);
        std::fs::copy(other.path().join(&made.name), dir.path().join(&made.name)).unwrap();
        let ring = KeyRing::open(dir.path().to_owned(), true, LoginMode::Open)
            .await
            .unwrap();
        assert_eq!(ring.jwks().keys, vec![made.public]);
    }

    #[tokio::test]
    async fn processes_that_start_at_once_share_one_first_key() {
        let dir = tempfile::tempdir().unwrap();
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let dir = dir.path().to_owned();
                std::thread::spawn(move || make_first(&dir))
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
        make_first(other.path()).unwrap();
        let made = read_all(other.path()).unwrap().keys.remove(0);
        let place = dir.join(name);
        std::fs::copy(other.path().join(&made.name), &place).unwrap();
        std::fs::set_permissions(place, std::fs::Permissions::from_mode(mode)).unwrap();
        made.public.kid
    }

    fn kids(ring: &KeyRing) -> Vec<String> {
        ring.jwks().keys.into_iter().map(|key| key.kid).collect()
    }

    #[tokio::test]
    async fn a_key_that_everybody_can_read_is_refused_where_that_matters() {
        let dir = tempfile::tempdir().unwrap();
        let kid = add(dir.path(), "20260101T000000-open.pem", 0o644);
        let open = |strict| KeyRing::open(dir.path().to_owned(), strict, LoginMode::Open);
        assert_eq!(kids(&open(false).await.unwrap()), [kid]);
        assert!(matches!(
            open(true).await,
            Err(KeyFileError::WorldReadable(_))
        ));
    }

    #[tokio::test]
    async fn an_exposed_key_that_is_added_keeps_no_other_from_being_removed() {
        let dir = tempfile::tempdir().unwrap();
        add(dir.path(), "20260101T000000-stolen.pem", 0o600);
        let kept = add(dir.path(), "20260102T000000-good.pem", 0o600);
        let ring = KeyRing::open(dir.path().to_owned(), true, LoginMode::Open)
            .await
            .unwrap();
        std::fs::remove_file(dir.path().join("20260101T000000-stolen.pem")).unwrap();
        add(dir.path(), "20260103T000000-open.pem", 0o644);
        ring.reread().await;
        assert_eq!(kids(&ring), [kept]);
    }

    #[tokio::test]
    async fn a_folder_without_a_key_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let kept = vec![add(dir.path(), "20260101T000000-a.pem", 0o600)];
        let ring = KeyRing::open(dir.path().to_owned(), true, LoginMode::Open)
            .await
            .unwrap();
        std::fs::remove_file(dir.path().join("20260101T000000-a.pem")).unwrap();
        ring.reread().await;
        assert_eq!(kids(&ring), kept);
        add(dir.path(), "20260102T000000-exposed.pem", 0o644);
        ring.reread().await;
        assert_eq!(kids(&ring), kept);
        assert!(ring.signer().is_some());
    }

    #[tokio::test]
    async fn a_key_in_two_files_is_published_once() {
        let dir = tempfile::tempdir().unwrap();
        let kid = add(dir.path(), "20260101T000000-a.pem", 0o600);
        let name = |name: &str| dir.path().join(name);
        std::fs::copy(name("20260101T000000-a.pem"), name("20260102T000000-b.pem")).unwrap();
        let ring = KeyRing::open(dir.path().to_owned(), true, LoginMode::Open).await;
        assert_eq!(kids(&ring.unwrap()), [kid]);
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_file_is_said_once_and_again_when_it_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        add(dir.path(), "20260101T000000-a.pem", 0o600);
        let ring = KeyRing::open(dir.path().to_owned(), true, LoginMode::Open)
            .await
            .unwrap();
        let said = || ring.said.lock().unwrap().clone();
        assert_eq!(said(), Vec::<String>::new());
        std::fs::write(dir.path().join("20260102T000000-b.pem"), "no key").unwrap();
        std::fs::write(dir.path().join("march.pem"), "").unwrap();
        ring.reread().await;
        let complaints = said();
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].starts_with("20260102T000000-b.pem: it is not an Ed25519 key"));
        assert!(complaints[1].starts_with("march.pem: its name does not read"));
        std::fs::remove_file(dir.path().join("march.pem")).unwrap();
        ring.reread().await;
        assert_eq!(said(), complaints[..1]);
    }
}

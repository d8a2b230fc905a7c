//! Threads for hashing passwords, one a core and at low priority, each with memory that it uses again.

use std::{
    cell::RefCell,
    fmt::Display,
    num::NonZero,
    thread,
    time::{Duration, Instant},
};

use argon2::{
    Algorithm, Argon2, Block, CustomizedPasswordHasher, Params, PasswordHash, Version,
    password_hash::{
        self,
        phc::{Output, ParamsString, Salt},
    },
};
use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;

use super::error::AuthError;

const WAIT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an idle thread is kept, and its 19 MiB with it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How much nicer than the process these threads are: a thread that serves requests preempts them, and a contended core is shared
/// about nine to one.
const NICE_INCREMENT: i32 = 10;

/// The threads. They start when there is something to hash, work in order of arrival, and end when idle.
pub(super) struct HashPool(Option<Runtime>);

impl Default for HashPool {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let runtime = Builder::new_current_thread()
            .thread_name("hash")
            .max_blocking_threads(cores)
            .thread_keep_alive(IDLE_TIMEOUT)
            .on_thread_start(lower_priority)
            .build();
        // Without an event queue or a timer there is nothing in it that could fail.
        Self(runtime.ok())
    }
}

impl HashPool {
    /// Runs `work` on one of the threads, unless the caller is dropped or [`WAIT_TIMEOUT`] passes before it begins.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, AuthError> + Send + 'static,
    ) -> Result<T, AuthError> {
        self.run_by(Instant::now() + WAIT_TIMEOUT, work).await
    }

    async fn run_by<T: Send + 'static>(
        &self,
        latest: Instant,
        work: impl FnOnce() -> Result<T, AuthError> + Send + 'static,
    ) -> Result<T, AuthError> {
        let Some(threads) = &self.0 else { return Err(hashing_error("there are no threads")) };
        let asked = Instant::now();
        let hashed = threads.spawn_blocking(move || {
            let begun = Instant::now();
            if begun > latest {
                return Err(AuthError::Overloaded);
            }
            metrics::histogram!("auth_password_wait_seconds").record((begun - asked).as_secs_f64());
            let done = work();
            metrics::histogram!("auth_password_hash_seconds").record(begun.elapsed().as_secs_f64());
            done
        });
        AbortOnDropHandle::new(hashed).await.map_err(hashing_error)?
    }
}

impl Drop for HashPool {
    fn drop(&mut self) {
        // A runtime that is simply dropped waits for its threads, which an async caller may not.
        if let Some(threads) = self.0.take() {
            threads.shutdown_background();
        }
    }
}

pub(super) fn hashing_error(error: impl Display) -> AuthError {
    AuthError::Hashing(error.to_string())
}

fn lower_priority() {
    // Elsewhere than on Linux it would be the whole process's.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICE_INCREMENT) {
        tracing::debug!(%error, "passwords are hashed at the priority of the process");
    }
}

thread_local! {
    /// The working memory of this thread. A hash writes each block before it reads it, so nothing of the one before is ever seen.
    static MEMORY: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// Argon2 in memory that stays with the thread: 19 MiB need not be zeroed for each hash.
pub(super) struct PooledArgon2;

impl CustomizedPasswordHasher<PasswordHash> for PooledArgon2 {
    type Params = Params;

    fn hash_password_customized(
        &self,
        password: &[u8],
        salt: &[u8],
        algorithm: Option<&str>,
        version: Option<password_hash::Version>,
        params: Params,
    ) -> password_hash::Result<PasswordHash> {
        let algorithm = algorithm.map_or(Ok(Algorithm::default()), Algorithm::try_from)?;
        let version = version.map_or(Ok(Version::default()), Version::try_from)?;
        let length = params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN);
        let mut output = [0; Output::MAX_LENGTH];
        let output = output.get_mut(..length).ok_or(password_hash::Error::OutputSize)?;
        let (text, blocks) = (ParamsString::try_from(&params)?, params.block_count());
        MEMORY.with_borrow_mut(|memory| {
            if memory.len() < blocks {
                memory.resize(blocks, Block::new());
            }
            Argon2::new(algorithm, version, params)
                .hash_password_into_with_memory(password, salt, output, memory)
        })?;
        Ok(PasswordHash {
            algorithm: algorithm.ident(),
            version: Some(version.into()),
            params: text,
            salt: Some(Salt::new(salt)?),
            hash: Some(Output::new(output)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        sync::{Arc, Mutex, mpsc},
        task::{Context, Waker},
    };

    use argon2::PasswordHasher;
    use futures_util::future::join_all;

    use super::*;

    /// How many threads there are at most.
    fn cores() -> usize {
        thread::available_parallelism().map_or(1, NonZero::get)
    }

    #[test]
    fn memory_that_was_used_before_changes_no_hash() {
        let small = Params::new(4096, 3, 2, None).unwrap();
        for (password, params) in [
            ("the first", Params::default()),
            ("another", small.clone()),
            ("the first", Params::default()),
            ("another", small),
        ] {
            let hash = PooledArgon2
                .hash_password_customized(
                    password.as_bytes(),
                    b"sixteen of salt!",
                    None,
                    None,
                    params.clone(),
                )
                .unwrap();
            let plain = Argon2::from(params)
                .hash_password_with_salt(password.as_bytes(), b"sixteen of salt!");
            assert_eq!(hash, plain.unwrap());
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn hashing_runs_at_a_lower_priority() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        let in_pool = HashPool::default().run(move || Ok(nice())).await.unwrap();
        assert_eq!(in_pool, (before + NICE_INCREMENT).min(19));
        assert_eq!(nice(), before);
    }

    fn waits<F: Future>(future: &mut Pin<Box<F>>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        future.as_mut().poll(&mut context).is_pending()
    }

    #[tokio::test]
    async fn one_hash_runs_on_each_core_and_a_caller_that_left_is_skipped() {
        let pool = HashPool::default();
        let (begun, starts) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let all = cores();
        let mut busy = Box::pin(join_all((0..all).map(|_| {
            let (begun, gate) = (begun.clone(), gate.clone());
            pool.run(move || {
                begun.send("busy").ok();
                gate.lock().unwrap().recv().ok();
                Ok(())
            })
        })));
        assert!(waits(&mut busy));
        for _ in 0..all {
            starts.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        let late = |name| {
            let begun = begun.clone();
            Box::pin(pool.run(move || begun.send(name).map_err(hashing_error)))
        };
        let (mut left, mut stays) = (late("left"), late("stays"));
        assert!(waits(&mut left) && waits(&mut stays));
        drop(left);
        drop(go);
        stays.await.unwrap();
        busy.await;
        drop((begun, pool));
        assert_eq!(starts.iter().collect::<Vec<_>>(), ["stays"]);
    }

    #[tokio::test]
    async fn a_caller_that_waited_too_long_is_refused_without_a_hash() {
        let past = Instant::now() - Duration::from_millis(1);
        let done = HashPool::default().run_by(past, || Ok(())).await;
        assert!(matches!(done, Err(AuthError::Overloaded)), "{done:?}");
    }
}

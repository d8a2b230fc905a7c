//! Stopping gently, then firmly: one token refuses new work, another ends what is left, one tracker knows every task.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The two stages of a stop, and the tasks that a stop waits for. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    draining: CancellationToken,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// A shutdown that nobody has asked for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The first stage: no new work; what runs may finish.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// The second stage: what still runs ends now, and says so to whoever watches it.
    pub fn stop(&self) {
        self.draining.cancel();
        self.stopping.cancel();
    }

    /// Whether new work is refused.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Resolves when new work is to be refused.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Resolves when running work is to end.
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// A token that is cancelled when running work is to end.
    pub fn stop_token(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Spawns a task that the stop waits for. Tasks that loop for ever must select on [`Self::stopping`].
    #[expect(clippy::disallowed_methods, reason = "this is the home of spawning")]
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(self.tasks.track_future(task))
    }

    /// Resolves when every task spawned here has ended.
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

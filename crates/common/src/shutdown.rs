//! Graceful shutdown in two stages: a drain refuses new work and waits for running work, a stop ends what is left.

use std::{future::Future, io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use crate::workers::WorkerPool;

/// The shortest drain, so that proxies that probe `/readyz` several times a second take the instance out before its listener closes.
const MIN_DRAIN: Duration = Duration::from_millis(500);

/// The two stages of a stop, and the tasks that a stop waits for. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    draining: CancellationToken,
    stopping: CancellationToken,
    tasks: TaskTracker,
    work: TaskTracker,
    workers: WorkerPool,
    failure: Arc<Mutex<Option<anyhow::Error>>>,
}

/// Work in progress, such as a running turn or a request being answered: a drain waits until this is dropped.
#[derive(Debug)]
pub struct WorkGuard {
    _held: TaskTrackerToken,
}

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn with_workers(workers: WorkerPool) -> Self {
        Self { workers, ..Self::default() }
    }

    /// Begins the first stage: no new work; what runs may finish.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Begins the second stage: what still runs ends now.
    pub fn stop(&self) {
        self.draining.cancel();
        self.stopping.cancel();
    }

    /// Stops for want of something without which the process must not serve.
    pub fn fail(&self, error: anyhow::Error) {
        self.failure.lock().get_or_insert(error);
        self.stop();
    }

    /// Why it was stopped by [`Self::fail`].
    pub fn take_failure(&self) -> Option<anyhow::Error> {
        self.failure.lock().take()
    }

    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

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

    /// Spawns a task that ends at the stop, wherever it is.
    pub fn spawn_until_stop(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let stop = self.stop_token();
        self.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        })
    }

    /// Spawns a task that the stop waits for on the next of the worker threads, or on this one where there are none.
    pub fn spawn_on_worker(&self, task: impl Future<Output = ()> + Send + 'static) {
        match self.workers.next() {
            Some(runtime) => drop(runtime.spawn(self.tasks.track_future(task))),
            None => drop(self.spawn(task)),
        }
    }

    /// Tasks of this process that have not ended, whoever spawned them; must be called within a runtime.
    pub fn tasks_alive(&self) -> usize {
        self.workers.tasks_alive()
    }

    /// Registers work that a drain waits for. What only waits for requests (an idle connection, a background loop) registers nothing.
    pub fn work(&self) -> WorkGuard {
        WorkGuard { _held: self.work.token() }
    }

    /// Spawns a task that a drain waits for. Boxed: a large future would be copied on its way to the runtime.
    pub fn spawn_work(&self, task: impl Future<Output = ()> + Send + 'static) {
        let (work, task) = (self.work(), Box::pin(task));
        self.spawn(async move {
            task.await;
            drop(work);
        });
    }

    pub async fn work_finished(&self) {
        self.work.close();
        self.work.wait().await;
    }

    /// Drains, and stops when no work is left, at the latest after `drain_timeout`.
    pub async fn drain_then_stop(&self, drain_timeout: Duration) {
        self.drain();
        let drained = async {
            tokio::time::sleep(MIN_DRAIN).await;
            self.work_finished().await;
        };
        let _ = tokio::time::timeout(drain_timeout, drained).await;
        self.stop();
    }

    /// Resolves when every task spawned here has ended.
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// The signals that ask this process to stop: SIGTERM and SIGINT. From the moment that this exists they no longer end
/// the process by themselves.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Begins to listen. Must be called within a runtime; fails where the system refuses.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Resolves at the next signal, with its name.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Turns signals into the stages of a stop: the first one drains, and stops when no work is left or `drain_timeout` is
/// over. Resolves at the second signal, after which the process is to end at once.
pub async fn on_signals(mut signals: Signals, shutdown: &Shutdown, drain_timeout: Duration) {
    let first = signals.next().await;
    tracing::info!(signal = first, "draining: new work is refused, running work may finish");
    let second = tokio::select! {
        () = shutdown.drain_then_stop(drain_timeout) => signals.next().await,
        second = signals.next() => second,
    };
    tracing::warn!(signal = second, "stopping at once");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Shutdown;

    /// Longer than any test takes: whoever waits for it has failed.
    const FOR_EVER: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_drain_with_nothing_to_wait_for_stops_at_once() {
        let shutdown = Shutdown::new();
        shutdown.drain_then_stop(FOR_EVER).await;
        assert!(shutdown.stop_token().is_cancelled());
    }

    #[tokio::test]
    async fn a_drain_ends_when_the_last_work_does() {
        let shutdown = Shutdown::new();
        let (one, other) = (shutdown.work(), shutdown.work());
        let works = async {
            shutdown.draining().await;
            drop(one);
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            assert!(!shutdown.stop_token().is_cancelled(), "one still works");
            drop(other);
        };
        tokio::join!(shutdown.drain_then_stop(FOR_EVER), works);
        assert!(shutdown.stop_token().is_cancelled());
    }

    #[tokio::test]
    async fn work_that_does_not_end_is_stopped_after_the_drain_timeout() {
        let shutdown = Shutdown::new();
        let _endless = shutdown.work();
        shutdown.drain_then_stop(Duration::from_millis(20)).await;
        assert!(shutdown.is_draining() && shutdown.stop_token().is_cancelled());
    }

    #[tokio::test]
    async fn spawned_tasks_are_waited_for() {
        let shutdown = Shutdown::new();
        let (stop, task) = (shutdown.stop_token(), shutdown.clone());
        let ended = shutdown.spawn(async move { task.stopping().await });
        stop.cancel();
        shutdown.finished().await;
        assert!(ended.is_finished());
    }
}

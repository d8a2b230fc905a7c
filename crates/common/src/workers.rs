//! The worker threads that serve connections, each with a runtime of its own. A request, its turn and its connections to
//! the store and the model servers stay on one thread, so that no step has to wake another thread and wait for it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

use crate::scheduling_delay;

/// Each thread has its own connections to the store and to every model server.
const MAX_THREADS: usize = 8;

/// The worker threads. Cheap to clone; the default has none, and everything then runs where it is spawned.
#[derive(Clone, Debug, Default)]
pub struct WorkerPool(Arc<Threads>);

#[derive(Debug, Default)]
struct Threads {
    runtimes: Vec<Handle>,
    main: Option<Handle>,
    next: AtomicUsize,
    end: CancellationToken,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl WorkerPool {
    /// Starts a thread for each core that this process may use, 8 at most, beside the main thread with its runtime.
    ///
    /// # Errors
    /// Where the system gives no thread, or no event queue for one.
    pub fn start(main: &Handle) -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_THREADS));
        let mut pool = Threads { main: Some(main.clone()), ..Threads::default() };
        let mut threads = Vec::with_capacity(count);
        drop(main.spawn(scheduling_delay::measure()));
        for number in 0..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            drop(runtime.spawn(scheduling_delay::measure()));
            pool.runtimes.push(runtime.handle().clone());
            threads.push(start(number, runtime, pool.end.clone())?);
        }
        pool.threads = Mutex::new(threads);
        Ok(Self(Arc::new(pool)))
    }

    /// The next thread in turn; `None` where there are none.
    pub(crate) fn next(&self) -> Option<&Handle> {
        let Threads { runtimes, next, .. } = &*self.0;
        let turn = next.fetch_add(1, Ordering::Relaxed);
        runtimes.get(turn.checked_rem(runtimes.len())?)
    }

    /// Tasks on all threads that have not ended, without those that measure the delay; must be called within a runtime.
    pub fn tasks_alive(&self) -> usize {
        let alive = |runtime: &Handle| runtime.metrics().num_alive_tasks();
        let main = self.0.main.as_ref().map_or_else(|| alive(&Handle::current()), alive);
        let measuring = self.0.main.iter().len() + self.0.runtimes.len();
        let all = main + self.0.runtimes.iter().map(alive).sum::<usize>();
        all.saturating_sub(measuring)
    }

    /// Ends the threads, and drops whatever still runs on them.
    pub fn end(&self) {
        self.0.end.cancel();
        let threads = std::mem::take(&mut *self.0.threads.lock());
        for thread in threads {
            // It only fails if the thread panicked, which has been reported by then.
            thread.join().ok();
        }
    }
}

fn start(number: usize, runtime: Runtime, end: CancellationToken) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        runtime.block_on(end.cancelled());
        // Nobody is left who needs the result of work on blocking threads.
        runtime.shutdown_background();
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_goes_round_the_threads_and_ends_with_them() {
        let main = Builder::new_current_thread().build().unwrap();
        let workers = WorkerPool::start(main.handle()).unwrap();
        let here = thread::current().id();
        let (send, receive) = std::sync::mpsc::channel();
        for _ in 0..64 {
            let send = send.clone();
            workers.next().unwrap().spawn(async move {
                send.send(thread::current().id()).unwrap();
                std::future::pending::<()>().await;
            });
        }
        drop(send);
        let ran: std::collections::HashSet<_> = receive.iter().take(64).collect();
        assert!(!ran.contains(&here));
        assert_eq!(ran.len(), workers.0.runtimes.len());
        assert_eq!(workers.tasks_alive(), 64);
        workers.end();
        // Every task was dropped, and with it what it held.
        assert!(receive.recv().is_err());
    }

    #[test]
    fn without_threads_there_is_no_turn() {
        assert!(WorkerPool::default().next().is_none());
    }
}

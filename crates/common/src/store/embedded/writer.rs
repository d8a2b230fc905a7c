//! The one thread that writes: it commits in groups, flushes, sweeps, and outlives every failure of the disk.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use redb::{Durability, WriteTransaction};

mod full;

use self::full::Ballast;
use super::{
    ballast,
    fault::Fault,
    file::File,
    job::{Job, JobResult, QueuedJob},
    sweep,
    tables::WriteTables,
};
use crate::{clock::Clock, store::StoreError};

/// Relaxed changes are on disk after that long.
pub(super) const FLUSH_EVERY: Duration = Duration::from_millis(140);

/// Between two looks for what has expired; while there is more to throw away, the writer goes on whenever nobody waits.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// After a failure of the disk, writes are refused for so long.
const PAUSE: Duration = Duration::from_millis(500);

const GROUP: usize = 256;

/// The thread. Dropping it writes out everything, then ends.
pub(super) struct Writer {
    requests: Option<Sender<QueuedJob>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(file: Arc<File>, clock: Clock) -> Result<Self, StoreError> {
        let (requests, receiver) = mpsc::channel();
        let mut writer = WriterLoop::new(file, clock);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(&receiver))
            .map_err(|error| {
                StoreError::Unavailable(format!("the writer cannot be started: {error}"))
            })?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    pub(super) fn send(&self, request: QueuedJob) -> bool {
        self.requests.as_ref().is_some_and(|requests| requests.send(request).is_ok())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // It only fails if the thread panicked, which has been reported by then.
            thread.join().ok();
        }
    }
}

struct WriterLoop {
    file: Arc<File>,
    clock: Clock,
    /// When the oldest relaxed change that is not on disk was made.
    dirty: Option<Instant>,
    swept: Instant,
    more_to_sweep: bool,
    /// After a failure of the disk: until when every write is refused so.
    pause: Option<(Instant, StoreError)>,
    ballast: Ballast,
    /// While the ballast is missing: from when on a write that needs room looks for it.
    look_at: Instant,
}

impl WriterLoop {
    fn new(file: Arc<File>, clock: Clock) -> Self {
        Self {
            file,
            clock,
            dirty: None,
            swept: Instant::now(),
            more_to_sweep: true,
            pause: None,
            ballast: Ballast::Missing(Instant::now()),
            look_at: Instant::now(),
        }
    }

    fn run(&mut self, requests: &Receiver<QueuedJob>) {
        self.put_in_ballast();
        loop {
            match requests.recv_timeout(self.next_wait()) {
                Ok(first) => {
                    let mut group = vec![first];
                    group.extend(requests.try_iter().take(GROUP - 1));
                    self.serve(group);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.maintain();
        }
        self.flush();
    }

    fn next_wait(&self) -> Duration {
        if self.more_to_sweep {
            return Duration::from_millis(1);
        }
        let flush =
            self.dirty.map_or(SWEEP_EVERY, |since| FLUSH_EVERY.saturating_sub(since.elapsed()));
        flush.min(SWEEP_EVERY.saturating_sub(self.swept.elapsed())).max(Duration::from_millis(1))
    }

    fn serve(&mut self, mut group: Vec<QueuedJob>) {
        // Whoever has left was told 'unknown' and will repeat it; under load this is what lets the rest catch up.
        group.retain(|queued| !queued.answer.is_closed());
        if group.is_empty() {
            return;
        }
        if matches!(self.ballast, Ballast::Missing(_)) && !self.has_room_again(&group) {
            group = self.refuse_growth(group);
        }
        match self.do_all(&group) {
            Ok(outcomes) => {
                for (queued, outcome) in group.into_iter().zip(outcomes) {
                    queued.answer.send(outcome).ok();
                }
            }
            // One request spoils the group; alone, it spoils only itself.
            Err(Fault::Spoiled(_)) if group.len() > 1 => {
                group.into_iter().for_each(|request| self.serve(vec![request]));
            }
            Err(fault) => {
                let error = fault.into_store_error();
                let can_free = group.iter().any(|queued| ballast::frees(&queued.job));
                if matches!(error, StoreError::Full(_)) && can_free && self.take_out_ballast() {
                    return self.serve(group);
                }
                refuse(group, &error);
            }
        }
    }

    fn do_all(&mut self, group: &[QueuedJob]) -> Result<Vec<Result<JobResult, StoreError>>, Fault> {
        let durable =
            group.iter().any(|queued| matches!(&queued.job, Job::Commit(txn) if txn.durable));
        self.transact(durable, |tables| {
            let jobs = group.iter();
            jobs.map(|queued| queued.job.on(tables)).collect()
        })
    }

    /// One redb transaction round `work`; nothing of it stays if it fails.
    fn transact<T>(
        &mut self,
        durable: bool,
        work: impl FnOnce(&mut WriteTables<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let (now, dirty) = (self.clock.now_ms(), self.dirty.is_some());
        let (done, changed) = self.in_transaction(durable, |txn| {
            let mut tables = WriteTables::open(txn, now)?;
            let done = work(&mut tables)?;
            Ok((done, tables.changed || durable && dirty))
        })?;
        if durable {
            self.dirty = None;
        } else if changed {
            self.dirty.get_or_insert_with(Instant::now);
        }
        Ok(done)
    }

    /// One redb transaction, committed unless it fails or says that it changed nothing.
    fn in_transaction<T>(
        &mut self,
        durable: bool,
        work: impl FnOnce(&WriteTransaction) -> Result<(T, bool), Fault>,
    ) -> Result<(T, bool), Fault> {
        self.check_pause().map_err(Fault::Said)?;
        let file = self.file.clone();
        // redb panics on some damage; that must not end the only thread that writes.
        let guarded = catch_unwind(AssertUnwindSafe(|| {
            file.with(|database| {
                let mut txn = database.begin_write()?;
                txn.set_durability(if durable { Durability::Immediate } else { Durability::None })?;
                let (done, changed) = work(&txn)?;
                if changed {
                    txn.commit()?
                } else {
                    txn.abort()?
                }
                Ok((done, changed))
            })
        }));
        match guarded.unwrap_or_else(|_| Err(Fault::Broken(redb::Error::DatabaseClosed))) {
            Err(Fault::Broken(error)) => {
                let error = Fault::Broken(error).into_store_error();
                self.reopen(&error);
                Err(Fault::Said(error))
            }
            done => done,
        }
    }

    /// Opens the file anew at once, so that reads go on; writes are refused for a while, so that a full disk does not
    /// mean opening it for each of them.
    fn reopen(&mut self, error: &StoreError) {
        tracing::error!(reason = %error, "the store's file failed; it is opened anew");
        self.pause = Some((Instant::now() + PAUSE, error.clone()));
        self.dirty = None;
        if let Err(fault) = self.file.reopen() {
            tracing::error!(reason = %fault.into_store_error(), "the store's file cannot be opened");
        }
    }

    /// Ends the pause after a failure once it is over and the file is open.
    fn check_pause(&mut self) -> Result<(), StoreError> {
        let Some((until, error)) = &self.pause else { return Ok(()) };
        if Instant::now() < *until {
            return Err(error.clone());
        }
        if !self.file.is_open()
            && let Err(fault) = self.file.reopen()
        {
            let error = fault.into_store_error();
            self.pause = Some((Instant::now() + PAUSE, error.clone()));
            return Err(error);
        }
        self.pause = None;
        Ok(())
    }

    fn maintain(&mut self) {
        self.restore_ballast();
        if self.dirty.is_some_and(|since| since.elapsed() >= FLUSH_EVERY) {
            self.flush();
        }
        if self.more_to_sweep || self.swept.elapsed() >= SWEEP_EVERY {
            let now = self.clock.now_ms();
            // A failure is in the log already; the next pass tries again.
            self.more_to_sweep =
                self.transact(false, |tables| sweep::pass(tables, now)).unwrap_or(false);
            self.swept = Instant::now();
        }
    }

    fn flush(&mut self) {
        if self.dirty.is_some() {
            // A failure is in the log, and there is nobody to tell.
            self.transact(true, |_| Ok(())).ok();
        }
    }
}

fn refuse(group: Vec<QueuedJob>, error: &StoreError) {
    for queued in group {
        queued.answer.send(Err(error.clone())).ok();
    }
}

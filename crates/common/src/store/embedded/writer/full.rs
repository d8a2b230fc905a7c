//! What the writer does while the disk is full.

use std::time::{Duration, Instant};

use super::{QueuedJob, WriterLoop, refuse};
use crate::store::{
    StoreError,
    embedded::{ballast, job::Job},
};

/// Between two tries to put the ballast back, unless something was removed.
const BALLAST_EVERY: Duration = Duration::from_secs(5);

/// Between two looks whether the disk has room again, which writes that need it cause.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The same after a look that was wrong: then the file had to be opened anew.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// After something was removed: by then its rows are swept.
const AFTER_REMOVAL: Duration = Duration::from_millis(1500);

/// The room that is set aside in the file.
pub(super) enum Ballast {
    Whole,
    Missing(Instant),
}

impl WriterLoop {
    /// Puts the ballast back at once where somebody needs room and the disk has it.
    pub(super) fn has_room_again(&mut self, group: &[QueuedJob]) -> bool {
        let now = Instant::now();
        let is_needed = group.iter().any(|queued| !ballast::frees(&queued.job));
        if !is_needed || now < self.look_at {
            return false;
        }
        self.look_at = now + LOOK_EVERY;
        if self.file.has_room(ballast::SIZE) {
            self.put_in_ballast();
            self.look_at = Instant::now() + AFTER_FAILURE;
        }
        matches!(self.ballast, Ballast::Whole)
    }

    /// Refuses what would grow the file; the rest is left.
    pub(super) fn refuse_growth(&mut self, group: Vec<QueuedJob>) -> Vec<QueuedJob> {
        let (free, grow): (Vec<_>, Vec<_>) =
            group.into_iter().partition(|queued| ballast::frees(&queued.job));
        let full = StoreError::Full("the disk is full; something must be deleted first".into());
        refuse(grow, &full);
        let removes = |queued: &QueuedJob| !matches!(queued.job, Job::Ping);
        if free.iter().any(removes) {
            self.ballast = Ballast::Missing(Instant::now() + AFTER_REMOVAL);
        }
        free
    }

    /// Takes the ballast out for what removes; `false` where it was out, or nothing can be written at all.
    pub(super) fn take_out_ballast(&mut self) -> bool {
        if matches!(self.ballast, Ballast::Missing(_)) {
            return false;
        }
        // The file has just been opened anew, and something must be removed at once: before this pause is over.
        self.pause = None;
        let taken = self.in_transaction(true, ballast::take_out).is_ok();
        if taken {
            tracing::warn!("the disk is full: only what removes is done until there is room");
            self.ballast = Ballast::Missing(Instant::now() + BALLAST_EVERY);
        }
        taken
    }

    pub(super) fn put_in_ballast(&mut self) {
        self.ballast = match self.in_transaction(true, ballast::put_in) {
            Ok(_) => Ballast::Whole,
            // The failure is in the log, and is no reason to refuse what removes.
            Err(_) => {
                self.pause = None;
                Ballast::Missing(Instant::now() + BALLAST_EVERY)
            }
        };
    }

    /// Puts the ballast back when that is due.
    pub(super) fn restore_ballast(&mut self) {
        if let Ballast::Missing(due) = self.ballast
            && Instant::now() >= due
            && !self.more_to_sweep
            && self.check_pause().is_ok()
        {
            self.put_in_ballast();
        }
    }
}

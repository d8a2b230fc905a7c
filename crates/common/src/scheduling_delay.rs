//! How late this process runs what is due: the measure of being short of CPU.
//!
//! On each runtime a task sleeps a little and looks how much longer it took. What it finds is the time that any other task
//! waits between being woken and being polled.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::RwLock;
use tokio::time::{Instant as Tick, sleep_until};

const PERIOD: Duration = Duration::from_millis(20);

/// The time over which the delay is averaged: one late task is no lack of CPU.
const AVERAGED_OVER: Duration = Duration::from_millis(100);

/// A delay from which on a call to another process may have timed out by our own fault.
const LATE: Duration = Duration::from_millis(100);

/// The runtimes that are measured. The delay is a property of the process, as its CPU time is.
static PROBES: LazyLock<Probes> = LazyLock::new(Probes::default);

struct Probes {
    born: Instant,
    all: RwLock<Vec<Arc<Probe>>>,
}

impl Default for Probes {
    fn default() -> Self {
        Self { born: Instant::now(), all: RwLock::default() }
    }
}

/// What is known of one runtime, in microseconds after `born`.
#[derive(Default)]
struct Probe {
    due: AtomicU64,
    delay: AtomicU64,
    /// When a look was last late by [`LATE`].
    late_at: AtomicU64,
}

impl Probes {
    fn micros(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.born);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    fn longest(&self, of: impl Fn(&Probe) -> u64) -> u64 {
        let probes = self.all.read();
        probes.iter().map(|probe| of(probe)).max().unwrap_or(0)
    }

    fn current(&self, now: Instant) -> Duration {
        let now = self.micros(now);
        let longest = self.longest(|probe| {
            let known = Duration::from_micros(probe.delay.load(Ordering::Relaxed));
            let overdue = now.saturating_sub(probe.due.load(Ordering::Relaxed));
            let with_next = averaged(known, Duration::from_micros(overdue));
            u64::try_from(known.max(with_next).as_micros()).unwrap_or(u64::MAX)
        });
        Duration::from_micros(longest)
    }

    fn late_since(&self, begun: Instant, now: Instant) -> bool {
        let late_at = self.longest(|probe| probe.late_at.load(Ordering::Relaxed));
        late_at > self.micros(begun) || self.current(now) >= LATE
    }
}

/// The longest delay of any runtime right now; zero where none is measured.
pub fn current() -> Duration {
    PROBES.current(Instant::now())
}

/// Whether some runtime was so late since then that a time-out may be our own fault.
pub fn late_since(begun: Instant) -> bool {
    PROBES.late_since(begun, Instant::now())
}

/// Takes a runtime out of the list when its probe ends.
struct Registered(Arc<Probe>);

impl Drop for Registered {
    fn drop(&mut self) {
        let mut all = PROBES.all.write();
        all.retain(|probe| !Arc::ptr_eq(probe, &self.0));
    }
}

/// Measures the runtime that polls this, for as long as it lives. It must be a task of its own: the future that a runtime
/// blocks on does not wait in its queue.
pub(crate) async fn measure() {
    let probe = Arc::new(Probe::default());
    let mut due = Tick::now() + PERIOD;
    probe.due.store(PROBES.micros(due.into_std()), Ordering::Relaxed);
    PROBES.all.write().push(Arc::clone(&probe));
    let Registered(probe) = &Registered(probe);
    let mut average = Duration::ZERO;
    loop {
        sleep_until(due).await;
        let now = Tick::now();
        let delay = now.saturating_duration_since(due);
        average = averaged(average, delay);
        probe
            .delay
            .store(u64::try_from(average.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if delay >= LATE {
            probe.late_at.store(PROBES.micros(now.into_std()), Ordering::Relaxed);
        }
        due = now + PERIOD;
        probe.due.store(PROBES.micros(due.into_std()), Ordering::Relaxed);
    }
}

/// The average after one more look, which counts by the time that it took.
fn averaged(average: Duration, delay: Duration) -> Duration {
    let weight = ((delay + PERIOD).as_secs_f64() / AVERAGED_OVER.as_secs_f64()).min(1.0);
    average.mul_f64(1.0 - weight) + delay.mul_f64(weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_late_while_its_probe_waits_and_when_it_was_late() {
        let probes = Probes::default();
        let ms = |ms: u64| probes.born + Duration::from_millis(ms);
        assert_eq!(probes.current(ms(500)), Duration::ZERO);
        let probe = Arc::new(Probe::default());
        probe.due.store(probes.micros(ms(10)), Ordering::Relaxed);
        probes.all.write().push(Arc::clone(&probe));
        assert_eq!(probes.current(ms(9)), Duration::ZERO);
        assert_eq!(probes.current(ms(90)), Duration::from_millis(80));
        assert!(!probes.late_since(ms(0), ms(40)) && probes.late_since(ms(0), ms(110)));
        probe.due.store(probes.micros(ms(215)), Ordering::Relaxed);
        probe.late_at.store(probes.micros(ms(210)), Ordering::Relaxed);
        assert!(probes.late_since(ms(100), ms(215)) && !probes.late_since(ms(211), ms(215)));
    }

    #[test]
    fn a_single_late_look_is_no_lack_of_cpu() {
        let ms = Duration::from_millis;
        assert!(averaged(Duration::ZERO, ms(20)) < ms(11));
        let steady = (0..20).fold(Duration::ZERO, |average, _| averaged(average, ms(20)));
        assert!(steady > ms(19), "{steady:?}");
        assert_eq!(averaged(ms(1), ms(200)), ms(200));
        let after = (0..40).fold(ms(200), |average, _| averaged(average, Duration::ZERO));
        assert!(after < ms(5), "{after:?}");
    }

    #[tokio::test]
    async fn a_runtime_that_is_blocked_is_found_late_and_forgotten_when_it_ends() {
        let begun = Instant::now();
        let measuring = tokio::runtime::Handle::current().spawn(measure());
        tokio::time::sleep(PERIOD).await;
        std::thread::sleep(LATE + PERIOD * 2);
        assert!(late_since(begun) && current() >= LATE);
        measuring.abort();
        assert!(measuring.await.unwrap_err().is_cancelled());
    }
}

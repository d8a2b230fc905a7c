//! What processes cost, read from /proc: CPU time and resident memory.

use std::fs;

use serde::Serialize;

/// Processes under one name, as `name=pid,pid`.
#[derive(Clone, Debug)]
pub struct Group {
    /// What they are called in the report.
    pub name: String,
    pids: Vec<u32>,
}

/// What a group has used up to now.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Usage {
    /// CPU time of all threads, in microseconds.
    pub cpu_us: u64,
    /// Resident memory, in KiB; pages shared by two of its processes count twice.
    pub rss_kib: u64,
}

impl std::str::FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, pids) = text.split_once('=').ok_or("name=pid,pid is wanted")?;
        let pids: Result<_, _> = pids.split(',').map(str::parse).collect();
        Ok(Self { name: name.to_owned(), pids: pids.map_err(|error| format!("{text}: {error}"))? })
    }
}

impl Group {
    /// What it has used up to now; a process that is gone counts as nothing.
    pub fn usage(&self) -> Usage {
        self.pids.iter().fold(Usage::default(), |sum, &pid| Usage {
            cpu_us: sum.cpu_us + cpu_us(pid),
            rss_kib: sum.rss_kib + rss_kib(pid),
        })
    }
}

/// The time of the living threads, to the nanosecond; /proc/PID/stat has ticks of 10 ms alone.
fn cpu_us(pid: u32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0;
    };
    let of_thread = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    let ns: u64 = threads.flatten().filter_map(of_thread).sum();
    match ns {
        0 => ticks_us(pid),
        ns => ns / 1000,
    }
}

/// For kernels without schedstat: user and system time in ticks, a hundred a second everywhere.
fn ticks_us(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = text.rsplit(')').next().unwrap_or_default();
    let fields = after_name.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks * 10_000
}

fn rss_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

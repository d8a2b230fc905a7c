//! One of our binaries as a child process: its settings, its log, its addresses, its end.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::Value;

use crate::eventually;

/// A running (or ended) binary of the workspace; killed when dropped, and its log shown when the test failed.
pub struct Process {
    name: String,
    child: Mutex<Child>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts a binary with these environment variables and no others.
    ///
    /// # Panics
    /// When the binary was not built.
    pub fn spawn(binary: &str, arguments: &[&str], environment: &BTreeMap<String, String>) -> Self {
        let path = binary_path(binary);
        assert!(
            path.exists(),
            "{} is missing: run `cargo build --workspace` first",
            path.display()
        );
        // Past a limit of its files a write is to fail, as on a full disk, not to end the process.
        let mut child = Command::new("/bin/sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(&path)
            .args(arguments)
            .env_clear()
            .envs(environment)
            // Where an instrumented binary writes its counts (scripts/coverage.sh).
            .envs(std::env::var_os("LLVM_PROFILE_FILE").map(|file| ("LLVM_PROFILE_FILE", file)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", path.display()));
        let log = Arc::new(Mutex::new(Vec::new()));
        collect(child.stdout.take().unwrap(), &log);
        collect(child.stderr.take().unwrap(), &log);
        Self { name: binary.to_owned(), child: Mutex::new(child), log }
    }

    /// The lines that it has written so far, both streams.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The lines as one text.
    pub fn log_text(&self) -> String {
        self.log().join("\n")
    }

    /// The first line with all of these texts, once it is there: lines are written beside the answers, so a reply may come first.
    ///
    /// # Panics
    /// When there is none within 20 s.
    pub async fn log_line(&self, texts: &[&str]) -> String {
        eventually(crate::PATIENCE, &format!("{} logs {texts:?}", self.name), || async {
            self.log().into_iter().find(|line| texts.iter().all(|text| line.contains(text)))
        })
        .await
    }

    /// The address of one of its listeners, as its log says it.
    ///
    /// # Panics
    /// When it ends before, or does not say it within 20 s.
    pub async fn address(&self, service: &str, admin: bool) -> SocketAddr {
        eventually(
            crate::PATIENCE,
            &format!("{} says where {service} listens (admin: {admin})", self.name),
            || async {
                let found = self.log().iter().find_map(|line| listening(line, service, admin));
                if found.is_none()
                    && let Some(status) = self.status()
                {
                    panic!("{} ended with {status} at its start:\n{}", self.name, self.log_text());
                }
                found
            },
        )
        .await
    }

    /// How it ended, if it has.
    pub fn status(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().unwrap()
    }

    /// Waits for its end and gives the exit code (`None` where a signal ended it).
    pub async fn wait_exit(&self, limit: Duration) -> Option<i32> {
        let what = format!("{} ends", self.name);
        eventually(limit, &what, || async { self.status() }).await.code()
    }

    /// Its resident memory in bytes.
    pub fn memory(&self) -> u64 {
        self.of_status("VmRSS:")
    }

    /// The most resident memory that it ever had, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.of_status("VmHWM:")
    }

    fn of_status(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.lock().unwrap().id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap() * 1024
    }

    /// How many files, sockets among them, it has open.
    pub fn files(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.lock().unwrap().id());
        std::fs::read_dir(path).unwrap().count()
    }

    /// How many bytes a file of its may have from now on: beyond that it is as if the disk were full.
    pub fn limit_files(&self, most: Option<u64>) {
        let limit = Rlimit { current: most, maximum: None };
        prlimit(Some(self.pid()), Resource::Fsize, limit).unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child.lock().unwrap())
    }

    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGSTOP: it keeps its sockets and says nothing.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().ok();
        child.wait().ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = self.log();
            eprintln!("--- the last lines of {} ---", self.name);
            for line in log.iter().skip(log.len().saturating_sub(60)) {
                eprintln!("{line}");
            }
        }
    }
}

impl Process {
    /// Runs a binary to its end: the exit code, and everything that it wrote.
    pub async fn run(
        binary: &str,
        arguments: &[&str],
        environment: &BTreeMap<String, String>,
    ) -> (Option<i32>, String) {
        let process = Self::spawn(binary, arguments, environment);
        let code = process.wait_exit(crate::PATIENCE).await;
        // The pipes may hold the last lines for a moment after the end.
        let start = Instant::now();
        let mut before = process.log().len();
        while start.elapsed() < Duration::from_secs(1) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = process.log().len();
            if now == before && now > 0 {
                break;
            }
            before = now;
        }
        (code, process.log_text())
    }
}

/// An environment in which this machine's clock is wrong by so many seconds.
///
/// # Panics
/// When libfaketime is missing.
pub fn with_wrong_clock(
    mut environment: BTreeMap<String, String>,
    seconds: i64,
) -> BTreeMap<String, String> {
    let places = std::fs::read_dir("/usr/lib").into_iter().flatten();
    let mut libraries =
        places.filter_map(Result::ok).map(|place| place.path().join("faketime/libfaketime.so.1"));
    let library = libraries
        .find(|path| path.exists())
        .expect("libfaketime is missing: `apt-get install faketime` (scripts/test.sh does it)");
    // The monotonic clock stays right, as it does where somebody sets the time.
    for (name, value) in [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME", format!("{seconds:+}s")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ] {
        environment.insert(name.to_owned(), value);
    }
    environment
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn binary_path(name: &str) -> PathBuf {
    // …/target/debug/deps/end-to-end tests-<hash> -> …/target/debug/<name>
    let mut folder = std::env::current_exe().unwrap();
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    folder.join(name)
}

fn collect(stream: impl Read + Send + 'static, log: &Arc<Mutex<Vec<String>>>) {
    let log = Arc::clone(log);
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            log.lock().unwrap().push(String::from_utf8_lossy(&line).trim_end().to_owned());
            line.clear();
        }
    });
}

fn listening(line: &str, service: &str, admin: bool) -> Option<SocketAddr> {
    let value: Value = serde_json::from_str(line).ok()?;
    let fields = value.get("fields").unwrap_or(&value);
    let is = |name: &str, wanted: &str| match &fields[name] {
        Value::String(text) => text == wanted,
        Value::Bool(flag) => flag.to_string() == wanted,
        _ => false,
    };
    let found =
        is("message", "listening") && is("service", service) && is("admin", &admin.to_string());
    if found { fields["address"].as_str()?.parse().ok() } else { None }
}

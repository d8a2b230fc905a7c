//! One redis-server.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tempfile::TempDir;

use crate::free_port;

/// How long a start may take.
const START_LIMIT: Duration = Duration::from_secs(20);

/// The socket in its folder that nobody connects to.
const SOCKET: &str = "redis.sock";

/// How a Sentinel's refusal of QUIT ends.
const NO_QUIT: &[u8] = b"'QUIT', with args beginning with: \r\n";

/// A running server; killed when dropped.
pub struct RedisServer {
    child: Mutex<Child>,
    port: u16,
    dir: TempDir,
    args: Mutex<Vec<String>>,
}

impl RedisServer {
    /// Starts one with further settings (`--name value …`), and waits until it answers.
    ///
    /// # Panics
    /// When there is no redis-server on this machine; the message says how to get it.
    pub fn start(args: &[&str]) -> Self {
        Self::start_with(args, |_| {})
    }

    /// The same, after its folder was filled.
    pub fn start_with(args: &[&str], fill: impl Fn(&Path)) -> Self {
        // Another process may take the port in between; then there is another.
        for _ in 0..5 {
            if let Some(server) = Self::try_start(free_port(), args, &fill) {
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    /// Starts one on a port that was chosen before.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_on(port: u16, args: &[&str]) -> Self {
        Self::try_start(port, args, &|_| {}).expect("redis-server starts")
    }

    pub(crate) fn try_start(port: u16, args: &[&str], fill: &impl Fn(&Path)) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a folder");
        fill(dir.path());
        let tls_port = crate::tls_port(port).to_string();
        // Word by word: before 7.0 an argument of several words is one value.
        let words = args.iter().flat_map(|arg| match *arg {
            "" => vec![""],
            arg => arg.split(' ').collect(),
        });
        let args: Vec<_> = words.map(|arg| arg.replace("{tls-port}", &tls_port)).collect();
        let server =
            Self { child: Mutex::new(spawn(port, &dir, &args)), port, dir, args: Mutex::new(args) };
        server.answers().then_some(server)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its address as a setting.
    pub fn url(&self) -> String {
        self.url_as("")
    }

    /// Its address for a client that logs in with `login` (`user:password@`).
    pub fn url_as(&self, login: &str) -> String {
        format!("redis://{login}127.0.0.1:{}/0", self.port)
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().ok();
        child.wait().ok();
    }

    /// Starts it again after [`Self::kill`], on the same port and folder.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&self) {
        self.restart_unready();
        assert!(self.answers(), "redis-server does not start again");
    }

    /// The same, without waiting until it answers.
    pub fn restart_unready(&self) {
        self.kill();
        *self.child.lock().unwrap() = spawn(self.port, &self.dir, &self.args.lock().unwrap());
    }

    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a signal");
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child.lock().unwrap())
    }

    /// How many bytes a file of its may have: what comes after that fails as on a full disk.
    pub fn limit_files(&self, most: Option<u64>) {
        let limit = Rlimit { current: most, maximum: None };
        prlimit(Some(self.pid()), Resource::Fsize, limit).expect("its limit can be set");
    }

    /// Sends one command on a connection of its own, and gives its answer as it stands.
    ///
    /// # Panics
    /// Where it does not answer.
    pub fn tell(&self, command: &str) -> String {
        self.try_tell(command).expect("an answer of redis-server")
    }

    /// The same, after a login as the default user.
    ///
    /// # Panics
    /// Where it does not answer, or refuses the login.
    pub fn tell_as(&self, password: &str, command: &str) -> String {
        let answer = self.tell(&format!("AUTH {password}\r\n{command}"));
        answer.strip_prefix("+OK\r\n").expect("a login").to_owned()
    }

    /// The same as [`Self::tell`]; `None` where nobody listens.
    pub fn tell_if_up(&self, command: &str) -> Option<String> {
        self.try_tell(command).ok()
    }

    /// Makes its folder one that takes no new file.
    ///
    /// # Panics
    /// When the folder cannot be changed.
    pub fn break_saving(&self) {
        let name = self.dir.path().join("dump.rdb");
        std::fs::remove_file(&name).ok();
        // A folder under the name of the file: even root cannot replace it by a rename.
        std::fs::create_dir(&name).expect("a folder");
    }

    /// From the next start on, loads each key for so long.
    pub fn slow_loading(&self, micros: u32) {
        self.args.lock().unwrap().extend([
            "--key-load-delay".into(),
            micros.to_string(),
            "--loading-process-events-interval-bytes".into(),
            "1024".into(),
        ]);
    }

    fn try_tell(&self, command: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
        let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            let read = stream.read(&mut chunk)?;
            answer.extend_from_slice(&chunk[..read]);
            // A Sentinel does not know QUIT, and keeps the connection.
            if read == 0 || answer.ends_with(NO_QUIT) {
                break;
            }
        }
        let answer = String::from_utf8_lossy(&answer);
        let quit = answer.rfind("-ERR unknown command 'QUIT'");
        let answer = &answer[..quit.unwrap_or(answer.len())];
        // The last +OK is QUIT's.
        Ok(answer.strip_suffix("+OK\r\n").unwrap_or(answer).trim_end().to_owned())
    }

    /// Whether it answers. On its port another server may: that one was faster, and this one is about to end. So the answer counts once
    /// this one has its socket, which it makes after it has its port; a Sentinel has none.
    fn answers(&self) -> bool {
        let has_port =
            || is_sentinel(&self.args.lock().unwrap()) || self.dir.path().join(SOCKET).exists();
        let begun = Instant::now();
        while begun.elapsed() < START_LIMIT {
            if self.child.lock().unwrap().try_wait().unwrap().is_some() {
                return false;
            }
            let is_up =
                |answer: String| answer.starts_with("+PONG") || answer.starts_with("-NOAUTH");
            if has_port() && self.try_tell("PING").is_ok_and(is_up) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_sentinel(args: &[String]) -> bool {
    args.iter().any(|arg| arg == "--sentinel")
}

fn spawn(port: u16, dir: &TempDir, args: &[String]) -> Child {
    let program = std::env::var("TEST_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
    // Past a limit of its files a write is to fail, as on a full disk, not to end the process.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh", &program]);
    let is_sentinel = is_sentinel(args);
    let socket = dir.path().join(SOCKET);
    std::fs::remove_file(&socket).ok();
    if is_sentinel {
        command.arg(dir.path().join("sentinel.conf"));
    }
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
    command.arg("--dir").arg(dir.path());
    if !is_sentinel {
        command.args(["--save", "", "--appendonly", "no", "--unixsocket"]).arg(socket);
    }
    let started =
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let found = started.is_ok() && Command::new(&program).arg("--version").output().is_ok();
    assert!(
        found,
        "{program} cannot be started; install it: apt-get install redis-server, dnf install redis, or brew install redis"
    );
    started.unwrap()
}

//! A redis-server of its own for a test, on a free port, in a folder that goes with it.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use common::config::StoreUrl;
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

/// A running server; killed when dropped.
pub struct RedisServer {
    child: Child,
    port: u16,
    dir: TempDir,
    args: Vec<String>,
}

/// A port that was free just now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}

impl RedisServer {
    /// Starts one with further settings (`--name value …`), and waits until it answers.
    pub fn start(args: &[&str]) -> Self {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        // Another process may take the port in between; then there is another.
        for _ in 0..5 {
            let (port, dir) = (free_port(), tempfile::tempdir().expect("a folder"));
            let child = spawn(port, &dir, &args);
            let mut server = Self {
                child,
                port,
                dir,
                args: args.clone(),
            };
            if server.answers() {
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    /// Starts one on a port that was chosen before.
    pub fn start_on(port: u16) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let child = spawn(port, &dir, &[]);
        let mut server = Self {
            child,
            port,
            dir,
            args: Vec::new(),
        };
        assert!(server.answers(), "redis-server does not start");
        server
    }

    pub fn url(&self) -> StoreUrl {
        url(self.port, "")
    }

    /// Its address for a client that logs in with `login` (`user:password@`).
    pub fn url_as(&self, login: &str) -> StoreUrl {
        url(self.port, login)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }

    /// Starts it again after [`Self::kill`], on the same port and folder.
    pub fn restart(&mut self) {
        self.restart_unready();
        assert!(self.answers(), "redis-server does not start again");
    }

    /// The same, without waiting until it answers.
    pub fn restart_unready(&mut self) {
        self.child = spawn(self.port, &self.dir, &self.args);
    }

    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("a signal");
    }

    /// Sends one command on a connection of its own, and gives its answer as it stands.
    pub fn tell(&self, command: &str) -> String {
        self.try_tell(command).expect("an answer of redis-server")
    }

    /// The same, after a login as the default user.
    pub fn tell_as(&self, password: &str, command: &str) -> String {
        let answer = self.tell(&format!("AUTH {password}\r\n{command}"));
        answer.strip_prefix("+OK\r\n").expect("a login").to_owned()
    }

    /// The same as [`Self::tell`]; `None` where nobody listens.
    pub fn tell_if_up(&self, command: &str) -> Option<String> {
        self.try_tell(command).ok()
    }

    /// Makes its folder one that takes no new file.
    pub fn break_saving(&self) {
        let name = self.dir.path().join("dump.rdb");
        std::fs::remove_file(&name).ok();
        // A folder under the name of the file: even root cannot replace it by a rename.
        std::fs::create_dir(&name).expect("a folder");
    }

    /// From the next start on, loads each key for so long.
    pub fn slow_loading(&mut self, micros: u32) {
        self.args.extend([
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
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        // The last +OK is QUIT's.
        Ok(answer
            .strip_suffix("+OK\r\n")
            .unwrap_or(&answer)
            .trim_end()
            .to_owned())
    }

    fn answers(&mut self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10) {
            if self.child.try_wait().expect("a child").is_some() {
                return false;
            }
            if self
                .try_tell("PING")
                .is_ok_and(|answer| answer.starts_with("+PONG") || answer.starts_with("-NOAUTH"))
            {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub fn url(port: u16, login: &str) -> StoreUrl {
    StoreUrl::Redis(format!("redis://{login}127.0.0.1:{port}/0").into())
}

fn spawn(port: u16, dir: &TempDir, args: &[String]) -> Child {
    let started = Command::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ])
        .arg("--dir")
        .arg(dir.path())
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    started.unwrap_or_else(|error| {
        panic!(
            "redis-server cannot be started ({error}); install it: apt-get install redis-server, \
             dnf install redis, or brew install redis"
        )
    })
}

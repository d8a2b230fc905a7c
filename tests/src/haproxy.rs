//! An HAProxy of its own, with the project's configuration for it.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{eventually, free_port, raw};

const MISSING: &str = "haproxy is missing: `apt-get install haproxy` (scripts/test.sh does it)";

/// A running HAProxy in front of two instances; killed when dropped.
pub struct Haproxy {
    child: Child,
    address: SocketAddr,
}

impl Haproxy {
    /// Starts `deploy/haproxy.cfg` and waits until an instance is ready behind it.
    ///
    /// # Panics
    /// When there is no haproxy on this machine; the message says how to get it.
    pub async fn start(chats: [SocketAddr; 2]) -> Self {
        let address: SocketAddr = format!("127.0.0.1:{}", free_port()).parse().unwrap();
        let configuration = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/haproxy.cfg");
        let started = Command::new("haproxy")
            .args(["-db", "-f"])
            .arg(configuration)
            .env("LISTEN", address.to_string())
            .env("CHAT_1", chats[0].to_string())
            .env("CHAT_2", chats[1].to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match started {
            Err(error) if error.kind() == ErrorKind::NotFound => panic!("{MISSING}"),
            started => started.unwrap(),
        };
        let haproxy = Self { child, address };
        haproxy.wait_up().await;
        haproxy
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    async fn wait_up(&self) {
        eventually(Duration::from_secs(20), "haproxy has an instance that is ready", || async {
            tokio::net::TcpStream::connect(self.address).await.ok()?;
            let reply = raw::ask(
                self.address,
                "GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
            )
            .await;
            (reply.status == 200).then_some(())
        })
        .await;
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

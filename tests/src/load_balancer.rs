//! HAProxy and nginx in front of two instances, with the project's configurations for them.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{eventually, free_port, raw};

/// One of them, running; killed when dropped.
pub struct LoadBalancer {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl LoadBalancer {
    /// Starts HAProxy with `deploy/haproxy.cfg` and waits until an instance is ready behind it.
    ///
    /// # Panics
    /// When there is no HAProxy on this machine; the message says how to get it.
    pub async fn haproxy(chats: [SocketAddr; 2]) -> Self {
        let address = local_address();
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f"]).arg(deploy("haproxy.cfg")).env("LISTEN", address.to_string());
        command.env("CHAT_1", chats[0].to_string()).env("CHAT_2", chats[1].to_string());
        Self::start(command, address, tempfile::tempdir().unwrap()).await
    }

    /// The same with nginx and `deploy/compose/nginx.conf`.
    ///
    /// # Panics
    /// When there is no nginx on this machine; the message says how to get it.
    pub async fn nginx(chats: [SocketAddr; 2]) -> Self {
        let (address, folder) = (local_address(), tempfile::tempdir().unwrap());
        let mut settings = std::fs::read_to_string(deploy("compose/nginx.conf")).unwrap();
        for (name, there) in [("chat:9002", chats[0]), ("chat-2:9002", chats[1]), ("8080", address)]
        {
            assert!(settings.contains(name), "{name}");
            settings = settings.replace(&format!(" {name}"), &format!(" {there}"));
        }
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, settings).unwrap();
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("nginx");
        command.env("PATH", path).arg("-p").arg(folder.path()).arg("-c").arg(file);
        command.args(["-e", "stderr", "-g", "daemon off; pid nginx.pid; master_process off;"]);
        Self::start(command, address, folder).await
    }

    async fn start(mut command: Command, address: SocketAddr, folder: TempDir) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = match command.spawn() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                panic!("{:?} is missing: scripts/test.sh installs it", command.get_program())
            }
            started => started.unwrap(),
        };
        let balancer = Self { child, address, _folder: folder };
        balancer.wait_up().await;
        balancer
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    async fn wait_up(&self) {
        eventually(Duration::from_secs(20), "there is an instance that is ready", || async {
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

impl Drop for LoadBalancer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn local_address() -> SocketAddr {
    format!("127.0.0.1:{}", free_port()).parse().unwrap()
}

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file)
}

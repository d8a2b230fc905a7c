//! Certificates for servers that speak TLS.

use std::{path::PathBuf, process::Command};

use tempfile::TempDir;

use crate::RedisServer;

/// An authority, and a certificate for `127.0.0.1` that it has signed.
pub struct Certificates(TempDir);

impl Default for Certificates {
    fn default() -> Self {
        const MAKE: &str = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem \
             && openssl req -newkey rsa:2048 -nodes -subj /CN=redis -keyout node.key -out node.csr \
             && echo subjectAltName=IP:127.0.0.1 > names \
             && openssl x509 -req -in node.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out node.pem";
        let dir = tempfile::tempdir().expect("a folder");
        let made = Command::new("sh").args(["-c", MAKE]).current_dir(dir.path()).output();
        let made = made.expect("a shell");
        assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
        Self(dir)
    }
}

impl Certificates {
    /// Whether the redis-server of this machine was built with TLS.
    pub fn can_be_used() -> bool {
        RedisServer::try_start(crate::free_port(), &["--tls-replication", "no"], &|_| {}).is_some()
    }

    /// The authority's certificate, a file for `SSL_CERT_FILE`.
    pub fn authority(&self) -> PathBuf {
        self.0.path().join("ca.pem")
    }

    /// What a server is started with that also listens for TLS, on [`crate::tls_port`], and speaks it with other servers.
    pub(crate) fn args(&self) -> Vec<String> {
        let file = |name: &str| self.0.path().join(name).display().to_string();
        let args = [
            ("--tls-port", "{tls-port}".to_owned()),
            ("--tls-cert-file", file("node.pem")),
            ("--tls-key-file", file("node.key")),
            ("--tls-ca-cert-file", file("ca.pem")),
            ("--tls-auth-clients", "no".to_owned()),
            ("--tls-replication", "yes".to_owned()),
        ];
        args.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }
}

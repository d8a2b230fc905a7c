//! `healthcheck`: asks the service that runs with the same settings whether it is ready.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Builder,
};

use crate::config::{Binary, Settings};

const TIMEOUT: Duration = Duration::from_secs(2);
/// The most bytes that are read of an answer.
const MAX_ANSWER: u64 = 16 * 1024;

/// Asks `/readyz` of every service in this binary, on the admin listener, over loopback where it listens everywhere.
pub(super) fn healthcheck(binary: Binary, settings: &Settings) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let all = async {
            for (setting, listener) in settings.listeners(binary) {
                if setting.ends_with(".admin_listen") {
                    ready(reachable(listener)).await?;
                }
            }
            Ok(())
        };
        tokio::time::timeout(TIMEOUT, all).await.context("no answer within 2 s")?
    })
}

pub(super) async fn answers_health(address: SocketAddr) -> bool {
    let asked = async {
        let answer = get(address, "/health").await?;
        anyhow::Ok(answer.contains("service is running!"))
    };
    let answered = tokio::time::timeout(TIMEOUT, asked).await;
    matches!(answered, Ok(Ok(true)))
}

async fn ready(address: SocketAddr) -> anyhow::Result<()> {
    let answer = get(address, "/readyz").await?;
    let status = answer.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim();
    anyhow::bail!("{address} is not ready: {status} {body}")
}

async fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("cannot connect to {address}"))?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: healthcheck\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The address of a listener as seen from its own machine.
pub(super) fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listener.port())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// What `ready` makes of this answer.
    async fn asked(answer: &'static [u8]) -> anyhow::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let n = stream.read(&mut head).await.unwrap();
            assert!(head[..n].starts_with(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:"));
            stream.write_all(answer).await.unwrap();
        };
        tokio::join!(super::ready(address), answers).0
    }

    #[tokio::test]
    async fn a_service_that_answers_200_is_ready() {
        asked(b"HTTP/1.1 200 OK\r\n\r\n{}").await.unwrap();
    }

    #[tokio::test]
    async fn a_service_that_misses_something_is_not_ready_and_says_what() {
        let error = asked(b"HTTP/1.1 503 Service Unavailable\r\n\r\n{\"missing\": \"store\"}")
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("503") && error.to_string().contains("store"),
            "{error}"
        );
    }

    #[test]
    fn a_listener_on_every_address_is_asked_over_loopback() {
        for (listener, asked) in [
            ("0.0.0.0:9101", "127.0.0.1:9101"),
            ("[::]:9101", "[::1]:9101"),
            ("10.1.2.3:9101", "10.1.2.3:9101"),
        ] {
            let listener: SocketAddr = listener.parse().unwrap();
            assert_eq!(super::reachable(listener).to_string(), asked);
        }
    }
}

//! A proxy that adds the key to every request, as an operator sets one up for programs that send none.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::Service;

/// Starts one in front of a service; it takes one request a connection.
pub(crate) async fn start(service: &Service) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (to, key) = (service.app.chat(0), service.key.clone());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let key = key.clone();
            tokio::spawn(async move { forward(client, to, &key).await });
        }
    });
    address
}

async fn forward(mut client: TcpStream, to: SocketAddr, key: &str) -> std::io::Result<()> {
    let mut head = Vec::new();
    let end = loop {
        if client.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
    };
    let mut server = TcpStream::connect(to).await?;
    server.write_all(&head[..end]).await?;
    let added = format!("\r\nAuthorization: Bearer {key}\r\nConnection: close");
    server.write_all(added.as_bytes()).await?;
    server.write_all(&head[end..]).await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

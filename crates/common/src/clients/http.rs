//! HTTP clients with their timeouts: one kind for model servers, one for `auth`.

use std::{sync::Arc, time::Duration};

use reqwest::{Client, ClientBuilder, redirect::Policy};
use thread_local::ThreadLocal;

const USER_AGENT: &str = concat!("chatbot/", env!("CARGO_PKG_VERSION"));
/// Shorter than the 5 s after which Python model servers close an idle connection, so that a request seldom goes into a closing one.
const MODEL_IDLE: Duration = Duration::from_secs(4);
/// Well below the 75 s for which `auth` keeps an idle connection.
const AUTH_IDLE: Duration = Duration::from_secs(15);
const AUTH_CONNECT: Duration = Duration::from_secs(2);
/// For a whole call of `auth`, where hashing a password may wait in a queue.
const AUTH_TOTAL: Duration = Duration::from_secs(20);
/// A silent connection is closed after this, and three probes at the same interval.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// A client for a model server, without a timeout for the answer: the turn has its own. Fails where the system has no certificate store that can be read.
pub fn model_server(connect_timeout: Duration) -> Result<PerThread, reqwest::Error> {
    let make =
        move || plain().connect_timeout(connect_timeout).pool_idle_timeout(MODEL_IDLE).build();
    let unpooled = plain().connect_timeout(connect_timeout).pool_max_idle_per_host(0).build()?;
    let (first, own) = (make()?, ThreadLocal::new());
    own.get_or(|| first.clone());
    Ok(PerThread(Arc::new(Clients { first, unpooled, own, make: Box::new(make) })))
}

/// One client for each thread that uses it. A connection is driven by the thread that opened it; with its own connections
/// a thread never waits for another one. Cheap to clone.
#[derive(Clone)]
pub struct PerThread(Arc<Clients>);

struct Clients {
    first: Client,
    unpooled: Client,
    own: ThreadLocal<Client>,
    make: Box<dyn Fn() -> Result<Client, reqwest::Error> + Send + Sync>,
}

impl PerThread {
    pub fn here(&self) -> &Client {
        let Clients { first, own, make, .. } = &*self.0;
        // Building the same client again fails only without memory or certificates; the first one still has both.
        own.get_or(|| make().unwrap_or_else(|_| first.clone()))
    }

    /// A client that opens a new connection for every request.
    pub fn unpooled(&self) -> &Client {
        &self.0.unpooled
    }
}

/// A client for `auth`. A whole call takes 20 s at most; a caller may ask for less.
/// Fails where the system has no certificate store that can be read.
pub fn auth() -> Result<Client, reqwest::Error> {
    plain().connect_timeout(AUTH_CONNECT).timeout(AUTH_TOTAL).pool_idle_timeout(AUTH_IDLE).build()
}

/// A client for a collector of traces. A whole call takes `timeout` at most. Fails as [`auth`] does.
pub(crate) fn collector(timeout: Duration) -> Result<Client, reqwest::Error> {
    plain().timeout(timeout).pool_idle_timeout(AUTH_IDLE).build()
}

/// Clients connect where the settings say and nowhere else: they follow no redirect, which would carry a prompt or a key
/// elsewhere, and ignore proxy variables.
#[expect(clippy::disallowed_methods, reason = "this is the home of HTTP clients")]
fn plain() -> ClientBuilder {
    Client::builder()
        .user_agent(USER_AGENT)
        .redirect(Policy::none())
        .no_proxy()
        .referer(false)
        .tcp_nodelay(true)
        .tcp_keepalive(KEEPALIVE)
        .tcp_keepalive_interval(KEEPALIVE)
        .tcp_keepalive_retries(3)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// Answers one request with these bytes and gives back what was asked.
    async fn one_answer(answer: &'static [u8]) -> (String, impl Future<Output = String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let asked = async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let n = stream.read(&mut head).await.unwrap();
            stream.write_all(answer).await.unwrap();
            String::from_utf8_lossy(&head[..n]).into_owned()
        };
        (url, asked)
    }

    #[tokio::test]
    async fn a_redirect_is_handed_back_and_not_followed() {
        let moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/elsewhere\r\nContent-Length: 0\r\n\r\n";
        let (url, asked) = one_answer(moved).await;
        let client = super::model_server(Duration::from_secs(2)).unwrap();
        let (answer, asked) = tokio::join!(client.here().get(url).send(), asked);
        assert_eq!(answer.unwrap().status(), 302);
        assert!(asked.contains("user-agent: chatbot/"), "{asked}");
    }
}

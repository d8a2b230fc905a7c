//! The HTTP clients, with their timeouts.

use std::time::Duration;

/// A client for a server that streams: time to connect, no total time, no redirects, no proxy.
///
/// # Errors
/// Where TLS cannot be set up.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the home of HTTP clients"
)]
pub fn streaming(connect_timeout: Duration) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .connect_timeout(connect_timeout)
        .pool_idle_timeout(Duration::from_secs(15))
        .redirect(reqwest::redirect::Policy::none())
        .tcp_nodelay(true)
        .no_proxy()
        .user_agent(concat!("chatbot/", env!("CARGO_PKG_VERSION")))
        .build()
}

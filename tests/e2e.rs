//! End-to-end tests: the compiled binaries against a real Redis and fault-injecting fake model servers. One file a feature;
//! `tests::` is the test-support crate.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and it is a client"
)]

/// Runs a test on Redis (`auth` and `chat`) and on the embedded store (`chatbot`).
macro_rules! on_both_stores {
    ($($test:ident),* $(,)?) => {$(
        mod $test {
            #[tokio::test]
            async fn on_redis() {
                super::$test(tests::Backend::Redis).await;
            }

            #[tokio::test]
            async fn embedded() {
                super::$test(tests::Backend::Embedded).await;
            }
        }
    )*};
}

mod auth;
mod chat;
mod common;

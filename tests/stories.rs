//! The stories: what the services promise, told through their doors. One file a story; `tests::` is the harness.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a story fails by panicking, and it is a client"
)]

/// Tells a story on Redis (`auth` and `chat`) and on the embedded store (`chatbot`).
macro_rules! on_both_stores {
    ($($story:ident),* $(,)?) => {$(
        mod $story {
            #[tokio::test]
            async fn on_redis() {
                super::$story(tests::Backend::Redis).await;
            }

            #[tokio::test]
            async fn embedded() {
                super::$story(tests::Backend::Embedded).await;
            }
        }
    )*};
}

mod auth;
mod chat;
mod common;

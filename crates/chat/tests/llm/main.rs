//! The model servers as the chat service sees them, told against real servers that misbehave on purpose.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that fails fails its test"
)]

mod cancellation;
mod failover;
mod fixtures;
mod routing;
mod scheduling;
mod server;
mod support;
mod timeouts;

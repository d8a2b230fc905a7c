//! Tests of the model layer against fake model servers that send recorded and faulty bytes.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]

mod cancellation;
mod embeddings;
mod failover;
mod fixtures;
mod models;
mod odd_answers;
mod routing;
mod scheduling;
mod server;
mod support;
mod timeouts;

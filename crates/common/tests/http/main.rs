//! The HTTP house through its door: a router on port 0, raw TCP clients and a real HTTP client.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a harness that cannot go on says so at once"
)]

mod connections;
mod endings;
mod extractors;
mod layers;
mod operations;
mod rate_limit;
mod routes;
mod site;

//! Shared by both services: settings, clients, the store, errors, identity, rate limits and the HTTP server.
//!
//! `auth` and `chat` depend on this crate and never on each other.

pub mod cli;
pub mod clients;
pub mod clock;
pub mod config;
pub mod errors;
pub mod http;
pub mod identity;
pub mod model_name;
pub mod otel;
pub mod rate_limiter;
pub mod scheduling_delay;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod workers;

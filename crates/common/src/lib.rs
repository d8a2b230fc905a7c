//! What both services share: settings, clients, the storage seam, errors, identity, limits and the HTTP layers.
//!
//! It knows nothing of either service; `auth` and `chat` depend on it and never on each other.

pub mod cli;
pub mod clients;
pub mod clock;
pub mod config;
pub mod errors;
pub mod http;
pub mod identity;
pub mod rate_limiter;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod workers;

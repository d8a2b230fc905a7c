//! The HTTP server of both services.
//!
//! A service makes a router, [`wrap`]s it in the common layers and [`serve`]s it:
//! * `serve`, `connection_limiter`, `timeout_io`, `request_body`, `request_boundary`: connections, their caps and their time limits;
//! * `layers` and its rules: `load_shedder`, `request_id`, `client_ip`, `deadline`, `access_log`, `limits`, `hosts`, `cors`, `problem`;
//! * [`health`], [`admin`], [`docs`], [`metrics`]: routes and metrics that both services have.

mod access_log;
pub mod admin;
mod check_failure;
mod client_ip;
mod connection_limiter;
mod cors;
mod deadline;
pub mod docs;
pub mod health;
mod hosts;
mod layers;
mod limits;
mod load_shedder;
pub mod metrics;
mod openapi;
mod problem;
mod request_body;
mod request_boundary;
mod request_id;
mod serve;
mod timeout_io;

pub use check_failure::CheckFailure;
pub use client_ip::{ClientIp, network};
pub use cors::is_same_origin;
pub use deadline::Deadline;
pub use hosts::HostPolicy;
pub use layers::{Layers, wrap};
pub use limits::{BodyError, BodyLimit, RequestLimits};
pub use load_shedder::{CallerHash, LoadShedder, RequestPermit};
pub use openapi::{add_bearer, complete_openapi, operations};
pub use problem::{ErrorShape, ShapedError};
pub use request_id::{RequestId, X_REQUEST_ID};
pub use serve::{ConnectionLimits, serve, serve_public_and_admin};

//! The HTTP house: the serve loop, the layers round every route (outermost first), health, access log.
//!
//! A service makes a router, [`wrap`]s it in the common layers and [`serve`]s it:
//! * `serve`, `door`, `patience`, `pipelined`: connections, their caps, and an end to every wait for the other side;
//! * `layers` and its rules: `request_id`, `client_ip`, `deadline`, `access_log`, `limits`, `hosts`, `cors`, `problem`;
//! * [`health`], [`admin`], [`docs`], [`metrics`]: routes and measurements that both services have.

mod access_log;
pub mod admin;
mod client_ip;
mod connection_limiter;
mod cors;
mod deadline;
pub mod docs;
pub mod health;
mod hosts;
mod layers;
mod limits;
mod listeners;
pub mod metrics;
mod openapi;
mod problem;
mod request_boundary;
mod request_id;
mod serve;
mod timeout_io;

pub use client_ip::ClientIp;
pub(crate) use connection_limiter::network;
pub use deadline::Deadline;
pub use hosts::HostPolicy;
pub use layers::{Layers, wrap};
pub use limits::{BodyError, RequestLimits};
pub use listeners::serve_public_and_admin;
pub use openapi::complete_openapi;
pub use problem::ErrorShape;
pub use request_id::{RequestId, X_REQUEST_ID};
pub use serve::{ConnectionLimits, serve};

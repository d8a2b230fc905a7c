//! The HTTP house: the serve loop, the layers round every route (outermost first), health, access log.
//!
//! A service makes a router, [`wrap`]s it in the common layers and [`serve`]s it:
//! * `serve`, `door`, `patience`, `pipelined`: connections, their caps, and an end to every wait for the other side;
//! * `layers` and its rules: `request_id`, `peer`, `deadline`, `access_log`, `limits`, `hosts`, `cors`, `problem`;
//! * [`health`], [`admin`], [`docs`], [`metrics`]: routes and measurements that both services have.

mod access_log;
pub mod admin;
mod cors;
mod deadline;
mod described;
pub mod docs;
mod door;
pub mod health;
mod hosts;
mod layers;
mod limits;
pub mod metrics;
mod pair;
mod patience;
mod peer;
mod pipelined;
mod problem;
mod request_id;
mod serve;

pub use deadline::Deadline;
pub use described::described;
pub(crate) use door::network;
pub use hosts::Hosts;
pub use layers::{Layers, wrap};
pub use limits::{BodyError, RequestLimits};
pub use pair::serve_pair;
pub use peer::Peer;
pub use problem::ErrorShape;
pub use request_id::{RequestId, X_REQUEST_ID};
pub use serve::{ConnectionLimits, serve};

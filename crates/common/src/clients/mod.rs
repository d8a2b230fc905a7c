//! The only place that builds clients of other processes.

pub mod http;
pub mod redis;

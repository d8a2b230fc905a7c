//! The only places that build a client of something outside this process.

pub mod http;
pub mod redis;

//! The event log of a turn: written by its task, read by subscribers here and on other instances.

pub mod log;
pub mod remote_tail;
mod replicator;

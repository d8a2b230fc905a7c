//! The event log of a turn: written by its task, read by subscribers here and, through the store, on other instances.

pub(crate) mod answer;
pub mod inbox;
pub mod log;
pub mod recovery;
pub mod registry;
pub mod remote_tail;
pub mod replay;
pub mod replicator;

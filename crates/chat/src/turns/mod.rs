//! Turns: one message and its answer, from the request to the last event.

mod commit;
mod finalize;
mod idempotency;
mod plan;
pub mod prompt;
pub mod request;
mod resume;
pub mod service;
mod session_cache;
pub mod session_queue;
mod slot_waiter;
mod task;

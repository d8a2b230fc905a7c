//! The rules of the chat service; nothing here knows of HTTP.

mod accept;
pub mod account;
pub mod attach;
pub mod begin;
pub mod completions;
pub mod context;
pub mod event;
pub mod follow;
mod keyed;
pub mod lanes;
pub mod llm;
pub mod log;
pub mod mirror;
mod plan;
pub mod sessions;
pub mod turn;
pub mod turns;

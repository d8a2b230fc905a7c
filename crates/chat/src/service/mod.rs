//! The rules of the chat service; nothing here knows of HTTP.

mod accept;
pub mod account;
pub mod attach;
pub mod begin;
mod close;
pub mod completions;
pub mod context;
mod draft;
pub mod error;
pub mod event;
pub mod follow;
mod heads;
mod keyed;
pub mod lanes;
pub mod llm;
pub mod log;
pub mod mirror;
mod plan;
pub mod sessions;
pub mod turn;
pub mod turns;

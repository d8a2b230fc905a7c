//! The rules of the chat service; nothing here knows of HTTP.

pub mod account;
pub mod attach;
pub mod begin;
pub mod completions;
pub mod context;
pub mod event;
pub mod follow;
pub mod lanes;
pub mod llm;
pub mod log;
pub mod mirror;
pub mod sessions;
pub mod turn;
pub mod turns;

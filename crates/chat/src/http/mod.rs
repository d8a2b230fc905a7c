//! The HTTP API: translates between wire formats and the services.

pub mod auth_proxy;
pub mod collect;
pub mod dto;
pub mod encode;
pub mod error;
pub mod export;
pub mod messages;
pub mod models;
pub mod openai;
pub mod requests;
pub mod router;
pub mod sessions;
pub mod sse;
pub mod usage;
pub mod validation;
pub mod web_ui;
pub mod ws;

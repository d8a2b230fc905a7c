//! The HTTP API: translates between wire formats and the services.

pub mod anthropic;
pub mod auth_proxy;
pub mod dto;
pub mod embeddings;
pub mod encode;
pub mod error;
pub mod event_schema;
pub mod export;
mod header_list;
pub mod inference;
pub mod messages;
pub mod models;
pub mod not_found;
pub mod ollama;
pub mod openai;
pub mod requests;
pub mod router;
pub mod sent_message;
pub mod sessions;
pub mod sse;
pub mod usage;
pub mod v1_models;
pub mod validation;
pub mod web_ui;
pub mod ws;

use std::sync::Arc;

use common::{errors::Problem, http::ErrorShape};

/// The shape of errors on the paths of other APIs.
pub fn error_shape(ollama_api: bool) -> ErrorShape {
    let mut shapes = vec![anthropic::error::shape(), openai::error::shape()];
    if ollama_api {
        shapes.push(ollama::error_shape());
    }
    Arc::new(move |path: &str, problem: &Problem| {
        shapes.iter().find_map(|shape| shape(path, problem))
    })
}

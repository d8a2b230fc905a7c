//! What is known of a model, as callers see it.

use std::sync::Arc;

use common::config::ProviderKind;

use crate::llm::{error::Feature, request::ChatRequest};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    pub id: String,
    pub provider: ProviderKind,
    /// The window that it is asked with, in tokens.
    pub window: u32,
    /// Whether it answers where nobody names a model.
    pub is_default: bool,
    /// What it can do, where its server tells.
    pub capabilities: Option<Capabilities>,
    pub facts: Arc<ModelFacts>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// It answers chats; embedding models do not.
    pub completion: bool,
    pub vision: bool,
    pub tools: bool,
    pub thinking: bool,
    pub embedding: bool,
}

impl Capabilities {
    /// What the request needs that a model of these lacks.
    pub(super) fn lacking(self, request: &ChatRequest) -> Option<Feature> {
        let extras = request.messages.iter().filter_map(|message| message.extra.as_ref());
        let mut parts = extras.filter_map(|extra| extra.get("content")?.as_array()).flatten();
        if !self.vision && parts.any(|part| part["type"] == "image_url") {
            return Some(Feature::Images);
        }
        (!self.tools && request.functions().next().is_some()).then_some(Feature::Tools)
    }
}

/// What a server tells of a model beside that: an Ollama much, others nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelFacts {
    pub digest: Option<String>,
    /// In bytes.
    pub size: Option<u64>,
    /// RFC 3339.
    pub modified_at: Option<String>,
    pub format: Option<String>,
    pub family: Option<String>,
    pub parameter_size: Option<String>,
    pub quantization: Option<String>,
    pub embedding_length: Option<u32>,
}

/// A model that a server holds in its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedModel {
    pub model: Model,
    /// Until when, RFC 3339; `None` where the server does not tell.
    pub expires_at: Option<String>,
}

impl Model {
    /// Whether it answers chats, as far as is known; embedding models do not.
    pub fn can_chat(&self) -> bool {
        self.capabilities.is_none_or(|all| all.completion)
    }
}

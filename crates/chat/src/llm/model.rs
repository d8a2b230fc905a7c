//! What is known of a model, as callers see it.

use std::sync::Arc;

use common::config::ProviderKind;

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

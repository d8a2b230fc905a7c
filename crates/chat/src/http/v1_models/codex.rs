//! The models as Codex reads them: one member that it misses, and it takes none of them.

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::llm;

/// What Codex tells a model where it has no instructions of its own for it.
const INSTRUCTIONS: &str = "You are a coding agent that runs in the Codex CLI, on the user's computer. Work in the user's \
    workspace with the tools that you are given: read before you change, make the smallest change that does what was asked, \
    check it by running what the project has for that, and say in a few sentences what you did. Ask before anything that \
    cannot be undone.";

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CodexModel {
    slug: String,
    display_name: String,
    description: Option<String>,
    /// The window that it is asked with, in tokens.
    context_window: u32,
    base_instructions: &'static str,
    /// What stays the same for all models.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    constants: Value,
}

impl From<&llm::Model> for CodexModel {
    fn from(model: &llm::Model) -> Self {
        Self {
            slug: model.id.clone(),
            display_name: model.id.clone(),
            description: None,
            context_window: model.window,
            base_instructions: INSTRUCTIONS,
            constants: json!({
                "supported_reasoning_levels": [],
                "shell_type": "shell_command",
                "visibility": "list",
                "supported_in_api": true,
                "priority": 0,
                "upgrade": null,
                "supports_reasoning_summaries": false,
                "support_verbosity": false,
                "default_verbosity": null,
                "apply_patch_tool_type": null,
                "truncation_policy": { "mode": "bytes", "limit": 10_000 },
                "supports_parallel_tool_calls": false,
                "experimental_supported_tools": [],
                "input_modalities": ["text"],
            }),
        }
    }
}

//! The model servers as one: which has a model, whose turn it is, retry, breaker and fallback.

use std::sync::Arc;

use common::{config::ProviderKind, identity::UserId};

use crate::{
    adapters::{Ask, ModelError, ToolCall},
    models::{FinishReason, Usage},
};

/// Where a request for a model will go: decided from the last look, without waiting.
#[derive(Clone, Debug)]
pub struct Route {
    /// The model's id.
    pub model: String,
    /// The provider that is tried first.
    pub provider: ProviderKind,
    /// That provider's window for the model, in tokens.
    pub window: u32,
}

/// What makes the request once a provider's turn has come: called once for each provider tried, since windows differ.
pub trait Prompt: Send + Sync {
    /// The request for that model and window.
    fn fit(&self, model: &str, window: u32) -> Ask;
}

/// What happens on the way to an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// So many turns wait ahead; told when it changes.
    Queued {
        /// Turns ahead.
        position: usize,
    },
    /// This provider answers; told once, with its first chunk.
    Generating {
        /// Which provider.
        provider: ProviderKind,
        /// The window it was asked with.
        window: u32,
        /// Earlier messages left out of the prompt.
        dropped: u64,
    },
    /// Thoughts.
    Thinking(String),
    /// Text.
    Text(String),
    /// A tool call; on `/v1` alone.
    ToolCall(ToolCall),
    /// The end; nothing follows.
    End {
        /// How it ended.
        finish: FinishReason,
        /// What it cost, if the server counted.
        usage: Option<Usage>,
    },
}

/// All model servers of this instance.
pub struct Llm;

/// A place in the queue, then the answer. Dropping it at any moment gives the place back and closes the connection.
pub struct Answering;

impl Llm {
    /// Where a request for that model (or the default one) goes.
    ///
    /// # Errors
    /// [`ModelError::NotFound`] with the command that gets it, [`ModelError::Unavailable`] where every provider that
    /// has it is known to be down.
    pub fn resolve(&self, _model: Option<&str>) -> Result<Route, ModelError> {
        Err(ModelError::Unavailable(String::new()))
    }

    /// Takes a place in the queue of the route's first provider.
    ///
    /// # Errors
    /// [`ModelError::QueueFull`].
    pub fn enter(&self, _route: &Route, _user: &UserId) -> Result<Answering, ModelError> {
        Err(ModelError::QueueFull)
    }
}

impl Answering {
    /// Says what to ask; must be called before the first [`Self::next`].
    pub fn begin(&mut self, _prompt: Arc<dyn Prompt>) {}

    /// What happened since, never empty: everything that one read returned comes at once. After [`Progress::End`] or
    /// an error it must not be called again.
    ///
    /// # Errors
    /// Whatever ended the answer without [`Progress::End`].
    pub async fn next(&mut self) -> Result<Vec<Progress>, ModelError> {
        Err(ModelError::QueueFull)
    }
}

//! The parts of an answer, from the queue to its end.

use common::config::ProviderKind;

use crate::domain::{FinishReason, Usage};

/// What happens on the way to an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Chunk {
    /// So many turns wait ahead; told when it changes.
    Queued {
        /// Turns ahead.
        position: usize,
    },
    /// This provider answers; told once, with its first chunk.
    Started {
        /// Which provider.
        provider: ProviderKind,
        /// Under which id: another than the route's where another provider stood in.
        model: String,
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

/// A tool call of the model, whole.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// Its id; made here where the server gave none.
    pub id: String,
    /// The function's name.
    pub name: String,
    /// The arguments: a JSON document as text.
    pub arguments: String,
}

//! The parts of an answer, from the queue to its end.

use common::config::ProviderKind;
use uuid::Uuid;

use crate::domain::{FinishReason, Usage};

/// What happens on the way to an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Chunk {
    /// So many turns wait ahead; told when it changes.
    Queued {
        position: usize,
    },
    /// This provider answers; told once, with its first chunk.
    Started {
        provider: ProviderKind,
        /// Under which id: another than the route's where another provider stood in.
        model: String,
        window: u32,
        dropped: u64,
    },
    Thinking(String),
    Text(String),
    /// A tool call; of stateless completions alone.
    ToolCall(ToolCall),
    End {
        finish: FinishReason,
        /// What it cost, if the server counted.
        usage: Option<Usage>,
        details: UsageDetails,
        /// Which of the request's stop sequences ended it, if one did and the server tells.
        stop_sequence: Option<String>,
    },
}

/// What a server tells of the cost beside its counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageDetails {
    /// Prompt tokens that were in its cache, as far as it tells.
    pub cached_tokens: u64,
    /// How many tokens of the answer are thoughts, where it tells.
    pub reasoning_tokens: Option<u64>,
    pub estimated_reasoning: u64,
    /// How long loading, the prompt and the answer took, in nanoseconds, where it tells.
    pub durations: Option<[u64; 3]>,
}

/// A tool call of the model, whole.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// Its id; made here where the server gave none.
    pub id: String,
    pub name: String,
    /// The arguments: a JSON document as text.
    pub arguments: String,
}

impl ToolCall {
    /// Some servers leave out the id, or the arguments where there are none.
    pub(super) fn new(id: Option<String>, name: String, arguments: String) -> Self {
        let id = id.filter(|id| !id.is_empty());
        Self {
            id: id.unwrap_or_else(|| format!("call_{}", Uuid::new_v4().simple())),
            name,
            arguments: if arguments.trim().is_empty() { "{}".to_owned() } else { arguments },
        }
    }
}

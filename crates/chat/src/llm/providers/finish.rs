//! What servers mean by the reason for which an answer ended.

use crate::{domain::FinishReason, llm::error::ProviderError};

/// The meaning of a server's own word.
///
/// # Errors
/// Where the server says that it gave up.
pub(super) fn finish_reason(word: &str) -> Result<FinishReason, ProviderError> {
    let word = word.to_lowercase();
    match word.as_str() {
        "length" | "max_tokens" | "model_length" => Ok(FinishReason::Length),
        "tool_calls" | "function_call" => Ok(FinishReason::ToolCalls),
        "content_filter" => Ok(FinishReason::ContentFilter),
        "error" | "abort" | "load" | "unload" => {
            Err(ProviderError::failed("the server gave up").with_upstream_text(&word))
        }
        _ => Ok(FinishReason::Stop),
    }
}

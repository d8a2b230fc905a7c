//! What servers mean by the reason for which an answer ended.

use crate::{domain::FinishReason, llm::error::ProviderError};

/// Parts of words by which servers say that the answer is as long as it may be.
const LENGTH: &str = "length max_ maxtoken token_limit context_window truncat";
/// Parts of words by which servers say that a filter ended the answer.
const FILTER: &str = "\
    filter safety sensitiv blocklist blocked prohibited policy moderat recitation spii refus \
    harm guardrail intervened";
/// Parts of words by which servers say that they gave up.
const GAVE_UP: &str = "\
    error exception internal unexpected fail abort cancel network capacity resource unavail \
    offline degraded deadline timeout timed_out time_limit interrupt terminat not_finish \
    unfinish exhaust insufficient quota rate_limit memory oom kill crash connect lost \
    malformed invalid busy preempt evict load shutdown";

/// The meaning of a server's own word.
///
/// # Errors
/// Where the server says that it gave up.
pub(super) fn finish_reason(word: &str) -> Result<FinishReason, ProviderError> {
    match word {
        "stop" => return Ok(FinishReason::Stop),
        "length" => return Ok(FinishReason::Length),
        _ => {}
    }
    let lower = word.to_lowercase().replace([' ', '-'], "_");
    let has = |parts: &str| parts.split(' ').any(|part| lower.contains(part));
    match lower.as_str() {
        "tool_calls" | "tool_call" | "tool_use" | "function_call" => Ok(FinishReason::ToolCalls),
        _ if has(FILTER) => Ok(FinishReason::ContentFilter),
        _ if has(GAVE_UP) => Err(ProviderError::failed("the server gave up, by its finish reason")
            .with_upstream_text(word)),
        _ if has(LENGTH) => Ok(FinishReason::Length),
        _ => Ok(FinishReason::Stop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_gave_up_is_not_taken_for_one_that_stopped() {
        for word in [
            "insufficient_system_resource",
            "network_error",
            "capacity",
            "error",
            "abort",
            "timeout",
            "MALFORMED_FUNCTION_CALL",
            "load",
            "unload",
            "cancelled",
            "out_of_memory",
            "server-overloaded",
            "deadline_exceeded",
            "exception",
            "internal",
            "terminated",
            "not_finished",
            "unfinished",
            "connection_lost",
            "worker lost",
            "disconnected",
            "offline",
            "degraded",
            "UNEXPECTED_TOOL_CALL",
        ] {
            assert!(finish_reason(word).is_err(), "{word}");
        }
        for (words, reason) in [
            (
                &["stop", "eos", "eos_token", "stop_sequence", "end_turn", "", "COMPLETE"][..],
                FinishReason::Stop,
            ),
            (
                &[
                    "length",
                    "MAX_TOKENS",
                    "model_length",
                    "max_output_tokens",
                    "model_context_window_exceeded",
                ],
                FinishReason::Length,
            ),
            (
                &[
                    "content_filter",
                    "SAFETY",
                    "RECITATION",
                    "sensitive",
                    "guardrail_intervened",
                    "refusal",
                ],
                FinishReason::ContentFilter,
            ),
            (&["tool_calls", "tool_use", "function_call"], FinishReason::ToolCalls),
        ] {
            for word in words {
                assert_eq!(finish_reason(word).unwrap(), reason, "{word}");
            }
        }
    }
}

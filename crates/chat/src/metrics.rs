//! What this service measures beside its requests: each metric with its meaning, and those that are looked at, not counted.

use std::time::Duration;

use common::{describe_metrics, shutdown::Shutdown};

use crate::llm::LlmService;

/// How often model servers are looked at: the breaker's rest is 5 s.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(crate) fn describe() {
    describe_metrics! {
        gauge "chat_turns_running" => "Turns that run on this instance",
        counter "chat_turns_total" => "Turns by ending: stop, length, cancelled, or the code of the error",
        counter "chat_turns_closed_for_dead_instances_total" => "Turns ended as interrupted because their instance was gone",
        gauge "chat_completions_running" => "Answers of /v1 and /api that run on this instance",
        counter "chat_completions_total" => "Answers without a session (/v1, /api) by ending: stop, length, tool_calls, cancelled, or the code of the error",
        counter "chat_embeddings_total" => "Requests for embeddings by ending: ok, cancelled, or the code of the error",
        gauge "chat_watchers_open" => "Readers that follow an answer here",
        counter "chat_watchers_cut_total" => "Readers that were cut because they were too slow",
        gauge "chat_sockets_open" => "Open WebSockets",
        counter "history_records_skipped_total" => "Stored messages that could not be read and were left out",
        counter "llm_requests_total" => "Requests to model servers by provider and result",
        histogram "llm_request_duration_seconds" => "From leaving the queue to the answer's end, in seconds",
        histogram "llm_time_to_first_token_seconds" => "From leaving the queue to the first token, in seconds",
        histogram "llm_queue_wait_seconds" => "How long a request waited for its slot, in seconds",
        counter "llm_tokens_total" => "Tokens by kind: prompt (read) and completion (written)",
        gauge "llm_running" => "Requests that run on a provider",
        gauge "llm_queued" => "Answers that wait for a provider",
        gauge "llm_embeddings_queued" => "Requests for embeddings that wait for a provider",
        gauge "llm_up" => "1: the provider answered the last look; 0: it did not",
        gauge "llm_breaker_open" => "1: the provider failed too often and is left alone for a moment",
    }
    metrics::counter!("chat_embeddings_total", "ending" => "ok").increment(0);
    // An alarm sees a counter's growth, not its first appearance.
    for rare in [
        "chat_turns_closed_for_dead_instances_total",
        "chat_watchers_cut_total",
        "history_records_skipped_total",
    ] {
        metrics::counter!(rare).absolute(0);
    }
}

/// Keeps the state of the model servers measured until the stop.
pub(crate) fn watch(llm: LlmService, shutdown: &Shutdown) {
    shutdown.spawn_until_stop(async move {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            look(&llm);
        }
    });
}

fn look(llm: &LlmService) {
    for status in llm.status() {
        let provider = status.provider.as_str();
        if let Some(up) = status.up {
            metrics::gauge!("llm_up", "provider" => provider).set(f64::from(u8::from(up)));
        }
        metrics::gauge!("llm_breaker_open", "provider" => provider)
            .set(f64::from(u8::from(status.breaker_open)));
    }
}

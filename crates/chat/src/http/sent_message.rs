//! Collects the events of a turn into one answer, for clients that do not stream.

use std::time::Duration;

use common::errors::ApiError;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::{
        Context, Ending, FinishReason, Usage,
        event::{EventRef, Start},
    },
    error::ChatError,
    events::log::{ReadResult, Subscriber},
    http::error::about,
};

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SentMessage {
    pub user_id: String,
    pub reply: String,
    /// The thoughts before it, of a model that thinks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub thinking: Option<String>,
    pub session_id: String,
    pub message_id: String,
    pub model: String,
    pub provider: String,
    /// `stop`, `length` or `cancelled`.
    pub finish_reason: FinishReason,
    pub usage: Usage,
    pub context: Context,
}

/// Waits for the last event, and returns the answer or the error that it ended with.
///
/// # Errors
/// The turn's own error; `shutting_down` where this instance stops before the turn of another one ends.
pub async fn collect(subscriber: Subscriber) -> Result<SentMessage, ApiError> {
    let mut subscriber = subscriber.unbounded();
    subscriber.closed().await;
    let (mut start, mut ending): (Option<Start>, Option<Ending>) = (None, None);
    let (mut reply, mut thinking) = (String::new(), String::new());
    loop {
        let read = subscriber.next(|_, event| match event {
            EventRef::Start(event) => start = Some(event.clone()),
            EventRef::Queued { .. } => {}
            EventRef::Token(text) => reply.push_str(text),
            EventRef::Thinking(text) => thinking.push_str(text),
            EventRef::End(end) => ending = Some(end.ending.clone()),
        });
        match read.await {
            ReadResult::More => {}
            ReadResult::Ended => break,
            ReadResult::Lagging | ReadResult::Gone => {
                return Err(ChatError::ShuttingDown.into());
            }
        }
    }
    match (start, ending) {
        (Some(start), Some(Ending::Done { finish_reason, usage, context, model, provider })) => {
            Ok(SentMessage {
                user_id: start.user_id,
                reply,
                thinking: Some(thinking).filter(|thoughts| !thoughts.is_empty()),
                session_id: start.session_id.to_string(),
                message_id: start.message_id.to_string(),
                model,
                provider,
                finish_reason,
                usage,
                context,
            })
        }
        (_, Some(Ending::Error { code, detail, retry_after, pointer })) => {
            let retry_after = retry_after.map(Duration::from_secs);
            Err(ApiError { retry_after, ..about(pointer.as_deref(), code, detail) })
        }
        _ => Err(ChatError::Interrupted.into()),
    }
}

//! What all APIs without sessions share: reading large bodies, starting the completion, and writing its stream.
//!
//! Each API translates its request into a [`CompletionRequest`], and writes the chunks of the answer with a [`StreamWriter`]
//! or from a [`CollectedAnswer`]. Queue, limits, quota, retries and accounting are the completion's.

use std::{sync::Arc, time::Instant};

use axum::extract::{FromRequest, Request};
use common::{
    errors::{ApiError, Code, extract::expect_json},
    http::Deadline,
};
use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;

use crate::{
    error::ChatError,
    generation::stateless::{Completion, CompletionRequest},
    llm::PromptMessage,
    state::AppState,
};

pub mod any_case;
pub mod body;
pub mod checks;
pub mod collected_answer;
pub mod content;
pub mod errors;
pub mod members;
pub mod sse;
pub mod stream;

pub use self::{
    body::{BodyMemory, InferenceBody},
    collected_answer::{AnswerEnd, AnswerItem, CollectedAnswer},
    stream::StreamWriter,
};

/// A running completion and what ends it from outside.
pub struct InferenceCall {
    pub completion: Completion,
    /// Resolves when the caller's credential is revoked.
    revoked: BoxFuture<'static, ApiError>,
    started: Instant,
}

impl InferenceCall {
    /// Starts the completion. `memory` is what its body holds, given back when it has ended.
    ///
    /// # Errors
    /// Those of the completion that are known before the model is asked.
    pub fn start(
        app: &AppState,
        mut request: CompletionRequest,
        memory: BodyMemory,
    ) -> Result<Self, ApiError> {
        trim_end(&mut request.messages)?;
        // From here on: the body may have taken its time.
        let Deadline(deadline) = Deadline::from_now();
        let revoked = app.until_revoked(&request.identity);
        let completion = app.completions.start(request, memory, deadline)?;
        Ok(Self { completion, revoked, started: Instant::now() })
    }

    /// Waits for the end and returns the answer.
    ///
    /// # Errors
    /// What ended the completion without an answer, and the end of the caller's credential.
    pub async fn collect(mut self) -> Result<CollectedAnswer, ApiError> {
        tokio::select! {
            answer = CollectedAnswer::of(&mut self.completion) => Ok(answer?),
            error = &mut self.revoked => Err(error),
        }
    }
}

impl<T: DeserializeOwned + Send + 'static> FromRequest<Arc<AppState>> for InferenceBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<AppState>) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        expect_json(&parts.headers)?;
        app.body_budget.parse(body).await
    }
}

/// Leaves out empty messages of the model at the end: a server that is to go on with nothing writes garbage.
fn trim_end(messages: &mut Vec<PromptMessage>) -> Result<(), ApiError> {
    let last = messages.iter().rposition(|message| !message.is_empty_answer());
    let nothing = || ApiError::new(Code::InvalidRequest, "There must be a message with content.");
    messages.truncate(last.ok_or_else(nothing)? + 1);
    Ok(())
}

/// The error of a completion that was lost, which only a panic can cause.
pub fn lost() -> ApiError {
    ChatError::Broken.into()
}

/// True for paths whose bodies may be large: those of the APIs without sessions.
pub fn has_large_body(path: &str) -> bool {
    path.starts_with("/v1/") || path.starts_with("/api/")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn no_empty_answer_stands_at_the_end_of_a_prompt() {
        let said = |role: &'static str, text: &str| PromptMessage::text(role, text);
        let with = |member: &str, value: Value| {
            let mut message = said("assistant", "");
            message.set(member, value);
            message
        };
        let user = || said("user", "Hi");
        let thoughts = || with("reasoning_content", "Hm.".into());
        let nothing = || with("content", Value::Null);
        for (mut messages, left) in [
            (vec![user(), said("assistant", "")], 1),
            (vec![user(), said("assistant", ""), nothing(), thoughts()], 1),
            (vec![user(), said("assistant", ""), said("user", "")], 3),
            (vec![user(), said("assistant", "Hel")], 2),
            (vec![user(), with("tool_calls", json!([{ "id": "c" }]))], 2),
            (vec![user(), with("content", json!([{ "type": "image_url" }]))], 2),
        ] {
            trim_end(&mut messages).unwrap();
            assert_eq!(messages.len(), left, "{messages:?}");
        }
        let refused = trim_end(&mut vec![said("assistant", "")]).unwrap_err();
        assert_eq!(refused.code, Code::InvalidRequest);
    }
}

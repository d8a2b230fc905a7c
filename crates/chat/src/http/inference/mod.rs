//! What all APIs without sessions share: reading large bodies, starting the completion, and writing its stream.
//!
//! Each API translates its request into a [`CompletionRequest`], and writes the chunks of the answer with a [`StreamWriter`]
//! or from a [`CollectedAnswer`]. Queue, limits, quota, retries and accounting are the completion's.

use std::{sync::Arc, time::Instant};

use axum::{
    Json,
    body::Body,
    extract::{FromRequest, FromRequestParts, Request},
    http::request::Parts,
    response::{IntoResponse, Response},
};
use common::{
    errors::{ApiError, Code, extract::expect_json},
    http::{Deadline, RequestId},
    identity::Identity,
};
use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;

use crate::{
    generation::stateless::{Completion, CompletionRequest},
    llm::PromptMessage,
    state::AppState,
};

pub mod body;
pub mod checks;
pub mod collected_answer;
pub mod content;
pub mod errors;
pub mod members;
pub mod sse;
pub mod stream;

pub use self::{
    body::BodyMemory,
    collected_answer::{AnswerEnd, AnswerItem, CollectedAnswer},
    stream::StreamWriter,
};

/// The JSON body of a request, and who sent it.
pub struct InferenceBody<T>(pub T, pub InferenceCaller);

/// The caller of an answer without a session.
pub struct InferenceCaller {
    pub app: Arc<AppState>,
    pub identity: Identity,
    pub request_id: Arc<str>,
    /// The memory of the request's body, given back when its answer has ended.
    pub memory: BodyMemory,
}

/// A running completion and what ends it from outside.
pub struct InferenceCall {
    pub completion: Completion,
    /// Resolves when the caller's credential is revoked.
    revoked: BoxFuture<'static, ApiError>,
    started: Instant,
}

impl InferenceCaller {
    /// Starts the completion.
    ///
    /// # Errors
    /// Those of the completion that are known before the model is asked.
    pub fn start(self, mut request: CompletionRequest) -> Result<InferenceCall, ApiError> {
        trim_end(&mut request.messages)?;
        // From here on: the body may have taken its time.
        let Deadline(deadline) = Deadline::from_now();
        let Self { app, identity, request_id, memory } = self;
        let revoked = app.until_revoked(&identity);
        let completion = app.completions.start(identity, request_id, request, memory, deadline)?;
        Ok(InferenceCall { completion, revoked, started: Instant::now() })
    }
}

impl InferenceCall {
    /// The answer, streamed as `writer` writes it, or whole.
    ///
    /// # Errors
    /// What ended the completion without an answer, and the end of the caller's credential.
    pub async fn answer<W: StreamWriter>(
        self,
        is_streamed: bool,
        writer: W,
    ) -> Result<Response, ApiError> {
        if is_streamed {
            return self.stream(writer).await;
        }
        Ok(Json(writer.whole(self.collect().await?)).into_response())
    }

    async fn collect(mut self) -> Result<CollectedAnswer, ApiError> {
        tokio::select! {
            answer = CollectedAnswer::of(&mut self.completion) => Ok(answer?),
            error = &mut self.revoked => Err(error),
        }
    }
}

impl<T: DeserializeOwned + Send + 'static> FromRequest<Arc<AppState>> for InferenceBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<AppState>) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let identity = Identity::from_request_parts(&mut parts, app).await?;
        expect_json(&parts.headers)?;
        Self::read(app, identity, parts, body).await
    }
}

impl<T: DeserializeOwned + Send + 'static> InferenceBody<T> {
    /// Reads and parses a body, whatever its `Content-Type` says.
    ///
    /// # Errors
    /// Those of [`body::BodyBudget::parse`].
    pub async fn read(
        app: &Arc<AppState>,
        identity: Identity,
        mut parts: Parts,
        body: Body,
    ) -> Result<Self, ApiError> {
        let Ok(RequestId(request_id)) = RequestId::from_request_parts(&mut parts, app).await;
        let (value, memory) = app.body_budget.parse(body).await?;
        Ok(Self(value, InferenceCaller { app: app.clone(), identity, request_id, memory }))
    }
}

/// Leaves out empty messages of the model at the end: a server that is to go on with nothing writes garbage.
fn trim_end(messages: &mut Vec<PromptMessage>) -> Result<(), ApiError> {
    let last = messages.iter().rposition(|message| !message.is_empty_answer());
    let nothing = || ApiError::new(Code::InvalidRequest, "There must be a message with content.");
    messages.truncate(last.ok_or_else(nothing)? + 1);
    Ok(())
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

//! A turn's events folded into one answer, for callers that do not stream.

use common::errors::{ApiError, Code};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

use crate::{
    domain::{Context, FinishReason, Usage, event::Kind},
    events::log::{Step, Watch},
};

/// A whole answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SentMessage {
    /// Who asked.
    pub user_id: String,
    /// The answer's text.
    pub reply: String,
    /// The thoughts before it, of a model that thinks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub thinking: Option<String>,
    /// The session.
    pub session_id: String,
    /// The answer's id.
    pub message_id: String,
    /// The model that answered.
    pub model: String,
    /// The provider that ran it.
    pub provider: String,
    /// `stop`, `length` or `cancelled`.
    pub finish_reason: FinishReason,
    /// What it cost.
    pub usage: Usage,
    /// How the prompt fitted.
    pub context: Context,
}

#[derive(Deserialize)]
struct Start {
    message_id: String,
    session_id: String,
    user_id: String,
}

#[derive(Deserialize)]
struct Done {
    finish_reason: FinishReason,
    usage: Usage,
    context: Context,
    model: String,
    provider: String,
}

#[derive(Deserialize)]
struct Failed {
    code: Code,
    detail: String,
}

#[derive(Default)]
struct Fold {
    start: Option<Start>,
    reply: String,
    thinking: String,
    done: Option<Done>,
    failed: Option<Failed>,
}

fn read<T: DeserializeOwned>(members: &str) -> Option<T> {
    serde_json::from_str(&format!("{{{members}}}")).ok()
}

impl Fold {
    fn take(&mut self, kind: Kind, data: &str) {
        match kind {
            Kind::Start => self.start = read(data),
            Kind::Queued => {}
            Kind::Token => self.reply.push_str(data),
            Kind::Thinking => self.thinking.push_str(data),
            Kind::Done => self.done = read(data),
            Kind::Error | Kind::Lost => self.failed = read(data),
        }
    }

    fn answer(self) -> Result<SentMessage, ApiError> {
        if let Some(Failed { code, detail }) = self.failed {
            return Err(ApiError::new(code, detail));
        }
        let (Some(start), Some(done)) = (self.start, self.done) else {
            return Err(ApiError::new(
                Code::Interrupted,
                "The answer was interrupted; ask again.",
            ));
        };
        Ok(SentMessage {
            user_id: start.user_id,
            reply: self.reply,
            thinking: Some(self.thinking).filter(|thoughts| !thoughts.is_empty()),
            session_id: start.session_id,
            message_id: start.message_id,
            model: done.model,
            provider: done.provider,
            finish_reason: done.finish_reason,
            usage: done.usage,
            context: done.context,
        })
    }
}

/// Waits for the ending and returns the answer, or the failure that it ended with.
///
/// # Errors
/// The turn's own failure; `shutting_down` where this instance stops before a turn of another one ends.
pub async fn whole(watch: Watch) -> Result<SentMessage, ApiError> {
    let (mut watch, mut fold) = (watch.patient(), Fold::default());
    loop {
        match watch.next(|_, kind, data| fold.take(kind, data)).await {
            Step::More => {}
            Step::Ended => return fold.answer(),
            Step::Lagging | Step::Gone => {
                return Err(ApiError::new(
                    Code::ShuttingDown,
                    "The service is stopping; send the request again.",
                ));
            }
        }
    }
}

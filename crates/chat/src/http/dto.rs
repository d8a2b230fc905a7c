//! What clients get of sessions and messages.

use common::clock::rfc3339;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::{FinishReason, Message, Role, Session, SessionId, Usage};

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SessionBody {
    pub session_id: String,
    pub title: String,
    /// The model for its turns, else that of its last turn.
    pub model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub system: Option<String>,
    #[schema(format = DateTime)]
    pub created_at: String,
    #[schema(format = DateTime)]
    pub updated_at: String,
    pub message_count: u64,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SessionList {
    pub sessions: Vec<SessionBody>,
    /// What to ask for the next page with.
    pub next_cursor: Option<String>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MessageBody {
    pub message_id: String,
    /// `user` or `assistant`.
    pub role: Role,
    pub content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub thinking: Option<String>,
    #[schema(format = DateTime)]
    pub created_at: String,
    /// Of an answer: the message that it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reply_to: Option<String>,
    /// Of an answer: the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub model: Option<String>,
    /// Of an answer: the provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub provider: Option<String>,
    /// Of an answer: how it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub finish_reason: Option<FinishReason>,
    /// Of an answer: what it cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub usage: Option<Usage>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MessageList {
    pub messages: Vec<MessageBody>,
    /// What to ask for the page before with, as `before`.
    pub next_cursor: Option<String>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SessionExport {
    #[serde(flatten)]
    pub session: SessionBody,
    /// All its messages, oldest first.
    pub messages: Vec<MessageBody>,
}

impl SessionBody {
    pub fn new(id: &SessionId, session: Session) -> Self {
        Self {
            session_id: id.to_string(),
            title: session.title,
            model: session.model.or(session.last_model),
            system: session.system,
            created_at: rfc3339(session.created_at),
            updated_at: rfc3339(session.updated_at),
            message_count: session.message_count,
        }
    }
}

impl From<Message> for MessageBody {
    fn from(record: Message) -> Self {
        let answer = record.answer;
        Self {
            message_id: record.id.to_string(),
            role: record.role,
            content: record.content,
            thinking: record.thinking,
            created_at: rfc3339(record.at),
            reply_to: answer.as_ref().map(|answer| answer.reply_to.to_string()),
            finish_reason: answer.as_ref().map(|answer| answer.finish_reason),
            usage: answer.as_ref().map(|answer| answer.usage),
            provider: answer.as_ref().map(|answer| answer.provider.clone()),
            model: answer.map(|answer| answer.model),
        }
    }
}

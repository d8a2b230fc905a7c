//! Sessions: list, begin, read, change, delete, export.

use std::sync::Arc;

use axum::{
    Json,
    body::{Body as HttpBody, Bytes},
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use common::{
    clock::rfc3339,
    errors::{
        ApiError, Problem,
        extract::{Body, OptionalBody, Path, Query},
    },
    http::Deadline,
    identity::{Identity, Owner},
};
use futures_util::stream::try_unfold;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    App,
    requests::{ChangeSession, Checks, CreateSession},
};
use crate::{
    models::{
        FinishReason, Role, SessionId, Usage,
        records::{MessageRecord, Session},
    },
    service::{
        sessions::{MessageCursor, NewSession, SessionChange, SessionCursor},
        turns::{ChatError, Turns},
    },
};

/// Most things on a page.
const PAGE_MAX: u16 = 500;

/// Things on a page where nothing is said.
const PAGE_DEFAULT: u16 = 100;

/// Messages that an export reads at a time.
const EXPORT_STEP: u64 = 500;

/// A session.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SessionBody {
    /// Its id.
    pub session_id: String,
    /// Its title.
    pub title: String,
    /// The model for its turns, else that of its last turn.
    pub model: Option<String>,
    /// Its system prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub system: Option<String>,
    /// When it was begun.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When it was last used.
    #[schema(format = DateTime)]
    pub updated_at: String,
    /// How many messages it has.
    pub message_count: u64,
}

/// A page of sessions, newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SessionList {
    /// The sessions.
    pub sessions: Vec<SessionBody>,
    /// What to ask for the next page with.
    pub next_cursor: Option<String>,
}

/// A message.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MessageBody {
    /// Its id.
    pub message_id: String,
    /// `user` or `assistant`.
    pub role: Role,
    /// Its text, byte for byte.
    pub content: String,
    /// The thoughts before an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub thinking: Option<String>,
    /// When it was stored.
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

/// A page of messages, oldest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MessageList {
    /// The messages.
    pub messages: Vec<MessageBody>,
    /// What to ask for the page before with, as `before`.
    pub next_cursor: Option<String>,
}

/// A whole session.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SessionExport {
    /// The session.
    #[serde(flatten)]
    pub session: SessionBody,
    /// All its messages, oldest first.
    pub messages: Vec<MessageBody>,
}

impl SessionBody {
    fn new(id: &SessionId, session: Session) -> Self {
        Self {
            session_id: id.to_string(),
            title: session.title,
            model: session.model.or(session.last_model),
            system: session.system,
            created_at: rfc3339(session.created_at),
            updated_at: rfc3339(session.updated_at),
            message_count: session.count,
        }
    }
}

impl From<MessageRecord> for MessageBody {
    fn from(record: MessageRecord) -> Self {
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

/// A page of the list of sessions.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct SessionPage {
    /// 1 to 500; 100 where absent.
    #[serde(default = "page_default")]
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: u16,
    /// A `next_cursor`.
    cursor: Option<String>,
}

/// A page of a session's messages.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct MessagePage {
    /// 1 to 500; 100 where absent.
    #[serde(default = "page_default")]
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: u16,
    /// A `next_cursor`.
    before: Option<String>,
}

fn page_default() -> u16 {
    PAGE_DEFAULT
}

fn page_size(limit: u16) -> Result<u16, ApiError> {
    if (1..=PAGE_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(ApiError::invalid(
        "/query/limit",
        format!("This must be from 1 to {PAGE_MAX}."),
    ))
}

fn cursor<T>(
    text: Option<&str>,
    name: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let wrong = || {
        ApiError::invalid(
            format!("/query/{name}"),
            "This must be a next_cursor that a page gave.",
        )
    };
    parse(text).map(Some).ok_or_else(wrong)
}

/// The session id of a path; what cannot be one names no session.
pub(super) fn in_path(session_id: &str) -> Result<SessionId, ApiError> {
    SessionId::parse(session_id).ok_or_else(|| ChatError::SessionNotFound.into())
}

/// Lists the caller's sessions, newest first.
#[utoipa::path(
    get, path = "/chat/sessions", tag = "sessions", params(SessionPage),
    responses(
        (status = 200, body = SessionList),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = [])),
)]
pub async fn list(
    State(app): State<App>,
    identity: Identity,
    Deadline(deadline): Deadline,
    Query(page): Query<SessionPage>,
) -> Result<Json<SessionList>, ApiError> {
    let limit = page_size(page.limit)?;
    let cursor = cursor(page.cursor.as_deref(), "cursor", SessionCursor::parse)?;
    let page = app
        .turns
        .sessions(&identity.owner, cursor, limit.into(), deadline)
        .await?;
    let sessions = page
        .items
        .into_iter()
        .map(|(id, session)| SessionBody::new(&id, session))
        .collect();
    Ok(Json(SessionList {
        sessions,
        next_cursor: page.next_cursor,
    }))
}

/// Begins a session without a message.
#[utoipa::path(
    post, path = "/chat/sessions", tag = "sessions", request_body(content = CreateSession),
    responses(
        (status = 201, body = SessionBody),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = [])),
)]
pub async fn create(
    State(app): State<App>,
    identity: Identity,
    OptionalBody(body): OptionalBody<CreateSession>,
) -> Result<(StatusCode, Json<SessionBody>), ApiError> {
    let Deadline(deadline) = Deadline::from_now();
    let mut checks = Checks::default();
    let id = checks.session(body.session_id.as_deref());
    checks.title(body.title.as_deref());
    super::messages::check_turn(
        &mut checks,
        body.model.as_deref(),
        body.system.as_deref(),
        None,
    );
    checks.finish()?;
    let id = id.unwrap_or_else(SessionId::random);
    let new = NewSession {
        title: body.title.unwrap_or_default(),
        model: body.model,
        system: body.system,
    };
    let session = app
        .turns
        .create_session(&identity.owner, &id, new, deadline)
        .await?;
    Ok((StatusCode::CREATED, Json(SessionBody::new(&id, session))))
}

/// Reads a session.
#[utoipa::path(
    get, path = "/chat/sessions/{session_id}", tag = "sessions",
    params(("session_id" = String, Path, description = "The session.")),
    responses(
        (status = 200, body = SessionBody),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = [])),
)]
pub async fn read(
    State(app): State<App>,
    identity: Identity,
    Deadline(deadline): Deadline,
    Path(session_id): Path<String>,
) -> Result<Json<SessionBody>, ApiError> {
    let id = in_path(&session_id)?;
    let session = app.turns.session(&identity.owner, &id, deadline).await?;
    Ok(Json(SessionBody::new(&id, session)))
}

/// Changes a session's title, model or system prompt.
#[utoipa::path(
    patch, path = "/chat/sessions/{session_id}", tag = "sessions", request_body = ChangeSession,
    params(("session_id" = String, Path, description = "The session.")),
    responses(
        (status = 200, body = SessionBody),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = [])),
)]
pub async fn change(
    State(app): State<App>,
    identity: Identity,
    Path(session_id): Path<String>,
    Body(body): Body<ChangeSession>,
) -> Result<Json<SessionBody>, ApiError> {
    let id = in_path(&session_id)?;
    let Deadline(deadline) = Deadline::from_now();
    let mut checks = Checks::default();
    checks.title(body.title.as_deref());
    let (model, system) = (body.model.clone().flatten(), body.system.clone().flatten());
    super::messages::check_turn(&mut checks, model.as_deref(), system.as_deref(), None);
    checks.finish()?;
    let change = SessionChange {
        title: body.title,
        model: body.model,
        system: body.system,
    };
    let session = app
        .turns
        .change_session(&identity.owner, &id, &change, deadline)
        .await?;
    Ok(Json(SessionBody::new(&id, session)))
}

/// Deletes a session with all its messages; an answer that is running in it ends.
#[utoipa::path(
    delete, path = "/chat/sessions/{session_id}", tag = "sessions",
    params(("session_id" = String, Path, description = "The session.")),
    responses(
        (status = 204, description = "It is gone."),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = [])),
)]
pub async fn delete(
    State(app): State<App>,
    identity: Identity,
    Deadline(deadline): Deadline,
    Path(session_id): Path<String>,
) -> Result<StatusCode, ApiError> {
    app.turns
        .delete_session(&identity.owner, &in_path(&session_id)?, deadline)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reads a session's messages: the newest page first, oldest first within a page.
#[utoipa::path(
    get, path = "/chat/sessions/{session_id}/messages", tag = "sessions",
    params(("session_id" = String, Path, description = "The session."), MessagePage),
    responses(
        (status = 200, body = MessageList),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = [])),
)]
pub async fn messages(
    State(app): State<App>,
    identity: Identity,
    Deadline(deadline): Deadline,
    Path(session_id): Path<String>,
    Query(page): Query<MessagePage>,
) -> Result<Json<MessageList>, ApiError> {
    let id = in_path(&session_id)?;
    let limit = page_size(page.limit)?;
    let before = cursor(page.before.as_deref(), "before", MessageCursor::parse)?;
    let page = app
        .turns
        .messages(&identity.owner, &id, before, limit.into(), deadline)
        .await?;
    let messages = page.items.into_iter().map(MessageBody::from).collect();
    Ok(Json(MessageList {
        messages,
        next_cursor: page.next_cursor,
    }))
}

/// Exports a whole session as JSON.
#[utoipa::path(
    get, path = "/chat/sessions/{session_id}/export", tag = "sessions",
    params(("session_id" = String, Path, description = "The session.")),
    responses(
        (status = 200, body = SessionExport),
        (status = "default", description = "A problem.", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = [])),
)]
pub async fn export(
    State(app): State<App>,
    identity: Identity,
    Deadline(deadline): Deadline,
    Path(session_id): Path<String>,
) -> Result<Response, ApiError> {
    let id = in_path(&session_id)?;
    let session = app.turns.settled(&identity.owner, &id, deadline).await?;
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{id}.json\""))
        .map_err(ApiError::internal)?;
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    let export = Export {
        turns: app.turns,
        owner: identity.owner,
        id,
        session,
        at: 0,
        over: false,
    };
    let body = HttpBody::from_stream(try_unfold(export, |mut export| async move {
        let piece = export.next().await?;
        Ok::<_, ChatError>(piece.map(|piece| (piece, export)))
    }));
    Ok((headers, body).into_response())
}

/// An export on its way: written page by page, so that its length costs no memory.
struct Export {
    turns: Arc<Turns>,
    owner: Owner,
    id: SessionId,
    session: Session,
    at: u64,
    over: bool,
}

impl Export {
    async fn next(&mut self) -> Result<Option<Bytes>, ChatError> {
        if self.over {
            return Ok(None);
        }
        let left = self.session.count - self.at;
        let step = left.min(EXPORT_STEP);
        let mut out = if self.at == 0 {
            self.head()
        } else {
            String::new()
        };
        if step > 0 {
            let records = self
                .turns
                .messages_from(&self.owner, &self.id, self.at, step)
                .await?;
            for record in records {
                if !out.ends_with('[') {
                    out.push(',');
                }
                // A message is made of strings and numbers: writing it cannot fail.
                out.push_str(
                    &serde_json::to_string(&MessageBody::from(record)).unwrap_or_default(),
                );
            }
        }
        self.at += step;
        self.over = self.at >= self.session.count;
        if self.over {
            out.push_str("]}");
        }
        Ok(Some(out.into()))
    }

    fn head(&self) -> String {
        let session = SessionBody::new(&self.id, self.session.clone());
        let mut head = serde_json::to_string(&session).unwrap_or_default();
        head.pop();
        head.push_str(",\"messages\":[");
        head
    }
}

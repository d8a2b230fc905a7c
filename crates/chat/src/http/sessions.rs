//! Sessions: list, begin, read, change, delete.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use common::{
    errors::{
        ApiError, Problem,
        extract::{OptionalBody, Path, Query},
    },
    http::Deadline,
    identity::Identity,
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    domain::{Message, NewSession, SessionChange, SessionId},
    http::{
        dto::{MessageBody, MessageList, SessionBody, SessionList},
        requests::{ChangeSession, CreateSession},
        validation::{Checks, SessionPath, session_in_path},
    },
    offload,
    sessions::{MessageCursor, SessionCursor},
    state::AppState,
};

const PAGE_MAX: i64 = 500;

#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ListSessionsQuery {
    /// 1 to 500; 100 where absent.
    #[serde(default = "page_default")]
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: i64,
    /// A `next_cursor`.
    cursor: Option<String>,
}

#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ListMessagesQuery {
    /// 1 to 500; 100 where absent.
    #[serde(default = "page_default")]
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: i64,
    /// A `next_cursor`.
    before: Option<String>,
}

fn page_default() -> i64 {
    100
}

fn page_size(limit: i64) -> Result<u16, ApiError> {
    let within = u16::try_from(limit).ok().filter(|_| (1..=PAGE_MAX).contains(&limit));
    within.ok_or_else(|| {
        ApiError::invalid("/query/limit", format!("This must be from 1 to {PAGE_MAX}."))
    })
}

fn cursor<T>(
    text: Option<&str>,
    name: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let wrong = || {
        ApiError::invalid(format!("/query/{name}"), "This must be a next_cursor that a page gave.")
    };
    parse(text).map(Some).ok_or_else(wrong)
}

/// Lists the caller's sessions, newest first.
#[utoipa::path(
    get, path = "/chat/sessions", operation_id = "list_sessions", tag = "sessions", params(ListSessionsQuery),
    responses((status = 200, body = SessionList)),
)]
pub async fn list(
    State(app): State<Arc<AppState>>,
    identity: Identity,
    Deadline(deadline): Deadline,
    Query(page): Query<ListSessionsQuery>,
) -> Result<Json<SessionList>, ApiError> {
    let limit = page_size(page.limit)?;
    let cursor = cursor(page.cursor.as_deref(), "cursor", SessionCursor::parse)?;
    let page = app.sessions.list(&identity.owner, cursor, limit.into(), deadline).await?;
    let sessions =
        page.items.into_iter().map(|(id, session)| SessionBody::new(&id, session)).collect();
    Ok(Json(SessionList { sessions, next_cursor: page.next_cursor }))
}

/// Begins a session without a message.
#[utoipa::path(
    post, path = "/chat/sessions", operation_id = "create_session", tag = "sessions", request_body = Option<CreateSession>,
    responses((status = 201, body = SessionBody), (status = 409, description = "`session_exists`", body = Problem)),
)]
pub async fn create(
    State(app): State<Arc<AppState>>,
    identity: Identity,
    OptionalBody(body): OptionalBody<CreateSession>,
) -> Result<(StatusCode, Json<SessionBody>), ApiError> {
    let Deadline(deadline) = Deadline::from_now();
    let mut checks = Checks::default();
    let id = checks.session(body.session_id.as_deref());
    checks.title(body.title.as_deref());
    checks.turn(body.model.as_deref(), body.system.as_deref(), None);
    checks.finish()?;
    let id = id.unwrap_or_else(SessionId::random);
    let new = NewSession {
        title: body.title.unwrap_or_default(),
        model: body.model,
        system: body.system,
    };
    let session = app.sessions.create(&identity.owner, &id, new, deadline).await?;
    Ok((StatusCode::CREATED, Json(SessionBody::new(&id, session))))
}

/// Reads a session.
#[utoipa::path(
    get, path = "/chat/sessions/{session_id}", operation_id = "read_session", tag = "sessions",
    params(SessionPath), responses((status = 200, body = SessionBody), (status = 404, description = "`session_not_found`", body = Problem)),
)]
pub async fn read(
    State(app): State<Arc<AppState>>,
    identity: Identity,
    Deadline(deadline): Deadline,
    Path(SessionPath { session_id }): Path<SessionPath>,
) -> Result<Json<SessionBody>, ApiError> {
    let id = session_in_path(&session_id)?;
    let session = app.sessions.get(&identity.owner, &id, deadline).await?;
    Ok(Json(SessionBody::new(&id, session)))
}

/// Changes a session's title, model or system prompt.
#[utoipa::path(
    patch, path = "/chat/sessions/{session_id}", operation_id = "change_session", tag = "sessions", request_body = Option<ChangeSession>,
    params(SessionPath), responses((status = 200, body = SessionBody), (status = 404, description = "`session_not_found`", body = Problem)),
)]
pub async fn change(
    State(app): State<Arc<AppState>>,
    identity: Identity,
    Path(SessionPath { session_id }): Path<SessionPath>,
    OptionalBody(body): OptionalBody<ChangeSession>,
) -> Result<Json<SessionBody>, ApiError> {
    let id = session_in_path(&session_id)?;
    let Deadline(deadline) = Deadline::from_now();
    let mut checks = Checks::default();
    checks.title(body.title.as_deref());
    let filled = |text: String| Some(text).filter(|text| !text.is_empty());
    let (model, system) = (body.model.map(filled), body.system.map(filled));
    let (named, said) =
        (model.as_ref().and_then(Option::as_deref), system.as_ref().and_then(Option::as_deref));
    checks.turn(named, said, None);
    checks.finish()?;
    let change = SessionChange { title: body.title, model, system };
    let session = app.sessions.change(&identity.owner, &id, &change, deadline).await?;
    Ok(Json(SessionBody::new(&id, session)))
}

/// Deletes a session with all its messages; an answer that is running in it ends.
#[utoipa::path(
    delete, path = "/chat/sessions/{session_id}", operation_id = "delete_session", tag = "sessions",
    params(SessionPath),
    responses((status = 204, description = "It is gone."), (status = 404, description = "`session_not_found`", body = Problem)),
)]
pub async fn delete(
    State(app): State<Arc<AppState>>,
    identity: Identity,
    Deadline(deadline): Deadline,
    Path(SessionPath { session_id }): Path<SessionPath>,
) -> Result<StatusCode, ApiError> {
    app.sessions.delete(&identity.owner, &session_in_path(&session_id)?, Some(deadline)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reads a session's messages: the newest page first, oldest first within a page. A page of very long messages ends before
/// its limit; `next_cursor` says where it goes on.
#[utoipa::path(
    get, path = "/chat/sessions/{session_id}/messages", tag = "sessions",
    params(SessionPath, ListMessagesQuery),
    responses((status = 200, body = MessageList), (status = 404, description = "`session_not_found`", body = Problem)),
)]
pub async fn messages(
    State(app): State<Arc<AppState>>,
    identity: Identity,
    Deadline(deadline): Deadline,
    Path(SessionPath { session_id }): Path<SessionPath>,
    Query(page): Query<ListMessagesQuery>,
) -> Result<Response, ApiError> {
    let id = session_in_path(&session_id)?;
    let limit = page_size(page.limit)?;
    let before = cursor(page.before.as_deref(), "before", MessageCursor::parse)?;
    let page = app.sessions.messages(&identity.owner, &id, before, limit.into(), deadline).await?;
    let size = page.items.iter().map(Message::size).sum();
    let encode = move || {
        Json(MessageList {
            messages: page.items.into_iter().map(MessageBody::from).collect(),
            next_cursor: page.next_cursor,
        })
        .into_response()
    };
    offload::by_size(size, encode).await.map_err(ApiError::internal)
}

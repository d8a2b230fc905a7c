//! A whole session as one JSON document, written page by page.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use common::{
    errors::{ApiError, Problem, extract::Path},
    http::Deadline,
    identity::{Identity, Owner},
};
use futures_util::stream::try_unfold;

use crate::{
    domain::{Message, Session, SessionId},
    error::ChatError,
    http::{
        dto::{MessageBody, SessionBody, SessionExport},
        validation::{SessionPath, session_in_path},
    },
    offload,
    sessions::SessionService,
    state::AppState,
};

/// Exports a whole session as JSON.
#[utoipa::path(
    get, path = "/chat/sessions/{session_id}/export", tag = "sessions",
    params(SessionPath), responses((status = 200, body = SessionExport), (status = 404, description = "`session_not_found`", body = Problem)),
)]
pub async fn export(
    State(app): State<Arc<AppState>>,
    identity: Identity,
    Deadline(deadline): Deadline,
    Path(SessionPath { session_id }): Path<SessionPath>,
) -> Result<Response, ApiError> {
    let id = session_in_path(&session_id)?;
    let session = app.sessions.get_settled(&identity.owner, &id, deadline).await?;
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{id}.json\""))
        .map_err(ApiError::internal)?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    let export =
        Export { sessions: app.sessions.clone(), owner: identity.owner, id, session, at: Some(0) };
    let body = Body::from_stream(try_unfold(export, |mut export| async move {
        let piece = export.next().await?;
        Ok::<_, ChatError>(piece.map(|piece| (piece, export)))
    }));
    Ok((headers, body).into_response())
}

/// An export on its way: written page by page, so that its length costs no memory.
struct Export {
    sessions: SessionService,
    owner: Owner,
    id: SessionId,
    session: Session,
    /// Where the next page begins; `None` after the last.
    at: Option<u64>,
}

impl Export {
    async fn next(&mut self) -> Result<Option<Bytes>, ChatError> {
        let Some(at) = self.at.take() else { return Ok(None) };
        let end = self.session.message_count;
        let (records, next) = self.sessions.messages_after(&self.owner, &self.id, at, end).await?;
        let mut out = if at == 0 { self.head() } else { String::new() };
        let is_last = next >= end;
        self.at = (!is_last).then_some(next);
        let size = records.iter().map(Message::size).sum();
        let write = move || {
            for record in records {
                if !out.ends_with('[') {
                    out.push(',');
                }
                // A message is made of strings and numbers: writing it cannot fail.
                out.push_str(
                    &serde_json::to_string(&MessageBody::from(record)).unwrap_or_default(),
                );
            }
            if is_last {
                out.push_str("]}");
            }
            out
        };
        let written = offload::by_size(size, write).await;
        Ok(Some(written.map_err(|_| ChatError::Broken)?.into()))
    }

    fn head(&self) -> String {
        let session = SessionBody::new(&self.id, self.session.clone());
        let mut head = serde_json::to_string(&session).unwrap_or_default();
        head.pop();
        head.push_str(",\"messages\":[");
        head
    }
}

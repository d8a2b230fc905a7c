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
    domain::{Session, SessionId},
    error::ChatError,
    http::{
        dto::{MessageBody, SessionBody, SessionExport},
        validation::session_in_path,
    },
    sessions::{READ_STEP, SessionService},
    state::AppState,
};

/// Exports a whole session as JSON.
#[utoipa::path(
    get, path = "/chat/sessions/{session_id}/export", tag = "sessions",
    params(("session_id" = String, Path, description = "The session.", pattern = "^[A-Za-z0-9._-]{1,64}$")),
    responses(
        (status = 200, body = SessionExport),
        (status = 404, description = "`session_not_found`", body = Problem),
    ),
    security(("bearer" = [])),
)]
pub async fn export(
    State(app): State<Arc<AppState>>,
    identity: Identity,
    Deadline(deadline): Deadline,
    Path(session_id): Path<String>,
) -> Result<Response, ApiError> {
    let id = session_in_path(&session_id)?;
    let session = app
        .sessions
        .get_settled(&identity.owner, &id, deadline)
        .await?;
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
        sessions: app.sessions.clone(),
        owner: identity.owner,
        id,
        session,
        at: 0,
        over: false,
    };
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
    at: u64,
    over: bool,
}

impl Export {
    async fn next(&mut self) -> Result<Option<Bytes>, ChatError> {
        if self.over {
            return Ok(None);
        }
        let left = self.session.message_count - self.at;
        let step = left.min(READ_STEP);
        let mut out = if self.at == 0 {
            self.head()
        } else {
            String::new()
        };
        if step > 0 {
            let records = self
                .sessions
                .messages_from(&self.owner, &self.id, self.at)
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
        self.over = self.at >= self.session.message_count;
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

//! Messages: send one, watch its answer, stop it, ask for another.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use common::{
    errors::{
        ApiError, Code, Problem,
        extract::{Body, OptionalBody, Path, Query},
    },
    http::{Deadline, RequestId},
    identity::Identity,
    rate_limiter::RateLimitTicket,
};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::{
    domain::{Options, SessionId},
    http::{
        App,
        collect::{self, SentMessage},
        requests::{
            DisconnectRule, Regenerate, SendMessage, disconnect_rule, idempotency_key, same_user,
        },
        sse::{Form, Reader, StreamedEvent, respond},
        validation::{Checks, message_in_path, session_in_path},
    },
    turns::service::{Begun, IdempotencyKey, NewTurn, Question},
};

/// How an answer is wanted.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct StreamQuery {
    /// Whether the answer is streamed.
    #[serde(default)]
    stream: bool,
}

/// Where to go on.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ResumeQuery {
    /// The last event that was received; the header `Last-Event-ID` comes first.
    #[serde(default)]
    #[param(value_type = Option<u64>)]
    last_event_id: Option<String>,
}

/// Who asks for a turn, and the request as it is counted and traced.
type Asker = (Identity, Extension<RateLimitTicket>, RequestId);

/// What was asked for, checked.
struct TurnRequest {
    session: SessionId,
    question: Question,
    model: Option<String>,
    system: Option<String>,
    options: Option<Options>,
    on_disconnect: Option<DisconnectRule>,
    key: Option<IdempotencyKey>,
    /// How it is streamed; `None` where the answer is wanted whole.
    form: Option<Form>,
}

/// Sends a message to a session; the answer is whole, or streamed with `?stream=true`.
#[utoipa::path(
    post,
    path = "/chat/message",
    tag = "messages",
    params(StreamQuery, ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible characters: for 24 hours the same key never makes a second turn.")),
    request_body = SendMessage,
    responses(
        (status = 200, description = "The answer: whole, as `text/event-stream`, or as NDJSON.", content((SentMessage = "application/json"), (StreamedEvent = "text/event-stream"), (String = "application/x-ndjson"))),
        (status = 404, description = "`session_not_found`, `model_not_found`, `message_not_found`", body = Problem),
        (status = 409, description = "`session_busy`", body = Problem),
        (status = 422, description = "`validation_failed`, `context_too_long`, `idempotency_mismatch`", body = Problem),
        (status = 502, description = "`llm_failed`", body = Problem),
        (status = 504, description = "`llm_timeout`", body = Problem),
    ),
    security(("bearer" = [])),
)]
pub async fn send(
    State(app): State<App>,
    asker: Asker,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
    Body(body): Body<SendMessage>,
) -> Result<Response, ApiError> {
    same_user(&asker.0, body.user_id.as_deref())?;
    let mut checks = Checks::default();
    checks.text("/message", &body.message);
    let session = checks.session(body.session_id.as_deref());
    checks.turn(
        body.model.as_deref(),
        body.system.as_deref(),
        body.options.as_ref(),
    );
    checks.finish()?;
    let request = TurnRequest {
        key: key_of(&headers, "message", &body)?,
        session: session.unwrap_or_else(SessionId::default_session),
        question: Question::Message(body.message),
        model: body.model,
        system: body.system,
        options: body.options,
        on_disconnect: body.on_disconnect,
        form: query.stream.then(|| Form::accepted(&headers)),
    };
    answer(&app, asker, request).await
}

/// Asks for another answer to a session's last message.
#[utoipa::path(
    post,
    path = "/chat/sessions/{session_id}/regenerate",
    tag = "messages",
    params(("session_id" = String, Path, description = "The session.", pattern = "^[A-Za-z0-9._-]{1,64}$"), StreamQuery, ("Idempotency-Key" = Option<String>, Header, description = "As for a message.")),
    request_body = Option<Regenerate>,
    responses(
        (status = 200, description = "The new answer, as for a message.", content((SentMessage = "application/json"), (StreamedEvent = "text/event-stream"), (String = "application/x-ndjson"))),
        (status = 404, description = "`session_not_found`, `model_not_found`, `message_not_found`", body = Problem),
        (status = 409, description = "`session_busy`", body = Problem),
        (status = 422, description = "`validation_failed`, `context_too_long`, `idempotency_mismatch`", body = Problem),
        (status = 502, description = "`llm_failed`", body = Problem),
        (status = 504, description = "`llm_timeout`", body = Problem),
    ),
    security(("bearer" = [])),
)]
pub async fn regenerate(
    State(app): State<App>,
    asker: Asker,
    Path(session_id): Path<String>,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
    OptionalBody(body): OptionalBody<Regenerate>,
) -> Result<Response, ApiError> {
    let session = session_in_path(&session_id)?;
    let mut checks = Checks::default();
    checks.turn(
        body.model.as_deref(),
        body.system.as_deref(),
        body.options.as_ref(),
    );
    checks.finish()?;
    let request = TurnRequest {
        key: key_of(&headers, &format!("regenerate {session}"), &body)?,
        session,
        question: Question::Last,
        model: body.model,
        system: body.system,
        options: body.options,
        on_disconnect: body.on_disconnect,
        form: query.stream.then(|| Form::accepted(&headers)),
    };
    answer(&app, asker, request).await
}

/// Streams an answer's events again, after `Last-Event-ID`: replayed, then live. 204 where nothing comes after it.
#[utoipa::path(
    get,
    path = "/chat/messages/{message_id}/stream",
    tag = "messages",
    params(("message_id" = String, Path, description = "The answer."), ResumeQuery, ("Last-Event-ID" = Option<u64>, Header, description = "The last event that was received.")),
    responses(
        (status = 200, description = "The events.", content((StreamedEvent = "text/event-stream"), (String = "application/x-ndjson"))),
        (status = 204, description = "The ending was received already."),
        (status = 404, description = "`message_not_found`", body = Problem),
    ),
    security(("bearer" = [])),
)]
pub async fn stream(
    State(app): State<App>,
    identity: Identity,
    Deadline(deadline): Deadline,
    request_id: RequestId,
    Path(message_id): Path<String>,
    Query(query): Query<ResumeQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = message_in_path(&message_id)?;
    let after = last_event_id(&headers, query.last_event_id.as_deref())?;
    let watch = app
        .turns
        .resume(&identity.owner, &id, after, deadline)
        .await?;
    if watch.is_past_the_end() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let reader = Reader {
        identity,
        authenticator: app.authenticator.clone(),
        request_id: request_id.0,
    };
    Ok(respond(watch, Form::accepted(&headers), id, reader))
}

/// Stops an answer; what was said is kept. One that has ended stays as it is.
#[utoipa::path(
    post,
    path = "/chat/messages/{message_id}/cancel",
    tag = "messages",
    params(("message_id" = String, Path, description = "The answer.")),
    responses(
        (status = 202, description = "It stops, or has ended."),
        (status = 404, description = "`message_not_found`", body = Problem),
    ),
    security(("bearer" = [])),
)]
pub async fn cancel(
    State(app): State<App>,
    identity: Identity,
    Deadline(deadline): Deadline,
    Path(message_id): Path<String>,
) -> Result<StatusCode, ApiError> {
    app.turns
        .cancel(&identity.owner, &message_in_path(&message_id)?, deadline)
        .await?;
    Ok(StatusCode::ACCEPTED)
}

/// Begins the turn and answers in the form that was asked for.
async fn answer(app: &App, asker: Asker, request: TurnRequest) -> Result<Response, ApiError> {
    let (identity, Extension(call), RequestId(request_id)) = asker;
    let TurnRequest { form, key, .. } = request;
    let can_come_back = form.is_some() || key.is_some();
    let new = NewTurn {
        session: request.session,
        question: request.question,
        model: request.model,
        system: request.system,
        options: request.options.unwrap_or_default(),
        on_disconnect: disconnect_rule(request.on_disconnect, app.disconnect_grace, can_come_back),
        key,
        call: call.clone(),
        request_id: Arc::clone(&request_id),
    };
    // From here on: the body may have taken its time.
    let Deadline(deadline) = Deadline::from_now();
    let revoked = app.authenticator.revoked(&identity);
    tokio::pin!(revoked);
    let Begun { id, watch, joined } = tokio::select! {
        biased;
        begun = app.turns.begin(&identity.owner, new, deadline) => begun?,
        error = &mut revoked => return Err(error),
    };
    if joined {
        call.refund().await;
    }
    let Some(form) = form else {
        return tokio::select! {
            biased;
            answer = collect::whole(watch) => answer.map(|answer| Json(answer).into_response()),
            error = revoked => Err(error),
        };
    };
    // The model is asked first: its answer takes longer than `start` does to be written.
    tokio::task::yield_now().await;
    let reader = Reader {
        identity: identity.clone(),
        authenticator: app.authenticator.clone(),
        request_id,
    };
    Ok(respond(watch, form, id, reader))
}

fn key_of<T: Serialize>(
    headers: &HeaderMap,
    what: &str,
    body: &T,
) -> Result<Option<IdempotencyKey>, ApiError> {
    const POINTER: &str = "/header/Idempotency-Key";
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(ApiError::new(
            Code::InvalidRequest,
            "Idempotency-Key stands twice; send one.",
        ));
    }
    idempotency_key(value.to_str().unwrap_or_default(), POINTER, what, body).map(Some)
}

pub(crate) fn last_event_id(headers: &HeaderMap, query: Option<&str>) -> Result<u64, ApiError> {
    let (pointer, text) = match (headers.get("last-event-id"), query) {
        (Some(value), _) => ("/header/Last-Event-ID", value.to_str().unwrap_or("?")),
        (None, Some(text)) => ("/query/last_event_id", text),
        (None, None) => return Ok(0),
    };
    let is_number = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let number = if is_number { text.parse().ok() } else { None };
    number.ok_or_else(|| {
        ApiError::invalid(pointer, "This must be the id of an event: a whole number.")
    })
}

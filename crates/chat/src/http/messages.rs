//! Messages: send one, resume or cancel its answer, generate another.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{FromRequestParts, State},
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
    domain::{IdempotencyKey, SessionId, TurnInput},
    http::{
        error::IDEMPOTENCY_KEY,
        requests::{Regenerate, SendMessage, disconnect_rule, idempotency_key, same_user},
        sent_message::{SentMessage, collect},
        sse::{StreamFormat, StreamedEvent, respond},
        validation::{Checks, MessagePath, SessionPath, message_in_path, session_in_path},
    },
    state::AppState,
    turns::request::{StartedTurn, TurnRequest},
};

#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct StreamQuery {
    /// Whether the answer is streamed.
    #[serde(default)]
    stream: bool,
}

#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ResumeQuery {
    /// The last event that was received; the header `Last-Event-ID` comes first.
    #[param(value_type = Option<u64>)]
    last_event_id: Option<String>,
}

/// Who asks for a turn, and the request as it is counted and traced.
#[derive(FromRequestParts)]
pub struct TurnCaller {
    identity: Identity,
    #[from_request(via(Extension))]
    ticket: RateLimitTicket,
    request_id: RequestId,
}

/// Sends a message to a session; the answer is whole, or streamed with `?stream=true`.
#[utoipa::path(
    post, path = "/chat/message", tag = "messages",
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
)]
pub async fn send(
    State(app): State<Arc<AppState>>,
    caller: TurnCaller,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
    Body(mut body): Body<SendMessage>,
) -> Result<Response, ApiError> {
    // Taken out: what an idempotency key stands for does not depend on it.
    same_user(&caller.identity, body.user_id.take().as_deref())?;
    let mut checks = Checks::default();
    checks.text("/message", &body.message);
    let session = checks.session(body.session_id.as_deref());
    checks.turn(body.model.as_deref(), body.system.as_deref(), body.options.as_ref());
    checks.finish()?;
    let key = key_of(&headers, "message", &body)?;
    let format = query.stream.then(|| StreamFormat::accepted(&headers));
    let session = session.unwrap_or_else(SessionId::default_session);
    let values = Regenerate {
        model: body.model,
        system: body.system,
        options: body.options,
        on_disconnect: body.on_disconnect,
    };
    let input = TurnInput::Message(body.message);
    answer(&app, caller, session, input, values, key, format).await
}

/// Asks for another answer to a session's last message.
#[utoipa::path(
    post, path = "/chat/sessions/{session_id}/regenerate", tag = "messages",
    params(SessionPath, StreamQuery, ("Idempotency-Key" = Option<String>, Header, description = "As for a message.")),
    request_body = Option<Regenerate>,
    responses(
        (status = 200, description = "The new answer, as for a message.", content((SentMessage = "application/json"), (StreamedEvent = "text/event-stream"), (String = "application/x-ndjson"))),
        (status = 404, description = "`session_not_found`, `model_not_found`, `message_not_found`", body = Problem),
        (status = 409, description = "`session_busy`", body = Problem),
        (status = 422, description = "`validation_failed`, `context_too_long`, `idempotency_mismatch`", body = Problem),
        (status = 502, description = "`llm_failed`", body = Problem),
        (status = 504, description = "`llm_timeout`", body = Problem),
    ),
)]
pub async fn regenerate(
    State(app): State<Arc<AppState>>,
    caller: TurnCaller,
    Path(SessionPath { session_id }): Path<SessionPath>,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
    OptionalBody(body): OptionalBody<Regenerate>,
) -> Result<Response, ApiError> {
    let session = session_in_path(&session_id)?;
    let mut checks = Checks::default();
    checks.turn(body.model.as_deref(), body.system.as_deref(), body.options.as_ref());
    checks.finish()?;
    let key = key_of(&headers, &format!("regenerate {session}"), &body)?;
    let format = query.stream.then(|| StreamFormat::accepted(&headers));
    answer(&app, caller, session, TurnInput::Regenerate, body, key, format).await
}

/// Streams an answer's events again, after `Last-Event-ID`: replayed, then live. 204 where nothing comes after it.
#[utoipa::path(
    get, path = "/chat/messages/{message_id}/stream", tag = "messages",
    params(MessagePath, ResumeQuery, ("Last-Event-ID" = Option<u64>, Header, description = "The last event that was received.")),
    responses(
        (status = 200, description = "The events.", content((StreamedEvent = "text/event-stream"), (String = "application/x-ndjson"))),
        (status = 204, description = "The ending was received already."),
        (status = 404, description = "`message_not_found`", body = Problem),
    ),
)]
pub async fn stream(
    State(app): State<Arc<AppState>>,
    identity: Identity,
    Deadline(deadline): Deadline,
    request_id: RequestId,
    Path(MessagePath { message_id }): Path<MessagePath>,
    Query(query): Query<ResumeQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = message_in_path(&message_id)?;
    let after = last_event_id(&headers, query.last_event_id.as_deref())?;
    let subscriber = app.turns.resume(&identity.owner, &id, after, deadline).await?;
    if subscriber.is_past_end() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let revoked = app.until_revoked(&identity);
    Ok(respond(subscriber, StreamFormat::accepted(&headers), id, request_id.0, revoked))
}

/// Stops an answer; what was said is kept. One that has ended stays as it is.
#[utoipa::path(
    post, path = "/chat/messages/{message_id}/cancel", tag = "messages",
    params(MessagePath),
    responses((status = 202, description = "It stops, or has ended."), (status = 404, description = "`message_not_found`", body = Problem)),
)]
pub async fn cancel(
    State(app): State<Arc<AppState>>,
    identity: Identity,
    Deadline(deadline): Deadline,
    Path(MessagePath { message_id }): Path<MessagePath>,
) -> Result<StatusCode, ApiError> {
    app.turns.cancel(&identity.owner, &message_in_path(&message_id)?, deadline).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Starts the turn, and answers in the format that was asked for: whole where there is none.
async fn answer(
    app: &Arc<AppState>,
    caller: TurnCaller,
    session: SessionId,
    input: TurnInput,
    values: Regenerate,
    key: Option<IdempotencyKey>,
    format: Option<StreamFormat>,
) -> Result<Response, ApiError> {
    let TurnCaller { identity, ticket, request_id } = caller;
    // A client can come back for a streamed answer, and for one with an idempotency key.
    let can_resume = format.is_some() || key.is_some();
    let request = TurnRequest {
        identity: identity.clone(),
        session,
        input,
        model: values.model,
        system: values.system,
        options: values.options.unwrap_or_default(),
        on_disconnect: disconnect_rule(values.on_disconnect, app.disconnect_grace, can_resume),
        key,
        ticket,
        request_id: Arc::clone(&request_id.0),
    };
    // From here on: reading the body may have taken a while.
    let Deadline(deadline) = Deadline::from_now();
    let mut revoked = app.until_revoked(&identity);
    let StartedTurn { id, events, .. } = tokio::select! {
        biased;
        started = app.turns.start(request, deadline) => started?,
        error = &mut revoked => return Err(error),
    };
    let Some(format) = format else {
        return tokio::select! {
            biased;
            answer = collect(events) => answer.map(|answer| Json(answer).into_response()),
            error = revoked => Err(error),
        };
    };
    // The model is asked first: its answer takes longer than writing `start`.
    tokio::task::yield_now().await;
    Ok(respond(events, format, id, request_id.0, revoked))
}

fn key_of<T: Serialize>(
    headers: &HeaderMap,
    what: &str,
    body: &T,
) -> Result<Option<IdempotencyKey>, ApiError> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        let detail = "The header Idempotency-Key was sent more than once; send it once.";
        return Err(ApiError::new(Code::InvalidRequest, detail));
    }
    let key = idempotency_key(value.to_str().unwrap_or_default(), IDEMPOTENCY_KEY, what, body);
    key.map(Some).map_err(|error| match error.code {
        // Not a value that is out of its range: a header that is none.
        Code::ValidationFailed => ApiError { code: Code::InvalidRequest, ..error },
        _ => error,
    })
}

pub(crate) fn last_event_id(headers: &HeaderMap, query: Option<&str>) -> Result<u64, ApiError> {
    let (pointer, text) = match (headers.get("last-event-id"), query) {
        (Some(value), _) => ("/header/Last-Event-ID", value.to_str().unwrap_or("?")),
        (None, Some(text)) => ("/query/last_event_id", text),
        (None, None) => return Ok(0),
    };
    let number = text.parse().ok().filter(|_| text.bytes().all(|c| c.is_ascii_digit()));
    let wrong = || ApiError::invalid(pointer, "This must be the id of an event: a whole number.");
    number.ok_or_else(wrong)
}

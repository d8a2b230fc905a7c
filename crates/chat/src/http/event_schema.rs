//! What a stream carries, for the OpenAPI document: the JSON itself is made in [`super::encode`].

#![expect(dead_code, reason = "only the schemas are used")]

use utoipa::ToSchema;

use crate::{
    domain::event::Start,
    http::encode::{DoneData, ErrorData},
};

/// An event as a WebSocket frame or a line of NDJSON. Every event of a turn also has `id` (from 1, growing) and `message_id`; `start`
/// and an `error` that refused a frame have the `ref` of that frame. An `error` without `id` concerns the connection. Over server-sent
/// events the same members are the JSON in `data`, and `type` is the event's name; `token` has none there.
#[derive(ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ServerFrame {
    /// The turn was accepted.
    Start(Start),
    /// The turn waits for the model server.
    Queued(QueuedData),
    /// A piece of the answer, or of the thoughts before it.
    Token(TokenData),
    /// The answer is complete, or was stopped.
    Done(DoneData<'static>),
    /// The turn failed, or a frame was refused.
    Error(ErrorData<'static>),
    /// On a WebSocket: who speaks, after an `auth` frame and 60 s before the token expires.
    Auth(AuthData),
}

#[derive(ToSchema)]
pub struct QueuedData {
    /// How many turns wait ahead.
    position: usize,
}

/// `token` or `thinking`.
#[derive(ToSchema)]
pub struct TokenData {
    /// Text of the answer.
    #[schema(nullable = false)]
    token: Option<String>,
    /// Thoughts of a model that thinks.
    #[schema(nullable = false)]
    thinking: Option<String>,
    /// `false`.
    is_final: bool,
}

#[derive(ToSchema)]
pub struct AuthData {
    user_id: String,
    /// When the token expires; `null` for an API key without an end.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

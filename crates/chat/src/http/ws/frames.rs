//! What clients send on a socket, checked into values.

use common::errors::{ApiError, json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    domain::{MessageId, Options, SessionId},
    http::{
        requests::DisconnectRule,
        validation::{Checks, message_in_path},
    },
};

#[derive(Debug)]
pub enum Frame {
    Message(Box<MessageFrame>),
    Cancel(MessageId),
    /// Watch a turn again, after that event.
    Resume(MessageId, u64),
    /// Speak under that token from now on.
    Auth(String),
}

/// A turn to begin: the members are those of `SendMessage`. What is not part of the request that an idempotency key stands
/// for is not serialized.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"message": "Hello!", "ref": "1"}))]
pub struct MessageFrame {
    /// `message`, or absent.
    #[serde(rename = "type", skip_serializing_if = "never")]
    _kind: Option<String>,
    pub message: String,
    #[serde(skip_serializing_if = "never")]
    pub user_id: Option<String>,
    pub session_id: Option<String>,
    pub model: Option<String>,
    pub system: Option<String>,
    pub options: Option<Options>,
    pub on_disconnect: Option<DisconnectRule>,
    /// As the header `Idempotency-Key`.
    #[serde(skip_serializing_if = "never")]
    pub idempotency_key: Option<String>,
    #[serde(rename = "ref", skip_serializing_if = "never")]
    #[schema(schema_with = reference_schema)]
    _reference: Option<Reference>,
}

/// Leaves a member out whatever it is. (Unlike `skip_serializing`, which also hides it from the OpenAPI document.)
fn never<T>(_: &Option<T>) -> bool {
    true
}

/// What a client tells its frames apart by: a short text or a number, given back as it came.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged, expecting = "Expected a text or a number.")]
enum Reference {
    Text(String),
    Number(serde_json::Number),
}

fn reference_schema() -> utoipa::openapi::Schema {
    use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Number]))
        .description(Some(
            "Comes back on the `start` or the `error` that answers this frame; at most 256 bytes as JSON.",
        ))
        .into()
}

/// Longest `ref`, in bytes.
const REFERENCE_MAX: usize = 256;

/// The members that decide how the others are read.
#[derive(Deserialize, Default)]
struct Head {
    #[serde(rename = "type", default)]
    kind: Option<serde_json::Value>,
    #[serde(rename = "ref", default)]
    reference: Option<serde_json::Value>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelFrame {
    #[serde(rename = "type")]
    _kind: String,
    message_id: String,
    #[serde(rename = "ref", default)]
    #[schema(schema_with = reference_schema)]
    _reference: Option<Reference>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResumeFrame {
    #[serde(rename = "type")]
    _kind: String,
    message_id: String,
    last_event_id: Option<u64>,
    #[serde(rename = "ref", default)]
    #[schema(schema_with = reference_schema)]
    _reference: Option<Reference>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthFrame {
    #[serde(rename = "type")]
    _kind: String,
    token: String,
    #[serde(rename = "ref", default)]
    #[schema(schema_with = reference_schema)]
    _reference: Option<Reference>,
}

impl MessageFrame {
    pub fn session(&self) -> SessionId {
        let named = self.session_id.as_deref().and_then(SessionId::parse);
        named.unwrap_or_else(SessionId::default_session)
    }

    fn check(&self) -> Result<(), ApiError> {
        let mut checks = Checks::default();
        checks.text("/message", &self.message);
        checks.session(self.session_id.as_deref());
        checks.turn(self.model.as_deref(), self.system.as_deref(), self.options.as_ref());
        checks.finish()
    }
}

/// Reads a frame, and its `ref` as JSON, which a refusal has too.
pub fn parse(text: &str) -> (Option<String>, Result<Frame, ApiError>) {
    // What is no object, or has members twice, is refused below in full; here only the two members matter.
    let head: Head = serde_json::from_str(text).unwrap_or_default();
    // What is neither a text nor a number is refused with the frame.
    let plain = head.reference.filter(|value| value.is_string() || value.is_number());
    let reference = plain.map(|value| value.to_string());
    if reference.as_ref().is_some_and(|json| json.len() > REFERENCE_MAX) {
        return (None, Err(ApiError::invalid("/ref", "A ref has at most 256 bytes as JSON.")));
    }
    let kind = head.kind.as_ref().map(|kind| kind.as_str().unwrap_or_default());
    (reference, read(kind, text.as_bytes()))
}

fn read(kind: Option<&str>, bytes: &[u8]) -> Result<Frame, ApiError> {
    Ok(match kind {
        None | Some("message") => {
            let frame: MessageFrame = json::parse(bytes)?;
            frame.check()?;
            Frame::Message(Box::new(frame))
        }
        Some("cancel") => {
            let frame: CancelFrame = json::parse(bytes)?;
            Frame::Cancel(message_in_path(&frame.message_id)?)
        }
        Some("resume") => {
            let frame: ResumeFrame = json::parse(bytes)?;
            Frame::Resume(message_in_path(&frame.message_id)?, frame.last_event_id.unwrap_or(0))
        }
        Some("auth") => Frame::Auth(json::parse::<AuthFrame>(bytes)?.token),
        Some(_) => {
            return Err(ApiError::invalid("/type", "A type is message, cancel, resume or auth."));
        }
    })
}

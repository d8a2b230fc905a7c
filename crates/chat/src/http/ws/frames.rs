//! What clients send on a socket, checked into values.

use common::errors::{ApiError, json};
use serde::{Deserialize, Serialize};

use crate::{
    domain::{MessageId, Options, SessionId},
    http::{
        requests::DisconnectRule,
        validation::{Checks, message_in_path},
    },
};

/// A frame of a client.
#[derive(Debug)]
pub enum Frame {
    /// Begin a turn.
    Message(Box<MessageFrame>),
    /// Stop a turn.
    Cancel(MessageId),
    /// Watch a turn again, after that event.
    Resume(MessageId, u64),
    /// Speak under that token from now on.
    Auth(String),
}

/// A refusal with the `ref` of the frame that it answers, as JSON.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub error: Box<ApiError>,
    /// The frame's `ref`.
    pub reference: Option<String>,
}

/// A turn to begin.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MessageFrame {
    #[serde(rename = "type", skip_serializing)]
    _kind: Option<String>,
    pub message: String,
    #[serde(skip_serializing)]
    pub user_id: Option<String>,
    pub session_id: Option<String>,
    pub model: Option<String>,
    pub system: Option<String>,
    pub options: Option<Options>,
    pub on_disconnect: Option<DisconnectRule>,
    #[serde(skip_serializing)]
    pub idempotency_key: Option<String>,
    #[serde(rename = "ref", skip_serializing)]
    _reference: Option<Reference>,
}

/// What a client tells its frames apart by: a short text or a number, given back as it came.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Reference {
    Text(#[expect(dead_code, reason = "read only to be checked")] String),
    Number(#[expect(dead_code, reason = "read only to be checked")] serde_json::Number),
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CancelFrame {
    #[serde(rename = "type")]
    _kind: String,
    message_id: String,
    #[serde(rename = "ref", default)]
    _reference: Option<Reference>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResumeFrame {
    #[serde(rename = "type")]
    _kind: String,
    message_id: String,
    last_event_id: Option<u64>,
    #[serde(rename = "ref", default)]
    _reference: Option<Reference>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthFrame {
    #[serde(rename = "type")]
    _kind: String,
    token: String,
    #[serde(rename = "ref", default)]
    _reference: Option<Reference>,
}

impl MessageFrame {
    /// The session that it names.
    pub fn session(&self) -> SessionId {
        self.session_id
            .as_deref()
            .and_then(SessionId::parse)
            .unwrap_or_else(SessionId::default_session)
    }

    fn check(&self) -> Result<(), ApiError> {
        let mut checks = Checks::default();
        checks.text("/message", &self.message);
        checks.session(self.session_id.as_deref());
        checks.turn(
            self.model.as_deref(),
            self.system.as_deref(),
            self.options.as_ref(),
        );
        checks.finish()
    }
}

/// Reads a frame, and its `ref` as JSON.
pub fn parse(text: &str) -> Result<(Frame, Option<String>), Refused> {
    // What is no object, or has members twice, is refused below in full; here only the two members matter.
    let head: Head = serde_json::from_str(text).unwrap_or_default();
    let reference = head.reference.as_ref().and_then(reference_json);
    if reference.is_none() && head.reference.as_ref().is_some_and(is_plain) {
        let error = ApiError::invalid("/ref", "A ref has at most 256 bytes as JSON.");
        return Err(Refused {
            error: Box::new(error),
            reference: None,
        });
    }
    let refused = |error| Refused {
        error: Box::new(error),
        reference: reference.clone(),
    };
    let kind = head.kind.as_ref();
    let kind = kind.map(|kind| kind.as_str().unwrap_or_default());
    let frame = read(kind, text.as_bytes()).map_err(refused)?;
    Ok((frame, reference))
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
            Frame::Resume(
                message_in_path(&frame.message_id)?,
                frame.last_event_id.unwrap_or(0),
            )
        }
        Some("auth") => Frame::Auth(json::parse::<AuthFrame>(bytes)?.token),
        Some(_) => {
            return Err(ApiError::invalid(
                "/type",
                "A type is message, cancel, resume or auth.",
            ));
        }
    })
}

/// A `ref` as it is given back: JSON on one line; `None` where it is neither a short text nor a number.
fn reference_json(value: &serde_json::Value) -> Option<String> {
    Some(value.to_string()).filter(|json| is_plain(value) && json.len() <= REFERENCE_MAX)
}

fn is_plain(value: &serde_json::Value) -> bool {
    value.is_string() || value.is_number()
}

//! The JSON of a turn's events for clients: server-sent events, NDJSON lines and WebSocket frames.

use std::time::Duration;

use axum::body::Bytes;
use common::errors::{ApiError, Code, FieldError, status_of};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::{
        Context, Ending, FinishReason, Usage,
        event::{End, EventRef, Start},
    },
    http::error::about,
};

/// The data of `done`.
#[derive(Serialize, ToSchema)]
pub struct DoneData<'a> {
    token: &'static str,
    is_final: bool,
    finish_reason: FinishReason,
    usage: Usage,
    context: Context,
    model: &'a str,
    provider: &'a str,
}

/// The data of `error`: a problem document, whose `type` is added where the frame has none of its own.
#[derive(Serialize, ToSchema)]
pub struct ErrorData<'a> {
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: Code,
    request_id: &'a str,
    /// Whether the same request may succeed later.
    retryable: bool,
    /// What the model cannot do, on `unsupported_by_model` only: a JSON pointer to the member that asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pointer: Option<&'a str>,
    /// The members that are wrong, or that the model cannot do.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    /// Seconds; an event has no headers to say it in.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

impl<'a> ErrorData<'a> {
    fn of(error: &'a ApiError, request_id: &'a str) -> Self {
        let code = error.code;
        let lacking = error.errors.first().filter(|_| code == Code::UnsupportedByModel);
        Self {
            title: code.title(),
            status: status_of(code).as_u16(),
            detail: &error.detail,
            code,
            request_id,
            retryable: code.retryable(),
            pointer: lacking.map(|error| error.pointer.as_str()),
            errors: &error.errors,
            retry_after: error.retry_after_seconds(),
        }
    }
}

fn name(event: EventRef<'_>) -> &'static str {
    match event {
        EventRef::Start(_) => "start",
        EventRef::Queued { .. } => "queued",
        EventRef::Token(_) | EventRef::Thinking(_) => "token",
        EventRef::End(End { ending: Ending::Done { .. }, .. }) => "done",
        EventRef::End(End { ending: Ending::Error { .. }, .. }) => "error",
    }
}

/// Appends an event as a server-sent event. A token has no event name, so that every plain reader sees the text. `request_id` is
/// the reader's, for an `error` whose own request is not known.
pub fn sse(id: u64, event: EventRef<'_>, request_id: &str, out: &mut String) {
    out.push_str("id: ");
    push_number(id, out);
    if !matches!(event, EventRef::Token(_) | EventRef::Thinking(_)) {
        out.push_str("\nevent: ");
        out.push_str(name(event));
    }
    out.push_str("\ndata: {");
    if let EventRef::End(End { ending: Ending::Error { .. }, .. }) = event {
        out.push_str("\"type\":\"about:blank\",");
    }
    push_members(event, request_id, out);
    out.push_str("}\n\n");
}

/// Appends an event as a JSON object on one line: a WebSocket frame, or with a line feed a line of NDJSON. `reference` is the JSON
/// of the client's `ref`, which comes back on `start`.
pub fn json(
    id: u64,
    event: EventRef<'_>,
    message_id: &str,
    reference: Option<&str>,
    request_id: &str,
    out: &mut String,
) {
    out.push_str("{\"type\":\"");
    out.push_str(name(event));
    out.push_str("\",\"id\":");
    push_number(id, out);
    // `start` has the id among its members.
    if let EventRef::Start(Start { .. }) = event {
        push_reference(reference, out);
    } else {
        push_message_id(message_id, out);
    }
    out.push(',');
    push_members(event, request_id, out);
    out.push('}');
}

/// Appends an `error` that is no event of a turn, and so has no `id`; `message_id` is the turn that it ends the watch of.
pub fn connection_error(
    error: &ApiError,
    request_id: &str,
    message_id: Option<&str>,
    reference: Option<&str>,
    out: &mut String,
) {
    out.push_str("{\"type\":\"error\"");
    if let Some(message_id) = message_id {
        push_message_id(message_id, out);
    }
    push_reference(reference, out);
    out.push(',');
    push_object_members(&ErrorData::of(error, request_id), out);
    out.push('}');
}

/// Appends such an `error` as a server-sent event without an id.
pub fn sse_connection_error(error: &ApiError, request_id: &str, out: &mut String) {
    out.push_str("event: error\ndata: {\"type\":\"about:blank\",");
    push_object_members(&ErrorData::of(error, request_id), out);
    out.push_str("}\n\n");
}

/// Lines of JSON for a body that is read by lines. Some clients (Python's) end a line also where only Unicode breaks one, so that
/// these characters, which stand inside strings alone, are escaped.
pub fn lines(out: String) -> Bytes {
    const BREAKS: [(char, &str); 3] =
        [('\u{85}', "\\u0085"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")];
    if out.is_ascii() || !out.contains(BREAKS.map(|(char, _)| char)) {
        return out.into();
    }
    BREAKS.iter().fold(out, |out, (char, escaped)| out.replace(*char, escaped)).into()
}

fn push_message_id(message_id: &str, out: &mut String) {
    out.push_str(",\"message_id\":\"");
    out.push_str(message_id);
    out.push('"');
}

fn push_reference(reference: Option<&str>, out: &mut String) {
    if let Some(reference) = reference {
        out.push_str(",\"ref\":");
        out.push_str(reference);
    }
}

/// Appends the members of an event's data, without braces.
fn push_members(event: EventRef<'_>, reader: &str, out: &mut String) {
    match event {
        EventRef::Start(start) => push_object_members(start, out),
        EventRef::Queued { position } => {
            out.push_str("\"position\":");
            push_number(position as u64, out);
        }
        EventRef::Token(text) => push_text("\"token\":", text, out),
        EventRef::Thinking(text) => push_text("\"thinking\":", text, out),
        EventRef::End(End { ending, request_id, .. }) => match ending {
            Ending::Done { finish_reason, usage, context, model, provider } => {
                let done = DoneData {
                    token: "",
                    is_final: true,
                    finish_reason: *finish_reason,
                    usage: *usage,
                    context: *context,
                    model,
                    provider,
                };
                push_object_members(&done, out);
            }
            Ending::Error { code, detail, retry_after, pointer } => {
                let request_id = if request_id.is_empty() { reader } else { request_id };
                let retry_after = retry_after.map(Duration::from_secs);
                let error = about(pointer.as_deref(), *code, detail.clone());
                let error = ApiError { retry_after, ..error };
                push_object_members(&ErrorData::of(&error, request_id), out);
            }
        },
    }
}

fn push_text(name: &str, text: &str, out: &mut String) {
    out.push_str(name);
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        // Encoding a string cannot fail.
        out.push_str(&serde_json::to_string(text).unwrap_or_default());
    }
    out.push_str(",\"is_final\":false");
}

/// These structs are made of strings and numbers: encoding them cannot fail.
fn push_object_members<T: Serialize>(object: &T, out: &mut String) {
    let json = serde_json::to_string(object).unwrap_or_default();
    out.push_str(json.get(1..json.len().saturating_sub(1)).unwrap_or_default());
}

fn push_number(number: u64, out: &mut String) {
    out.push_str(itoa::Buffer::new().format(number));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{MessageId, SessionId, event::Event};

    #[test]
    fn a_token_has_no_event_name_and_others_have() {
        let mut out = String::new();
        sse(1, EventRef::Token("a\n"), "r", &mut out);
        sse(2, EventRef::Queued { position: 3 }, "r", &mut out);
        assert_eq!(
            out,
            "id: 1\ndata: {\"token\":\"a\\n\",\"is_final\":false}\n\nid: 2\nevent: queued\ndata: {\"position\":3}\n\n"
        );
    }

    #[test]
    fn lines_break_nowhere_else() {
        let said = "one\u{2028}two\u{2029}three\u{85}four é 語 \u{2027}";
        let line = String::from_utf8(lines(serde_json::json!([said]).to_string()).into()).unwrap();
        assert_eq!(line, "[\"one\\u2028two\\u2029three\\u0085four é 語 \u{2027}\"]");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&line).unwrap(),
            serde_json::json!([said])
        );
        assert_eq!(lines("é\n".to_owned()), "é\n");
    }

    #[test]
    fn a_json_frame_has_each_member_once() {
        let error = Event::end(Ending::error(Code::Interrupted, "d"), &"r".into());
        let id = MessageId::new("h2k9w0qzs1ab", 0);
        let start = Start {
            message_id: id.clone(),
            session_id: SessionId::default_session(),
            user_id: "alice".into(),
            model: "m".into(),
            provider: "demo".into(),
            reset: false,
        };
        for event in [error.as_ref(), EventRef::Start(&start)] {
            let mut out = String::new();
            json(3, event, id.as_str(), Some("\"r\""), "reader", &mut out);
            assert!(!out.contains("reader"), "its own request is known: {out}");
            for member in ["\"type\":", "\"message_id\":", "\"id\":"] {
                assert_eq!(out.matches(member).count(), 1, "{member} in {out}");
            }
            assert_eq!(out.contains("\"ref\":\"r\""), matches!(event, EventRef::Start(_)));
        }
        let mut out = String::new();
        sse(3, error.as_ref(), "reader", &mut out);
        assert!(out.contains("data: {\"type\":\"about:blank\",\"title\":"), "{out}");
        assert!(out.contains("\"request_id\":\"r\""), "{out}");
        let recovered = Event::end(Ending::interrupted(), &"".into());
        sse(4, recovered.as_ref(), "reader", &mut out);
        assert!(out.contains("\"request_id\":\"reader\""), "{out}");
    }
}

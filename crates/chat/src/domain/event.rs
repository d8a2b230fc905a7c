//! The events of a turn: what each says, and the line that keeps it in the store.

use common::errors::{Code, status_of};
use serde::Serialize;

use crate::domain::{Context, FinishReason, Usage, records::Ending};

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The turn is accepted.
    Start,
    /// It waits for a place at the model server.
    Queued,
    /// A piece of the answer.
    Token,
    /// A piece of the thoughts before it: a `token` to every reader.
    Thinking,
    /// The end, with an answer.
    Done,
    /// The end, for a reason.
    Error,
    /// The end, told by another instance since the turn's own is dead: an [`Kind::Error`] to every reader. Its id may be
    /// one that the dead instance had given to an event which it never stored.
    Lost,
}

impl Kind {
    /// The name that readers see.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Start => "start",
            Kind::Queued => "queued",
            Kind::Token | Kind::Thinking => "token",
            Kind::Done => "done",
            Kind::Error | Kind::Lost => "error",
        }
    }

    /// Whether nothing follows it.
    pub fn is_ending(self) -> bool {
        matches!(self, Kind::Done | Kind::Error | Kind::Lost)
    }

    /// Whether it is a piece of text.
    pub fn is_text(self) -> bool {
        matches!(self, Kind::Token | Kind::Thinking)
    }

    /// Appends the members of an event's data object, as JSON on one line and without the braces, so that each wire can add
    /// its own.
    pub fn write_members(self, data: &str, out: &mut String) {
        match self {
            Kind::Token => {
                out.push_str("\"token\":");
                write_string(data, out);
                out.push_str(",\"is_final\":false");
            }
            Kind::Thinking => {
                out.push_str("\"thinking\":");
                write_string(data, out);
                out.push_str(",\"is_final\":false");
            }
            _ => out.push_str(data),
        }
    }

    fn stored(self) -> &'static str {
        match self {
            Kind::Thinking => "thinking",
            Kind::Lost => "lost",
            kind => kind.as_str(),
        }
    }

    fn from_stored(name: &str) -> Option<Self> {
        Some(match name {
            "start" => Kind::Start,
            "queued" => Kind::Queued,
            "token" => Kind::Token,
            "thinking" => Kind::Thinking,
            "done" => Kind::Done,
            "error" => Kind::Error,
            "lost" => Kind::Lost,
            _ => return None,
        })
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What it is.
    pub kind: Kind,
    /// Of a piece of text: the text itself. Of every other: the members of its data object, as JSON on one line and without the
    /// braces.
    pub data: String,
}

/// The data of `start`.
#[derive(Clone, Debug, Serialize)]
pub struct Start<'a> {
    /// The answer's id.
    pub message_id: &'a str,
    /// The session.
    pub session_id: &'a str,
    /// The user.
    pub user_id: &'a str,
    /// The model asked.
    pub model: &'a str,
    /// The provider that is tried first.
    pub provider: &'a str,
    /// The reader drops what it has: the whole text follows.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reset: bool,
}

#[derive(Serialize)]
struct Done<'a> {
    token: &'static str,
    is_final: bool,
    finish_reason: FinishReason,
    usage: Usage,
    context: Context,
    model: &'a str,
    provider: &'a str,
}

#[derive(Serialize)]
struct Failed<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: Code,
    request_id: &'a str,
    retryable: bool,
}

impl Event {
    /// `start`.
    pub fn start(start: &Start<'_>) -> Self {
        Self {
            kind: Kind::Start,
            data: members(start),
        }
    }

    /// `queued`: so many wait ahead.
    pub fn queued(position: usize) -> Self {
        Self {
            kind: Kind::Queued,
            data: format!("\"position\":{position}"),
        }
    }

    /// `token` with a piece of the answer.
    pub fn token(text: &str) -> Self {
        Self {
            kind: Kind::Token,
            data: text.to_owned(),
        }
    }

    /// `token` with a piece of the thoughts.
    pub fn thinking(text: &str) -> Self {
        Self {
            kind: Kind::Thinking,
            data: text.to_owned(),
        }
    }

    /// The ending: `done` or `error`. `request_id` is that of the request that began the turn.
    pub fn ending(ending: &Ending, request_id: &str) -> Self {
        match ending {
            Ending::Done {
                finish_reason,
                usage,
                context,
                model,
                provider,
            } => {
                let (finish_reason, usage, context) = (*finish_reason, *usage, *context);
                let done = Done {
                    token: "",
                    is_final: true,
                    finish_reason,
                    usage,
                    context,
                    model,
                    provider,
                };
                Self {
                    kind: Kind::Done,
                    data: members(&done),
                }
            }
            Ending::Error { code, detail } => {
                let failed = Failed {
                    kind: "about:blank",
                    title: code.title(),
                    status: status_of(*code).as_u16(),
                    detail,
                    code: *code,
                    request_id,
                    retryable: code.retryable(),
                };
                Self {
                    kind: Kind::Error,
                    data: members(&failed),
                }
            }
        }
    }

    /// Appends the event as it is kept in the store: `<id> <kind> <data>` and a line feed; a text as a JSON string.
    pub fn write_line(id: u64, kind: Kind, data: &str, line: &mut String) {
        write_id(id, line);
        line.push(' ');
        line.push_str(kind.stored());
        line.push(' ');
        if kind.is_text() {
            write_string(data, line);
        } else {
            line.push_str(data);
        }
        line.push('\n');
    }

    /// The event of a stored line, with its id; `None` where the line is not one.
    pub fn from_line(line: &str) -> Option<(u64, Self)> {
        let mut parts = line.splitn(3, ' ');
        let id = parts.next()?.parse().ok()?;
        let kind = Kind::from_stored(parts.next()?)?;
        let data = parts.next()?;
        let data = if kind.is_text() {
            serde_json::from_str(data).ok()?
        } else {
            data.to_owned()
        };
        Some((id, Self { kind, data }))
    }
}

/// The members of an object's JSON. These objects are made of strings and numbers: writing them cannot fail.
fn members<T: Serialize>(data: &T) -> String {
    let json = serde_json::to_string(data).unwrap_or_default();
    json.get(1..json.len().saturating_sub(1))
        .unwrap_or_default()
        .to_owned()
}

/// Appends a text as a JSON string.
fn write_string(text: &str, out: &mut String) {
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        // Writing a string into memory cannot fail.
        out.push_str(&serde_json::to_string(text).unwrap_or_default());
    }
}

/// Appends an event's id.
pub fn write_id(id: u64, out: &mut String) {
    out.push_str(itoa::Buffer::new().format(id));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_the_same_after_the_store() {
        for text in ["", "a b\nc", "\u{2028}data: x\r\n\n", "\"\\", "\u{1}\u{7f}"] {
            for event in [Event::token(text), Event::thinking(text), Event::queued(3)] {
                let mut line = String::new();
                Event::write_line(7, event.kind, &event.data, &mut line);
                assert_eq!(line.matches('\n').count(), 1, "one line: {line:?}");
                assert_eq!(
                    Event::from_line(line.trim_end_matches('\n')),
                    Some((7, event))
                );
            }
        }
    }
}

//! The events of a turn: what each says, and the line that keeps it in the store.

use common::errors::Code;
use serde::Serialize;

use crate::models::{Context, FinishReason, Usage, records::Ending};

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The turn is accepted.
    Start,
    /// It waits for a place at the model server.
    Queued,
    /// A piece of the answer or of the thoughts before it.
    Token,
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
            Kind::Token => "token",
            Kind::Done => "done",
            Kind::Error | Kind::Lost => "error",
        }
    }

    /// Whether nothing follows it.
    pub fn is_ending(self) -> bool {
        matches!(self, Kind::Done | Kind::Error | Kind::Lost)
    }

    fn stored(self) -> &'static str {
        match self {
            Kind::Lost => "lost",
            kind => kind.as_str(),
        }
    }

    fn from_stored(name: &str) -> Option<Self> {
        Some(match name {
            "start" => Kind::Start,
            "queued" => Kind::Queued,
            "token" => Kind::Token,
            "done" => Kind::Done,
            "error" => Kind::Error,
            "lost" => Kind::Lost,
            _ => return None,
        })
    }
}

/// One event: its kind and the members of its data object, without the braces, so that each wire can add its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What it is.
    pub kind: Kind,
    /// The members of its data: JSON on one line.
    pub members: String,
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
            members: members(start),
        }
    }

    /// `queued`: so many wait ahead.
    pub fn queued(position: usize) -> Self {
        Self {
            kind: Kind::Queued,
            members: format!("\"position\":{position}"),
        }
    }

    /// `token` with a piece of the answer.
    pub fn token(text: &str) -> Self {
        Self {
            kind: Kind::Token,
            members: piece("\"token\":", text),
        }
    }

    /// `token` with a piece of the thoughts.
    pub fn thinking(text: &str) -> Self {
        Self {
            kind: Kind::Token,
            members: piece("\"thinking\":", text),
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
                    members: members(&done),
                }
            }
            Ending::Error { code, detail } => {
                let failed = Failed {
                    kind: "about:blank",
                    title: code.title(),
                    status: code.status().as_u16(),
                    detail,
                    code: *code,
                    request_id,
                    retryable: code.retryable(),
                };
                Self {
                    kind: Kind::Error,
                    members: members(&failed),
                }
            }
        }
    }

    /// Appends the event as it is kept in the store: `<id> <kind> <members>` and a line feed.
    pub fn write_line(id: u64, kind: Kind, members: &str, line: &mut String) {
        line.push_str(&id.to_string());
        line.push(' ');
        line.push_str(kind.stored());
        line.push(' ');
        line.push_str(members);
        line.push('\n');
    }

    /// The event of a stored line, with its id; `None` where the line is not one.
    pub fn from_line(line: &str) -> Option<(u64, Self)> {
        let mut parts = line.splitn(3, ' ');
        let id = parts.next()?.parse().ok()?;
        let kind = Kind::from_stored(parts.next()?)?;
        Some((
            id,
            Self {
                kind,
                members: parts.next()?.to_owned(),
            },
        ))
    }
}

/// The members of an object's JSON. These objects are made of strings and numbers: writing them cannot fail.
fn members<T: Serialize>(data: &T) -> String {
    let json = serde_json::to_string(data).unwrap_or_default();
    json.get(1..json.len().saturating_sub(1))
        .unwrap_or_default()
        .to_owned()
}

fn piece(name: &str, text: &str) -> String {
    let mut out = Vec::with_capacity(name.len() + text.len() + 24);
    out.extend_from_slice(name.as_bytes());
    // Writing a string into memory cannot fail.
    let _ = serde_json::to_writer(&mut out, text);
    out.extend_from_slice(b",\"is_final\":false");
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_the_same_after_the_store() {
        for text in ["", "a b\nc", "\u{2028}data: x\r\n\n", "\"\\"] {
            let event = Event::token(text);
            let mut line = String::new();
            Event::write_line(7, event.kind, &event.members, &mut line);
            assert_eq!(line.matches('\n').count(), 1, "one line: {line:?}");
            assert_eq!(
                Event::from_line(line.trim_end_matches('\n')),
                Some((7, event))
            );
        }
    }
}

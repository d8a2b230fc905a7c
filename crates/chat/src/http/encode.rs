//! How events stand on each wire: one frame, three dresses.

use crate::domain::event::{Kind, write_id};

/// Appends an event as server-sent events have it. A token has no name, so that every plain reader sees the text.
pub fn sse(id: u64, kind: Kind, data: &str, out: &mut String) {
    out.push_str("id: ");
    write_id(id, out);
    if !kind.is_text() {
        out.push_str("\nevent: ");
        out.push_str(kind.as_str());
    }
    out.push_str("\ndata: {");
    kind.write_members(data, out);
    out.push_str("}\n\n");
}

/// Appends an event as a JSON object on one line: a WebSocket's frame, or with a line feed a line of NDJSON.
pub fn json(
    id: u64,
    kind: Kind,
    message_id: &str,
    reference: Option<&str>,
    data: &str,
    out: &mut String,
) {
    out.push_str("{\"type\":\"");
    out.push_str(kind.as_str());
    out.push_str("\",\"id\":");
    write_id(id, out);
    if let Some(reference) = reference.filter(|_| kind == Kind::Start) {
        out.push_str(",\"ref\":");
        out.push_str(reference);
    }
    // `start` has the id among its members.
    if kind != Kind::Start {
        out.push_str(",\"message_id\":\"");
        out.push_str(message_id);
        out.push('"');
    }
    out.push(',');
    push_members(kind, data, out);
    out.push('}');
}

/// Appends a JSON object about the connection and not about a turn: it has neither `id` nor `message_id`.
pub fn notice(kind: Kind, reference: Option<&str>, data: &str, out: &mut String) {
    out.push_str("{\"type\":\"");
    out.push_str(kind.as_str());
    out.push('"');
    if let Some(reference) = reference {
        out.push_str(",\"ref\":");
        out.push_str(reference);
    }
    out.push(',');
    push_members(kind, data, out);
    out.push('}');
}

/// A problem object has a `type` of its own, which here would stand beside the event's: it is left out.
fn push_members(kind: Kind, data: &str, out: &mut String) {
    const PROBLEM_TYPE: &str = "\"type\":\"about:blank\",";
    let is_problem = matches!(kind, Kind::Error | Kind::Lost);
    let rest = data.strip_prefix(PROBLEM_TYPE).filter(|_| is_problem);
    kind.write_members(rest.unwrap_or(data), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_no_event_name_and_others_have() {
        let mut out = String::new();
        sse(1, Kind::Token, "a\n", &mut out);
        sse(2, Kind::Lost, "\"code\":\"interrupted\"", &mut out);
        assert_eq!(
            out,
            "id: 1\ndata: {\"token\":\"a\\n\",\"is_final\":false}\n\nid: 2\nevent: error\ndata: {\"code\":\"interrupted\"}\n\n"
        );
    }

    #[test]
    fn a_json_frame_names_each_member_once() {
        let mut out = String::new();
        json(
            3,
            Kind::Error,
            "m",
            Some("\"r\""),
            "\"type\":\"about:blank\",\"title\":\"t\"",
            &mut out,
        );
        assert_eq!(
            out,
            r#"{"type":"error","id":3,"message_id":"m","title":"t"}"#
        );
        out.clear();
        json(
            1,
            Kind::Start,
            "m",
            Some("\"r\""),
            "\"message_id\":\"m\"",
            &mut out,
        );
        assert_eq!(
            out,
            r#"{"type":"start","id":1,"ref":"\"r\"","message_id":"m"}"#
                .replace("\"\\\"r\\\"\"", "\"r\"")
        );
    }
}

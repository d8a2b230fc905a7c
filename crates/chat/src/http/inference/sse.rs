//! Events of `text/event-stream` whose data is JSON.

use axum::http::HeaderValue;
use serde::Serialize;
use serde_json::Value;

pub const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");

/// Appends an event that has a name.
pub fn write_event<T: Serialize>(name: &str, data: &T, out: &mut String) {
    out.extend(["event: ", name, "\n"]);
    write_data(data, out);
}

/// Appends an event whose data begin with its type.
pub fn write_typed_event(kind: &str, members: Value, out: &mut String) {
    #[derive(Serialize)]
    struct TypedEvent<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        #[serde(flatten)]
        members: Value,
    }
    write_event(kind, &TypedEvent { kind, members }, out);
}

/// Appends an event. What is written here is made of strings and numbers: writing it cannot fail.
pub fn write_data<T: Serialize>(data: &T, out: &mut String) {
    let data = serde_json::to_string(data).unwrap_or_default();
    out.extend(["data: ", &data, "\n\n"]);
}

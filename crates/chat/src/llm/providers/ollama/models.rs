//! Ollama's lists of models: `/api/tags`, and `/api/ps` for those that are loaded.

use serde_json::Value;

use crate::llm::providers::lenient_json;

/// A model on a list.
#[derive(Debug, PartialEq)]
pub(super) struct Tag {
    pub(super) name: String,
    /// Empty where the server does not tell.
    pub(super) digest: String,
    /// Its own window in tokens, where the list tells.
    pub(super) window: Option<u32>,
    /// What is really allocated for it; in `/api/ps` alone.
    pub(super) allocated: Option<u32>,
}

/// The models of a list; `None` where it is none. An entry without a name is left out; whatever else is odd in one counts
/// as absent.
pub(super) fn tags(list: &Value) -> Option<Vec<Tag>> {
    match list.get("models")? {
        Value::Array(entries) => Some(entries.iter().filter_map(tag).collect()),
        Value::Null => Some(Vec::new()),
        _ => None,
    }
}

fn tag(entry: &Value) -> Option<Tag> {
    let text = |name| entry.get(name).and_then(Value::as_str);
    let size = |pointer| u32::try_from(lenient_json::tokens(entry.pointer(pointer)?)?).ok();
    Some(Tag {
        name: text("name").filter(|name| !name.is_empty())?.to_owned(),
        digest: text("digest").unwrap_or_default().to_owned(),
        window: size("/details/context_length"),
        allocated: size("/context_length"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(name: &str) -> Tag {
        Tag {
            name: name.to_owned(),
            digest: String::new(),
            window: None,
            allocated: None,
        }
    }

    #[test]
    fn a_list_tells_windows_and_digests() {
        let list = json!({ "models": [{ "name": "a:1", "digest": "x", "context_length": 4096,
            "details": { "context_length": 8192.0 } }] });
        let tag = Tag {
            digest: "x".to_owned(),
            window: Some(8192),
            allocated: Some(4096),
            ..named("a:1")
        };
        assert_eq!(tags(&list), Some(vec![tag]));
    }

    #[test]
    fn an_odd_entry_spoils_no_list() {
        let list = json!({ "models": [null, 5, "a", {}, { "name": 7 }, { "name": "" },
            { "name": "b:1", "digest": null, "details": null, "context_length": -1 },
            { "name": "c:1", "digest": 5, "details": { "context_length": "8192" } },
            { "name": "d:1", "details": [], "context_length": 1e300 }] });
        assert_eq!(tags(&list), Some(["b:1", "c:1", "d:1"].map(named).into()));
    }

    #[test]
    fn what_is_no_list_is_not_taken_for_an_empty_one() {
        assert_eq!(tags(&json!({ "models": null })), Some(Vec::new()));
        for body in [json!({}), json!([]), json!({ "models": 5 }), json!("ok")] {
            assert_eq!(tags(&body), None, "{body}");
        }
    }
}

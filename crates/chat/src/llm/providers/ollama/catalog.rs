//! Which models an Ollama has, and what they can do: `/api/tags`, `/api/show`, and `/api/ps` for those that are loaded.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::llm::{
    error::ProviderError,
    providers::{
        ModelInfo,
        http::Endpoint,
        lenient_json,
        ollama::{errors::classify_error, names::same_model},
    },
};

/// How long one refresh may spend on asking for the details of models.
const DETAILS_TIMEOUT: Duration = Duration::from_secs(2);

/// The models of one server.
#[derive(Default)]
pub(super) struct Catalog {
    /// The windows of models that were asked for, by name and digest: a model changes only with its digest.
    windows: Mutex<HashMap<(String, String), Option<u32>>>,
}

/// A model on a list.
#[derive(Debug, PartialEq)]
struct Tag {
    name: String,
    /// Empty where the server does not tell.
    digest: String,
    /// The length that the model was trained with, in tokens, where the list tells.
    window: Option<u32>,
    /// What is allocated for it, in tokens; in `/api/ps` alone.
    allocated: Option<u32>,
}

impl Catalog {
    /// The models that the server has now.
    pub(super) async fn refresh(
        &self,
        endpoint: &Endpoint,
    ) -> Result<Vec<ModelInfo>, ProviderError> {
        let tags = list(endpoint, "tags").await?;
        let listed: HashSet<_> = tags.iter().map(Tag::key).collect();
        self.windows().retain(|key, _| listed.contains(key));
        let mut models = Vec::with_capacity(tags.len());
        // Of very many models the rest is asked for at the next refreshes.
        let deadline = Instant::now() + DETAILS_TIMEOUT;
        for tag in tags {
            let window = timeout_at(deadline, self.window(endpoint, &tag)).await;
            let window = window.ok().flatten().filter(|window| *window > 0);
            models.push(ModelInfo {
                id: tag.name,
                window,
            });
        }
        Ok(models)
    }

    /// The model's window: listed, remembered, asked for, or else what is allocated for it now.
    async fn window(&self, endpoint: &Endpoint, tag: &Tag) -> Option<u32> {
        if tag.window.is_some() {
            return tag.window;
        }
        let known = self.windows().get(&tag.key()).copied();
        if let Some(window) = known {
            return window;
        }
        let window = match trained_window(endpoint, &tag.name).await.ok()? {
            Some(window) => Some(window),
            None => allocated_window(endpoint, &tag.name).await,
        };
        self.windows().insert(tag.key(), window);
        window
    }

    fn windows(&self) -> MutexGuard<'_, HashMap<(String, String), Option<u32>>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn list(endpoint: &Endpoint, what: &str) -> Result<Vec<Tag>, ProviderError> {
    let answer: Value = endpoint.get(&["api", what], classify_error).await?;
    tags(&answer).ok_or_else(|| {
        ProviderError::failed(format!("/api/{what} answered without a list of models"))
    })
}

async fn trained_window(endpoint: &Endpoint, model: &str) -> Result<Option<u32>, ProviderError> {
    let body = json!({ "model": model });
    let answer: Value = endpoint
        .query(&["api", "show"], &body, classify_error)
        .await?;
    let info = answer.get("model_info").and_then(Value::as_object);
    let length = info
        .into_iter()
        .flatten()
        .find(|(key, _)| key.ends_with(".context_length"))
        .and_then(|(_, value)| value.as_u64());
    Ok(length.and_then(|length| u32::try_from(length).ok()))
}

async fn allocated_window(endpoint: &Endpoint, model: &str) -> Option<u32> {
    let loaded = list(endpoint, "ps").await.ok()?;
    loaded
        .into_iter()
        .find(|tag| same_model(&tag.name, model))?
        .allocated
}

impl Tag {
    fn key(&self) -> (String, String) {
        (self.name.clone(), self.digest.clone())
    }
}

/// The models of a list; `None` where it is none. An entry without a name is left out; whatever else is odd in one counts
/// as absent.
fn tags(list: &Value) -> Option<Vec<Tag>> {
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

//! Which models an Ollama has, and what they can do: `/api/tags`, `/api/show`, and `/api/ps` for those that are loaded.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::llm::{
    error::{ErrorKind, ProviderError},
    model::{Capabilities, ModelFacts},
    providers::{
        DEFAULT_WINDOW, ModelInfo,
        http::Endpoint,
        lenient_json,
        ollama::{errors::NOT_OLLAMA, names::same_model, request::ModelTraits},
    },
};

/// How long one refresh may spend on asking for the details of models.
const DETAILS_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Catalog {
    /// The window that the operator set, in tokens.
    configured_window: Option<u32>,
    /// Details of the listed models, by name and digest: a model changes only with its digest.
    details: Mutex<HashMap<(String, Option<String>), Details>>,
}

/// What `/api/show` tells of a model. The capabilities in `/api/tags` are wrong for many.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Details {
    /// The length that it was trained with, in tokens.
    trained_window: Option<u32>,
    num_ctx: Option<u32>,
    capabilities: Option<Capabilities>,
    embedding_length: Option<u32>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Tag {
    pub(super) name: String,
    /// The length that the model was trained with, in tokens, where the list tells.
    window: Option<u32>,
    /// What is allocated for it, in tokens; in `/api/ps` alone.
    allocated: Option<u32>,
    /// Until when it stays in memory; in `/api/ps` alone.
    pub(super) expires_at: Option<String>,
    facts: ModelFacts,
}

impl Catalog {
    pub(super) fn new(configured_window: Option<u32>) -> Self {
        Self { configured_window, details: Mutex::default() }
    }

    pub(super) async fn refresh(
        &self,
        endpoint: &Endpoint,
    ) -> Result<Vec<ModelInfo>, ProviderError> {
        let tags = list(endpoint, "tags").await?;
        let listed: HashSet<_> = tags.iter().map(Tag::key).collect();
        self.details.lock().retain(|key, _| listed.contains(key));
        let mut models = Vec::with_capacity(tags.len());
        // Of very many models the rest is asked for at the next refreshes.
        let deadline = Instant::now() + DETAILS_TIMEOUT;
        for tag in tags {
            let details = timeout_at(deadline, self.details_of(endpoint, &tag)).await;
            let details = details.ok().flatten().unwrap_or_default();
            models.push(ModelInfo {
                window: self.window(&tag, &details),
                capabilities: details.capabilities,
                facts: Arc::new(ModelFacts {
                    embedding_length: tag.facts.embedding_length.or(details.embedding_length),
                    ..tag.facts
                }),
                id: tag.name,
            });
        }
        Ok(models)
    }

    /// What is known of the model that a request names.
    pub(super) fn traits(&self, model: &str) -> ModelTraits {
        let details = self.details.lock();
        let known = details.iter().find(|((name, _), _)| same_model(name, model));
        let known = known.map(|(_, details)| details);
        ModelTraits {
            capabilities: known.and_then(|details| details.capabilities),
            sends_window: self.sends_window(known),
        }
    }

    /// Whether requests name a window. They do not where the model has its own: every other window makes Ollama load the
    /// model anew, for other clients too.
    fn sends_window(&self, details: Option<&Details>) -> bool {
        let own = details.and_then(|details| details.num_ctx);
        self.configured_window.is_some() || own.is_none()
    }

    fn window(&self, tag: &Tag, details: &Details) -> Option<u32> {
        let wanted = self.configured_window.or(details.num_ctx).unwrap_or(DEFAULT_WINDOW);
        let trained = tag.window.or(details.trained_window).or(tag.allocated);
        let most = trained.filter(|window| *window > 0).unwrap_or(wanted);
        Some(wanted.min(most))
    }

    async fn details_of(&self, endpoint: &Endpoint, tag: &Tag) -> Option<Details> {
        let known = self.details.lock().get(&tag.key()).copied();
        if known.is_some() {
            return known;
        }
        let body = json!({ "model": tag.name });
        let answer = endpoint.call(&["api", "show"], &body, "").await;
        let mut details = Details::of(&answer.ok()?);
        if details.trained_window.is_none() && tag.window.is_none() {
            details.trained_window = allocated_window(endpoint, &tag.name).await;
        }
        self.details.lock().insert(tag.key(), details);
        Some(details)
    }
}

impl Details {
    fn of(answer: &Value) -> Self {
        let tokens = |value: &Value| u32::try_from(lenient_json::tokens(value)?).ok();
        let info = answer.get("model_info").and_then(Value::as_object);
        let told = |name: &str| {
            let mut all = info.into_iter().flatten();
            tokens(all.find(|(key, _)| key.ends_with(name))?.1)
        };
        let parameters = answer.get("parameters").and_then(Value::as_str);
        let num_ctx = parameters.unwrap_or_default().lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("num_ctx")).then(|| words.next()?.parse().ok())?
        });
        let capabilities = answer.get("capabilities").and_then(Value::as_array);
        let can = |name: &str| capabilities.is_some_and(|all| all.iter().any(|one| one == name));
        Self {
            trained_window: told(".context_length"),
            embedding_length: told(".embedding_length"),
            num_ctx: num_ctx.filter(|window| *window > 0),
            capabilities: capabilities.map(|_| Capabilities {
                completion: can("completion"),
                vision: can("vision"),
                tools: can("tools"),
                thinking: can("thinking"),
                embedding: can("embedding"),
            }),
        }
    }
}

pub(super) async fn list(endpoint: &Endpoint, what: &str) -> Result<Vec<Tag>, ProviderError> {
    let answer = endpoint.get(&["api", what]).await;
    let no_list =
        || ProviderError::failed(format!("/api/{what} answered 200 without a list of models"));
    let listed = answer.and_then(|answer: Value| tags(&answer).ok_or_else(no_list));
    listed.map_err(|mut error| {
        if error.kind == ErrorKind::Failed {
            error.hint.get_or_insert(NOT_OLLAMA);
        }
        error
    })
}

async fn allocated_window(endpoint: &Endpoint, model: &str) -> Option<u32> {
    let loaded = list(endpoint, "ps").await.ok()?;
    loaded.into_iter().find(|tag| same_model(&tag.name, model))?.allocated
}

impl Tag {
    fn key(&self) -> (String, Option<String>) {
        (self.name.clone(), self.facts.digest.clone())
    }
}

/// The models of a list; `None` where it is none. An entry without a name is left out; whatever else is odd in one counts as absent.
fn tags(list: &Value) -> Option<Vec<Tag>> {
    match list.get("models")? {
        Value::Array(entries) => Some(entries.iter().filter_map(tag).collect()),
        Value::Null => Some(Vec::new()),
        _ => None,
    }
}

fn tag(entry: &Value) -> Option<Tag> {
    let owned = |pointer| entry.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let size = |pointer| u32::try_from(lenient_json::tokens(entry.pointer(pointer)?)?).ok();
    Some(Tag {
        name: owned("/name").filter(|name| !name.is_empty())?,
        window: size("/details/context_length"),
        allocated: size("/context_length"),
        expires_at: owned("/expires_at"),
        facts: ModelFacts {
            digest: owned("/digest"),
            size: entry.get("size").and_then(Value::as_u64),
            modified_at: owned("/modified_at"),
            format: owned("/details/format"),
            family: owned("/details/family"),
            parameter_size: owned("/details/parameter_size"),
            quantization: owned("/details/quantization_level"),
            embedding_length: size("/details/embedding_length"),
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(name: &str) -> Tag {
        Tag {
            name: name.to_owned(),
            window: None,
            allocated: None,
            expires_at: None,
            facts: ModelFacts::default(),
        }
    }

    #[test]
    fn a_list_tells_windows_and_digests() {
        let list = json!({ "models": [{ "name": "a:1", "digest": "x", "context_length": 4096,
            "details": { "context_length": 8192.0 } }] });
        let tag = Tag {
            window: Some(8192),
            allocated: Some(4096),
            facts: ModelFacts { digest: Some("x".to_owned()), ..ModelFacts::default() },
            ..named("a:1")
        };
        assert_eq!(tags(&list), Some(vec![tag]));
    }

    #[test]
    fn details_are_read_from_show() {
        let show = json!({ "parameters": "stop  \"x\"\nnum_ctx                        2048", "capabilities": ["completion", "vision"],
            "model_info": { "general.architecture": "llama", "llama.context_length": 4096, "llama.embedding_length": 768 } });
        let capabilities =
            Capabilities { completion: true, vision: true, ..Capabilities::default() };
        let details = Details {
            trained_window: Some(4096),
            num_ctx: Some(2048),
            capabilities: Some(capabilities),
            embedding_length: Some(768),
        };
        assert_eq!(Details::of(&show), details);
        for odd in [
            json!({}),
            json!([]),
            json!({ "parameters": 5, "model_info": [], "capabilities": "tools" }),
        ] {
            assert_eq!(Details::of(&odd), Details::default());
        }
    }

    #[test]
    fn the_operators_window_comes_before_the_models_own_and_that_before_the_default() {
        let tag = |window| Tag { window, ..named("a:1") };
        let own = Details { num_ctx: Some(2048), ..Details::default() };
        let (set, unset) = (Catalog::new(Some(16_384)), Catalog::new(None));
        assert_eq!(set.window(&tag(Some(32_768)), &own), Some(16_384));
        assert_eq!(set.window(&tag(Some(4096)), &own), Some(4096));
        assert_eq!(unset.window(&tag(Some(32_768)), &own), Some(2048));
        assert_eq!(unset.window(&tag(Some(32_768)), &Details::default()), Some(8192));
        assert_eq!(unset.window(&tag(Some(4096)), &Details::default()), Some(4096));
        assert!(set.sends_window(Some(&own)) && unset.sends_window(None));
        assert!(!unset.sends_window(Some(&own)));
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

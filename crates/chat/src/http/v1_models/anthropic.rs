//! The models as Anthropic's SDKs read them.

use common::errors::ApiError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::llm;

/// The header by which a client of this API is known on paths that it shares with OpenAI's.
pub const VERSION_HEADER: &str = "anthropic-version";

/// Model servers do not tell when a model was made.
const UNKNOWN_TIME: &str = "1970-01-01T00:00:00Z";

const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 1000;

#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct AnthropicModel {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    display_name: String,
    /// Always 1970: model servers do not tell.
    created_at: &'static str,
    /// The window that it is asked with, in tokens.
    max_input_tokens: u32,
    /// The same: prompt and answer share it.
    max_tokens: u32,
    lifecycle: &'static str,
    #[schema(value_type = Option<Object>)]
    capabilities: (),
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AnthropicModels {
    data: Vec<AnthropicModel>,
    has_more: bool,
    first_id: Option<String>,
    last_id: Option<String>,
}

/// Which page is wanted; what cannot be read counts as absent.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PageQuery {
    limit: Option<String>,
    after_id: Option<String>,
    before_id: Option<String>,
}

impl From<llm::Model> for AnthropicModel {
    fn from(model: llm::Model) -> Self {
        Self {
            kind: "model",
            display_name: model.id.clone(),
            id: model.id,
            created_at: UNKNOWN_TIME,
            max_input_tokens: model.window,
            max_tokens: model.window,
            lifecycle: "active",
            capabilities: (),
        }
    }
}

/// The page of these models that the query asks for.
///
/// # Errors
/// `validation_failed` for a model to begin at that is not there: whoever went on from it would read the same page for ever.
pub fn page(models: Vec<llm::Model>, query: &PageQuery) -> Result<AnthropicModels, ApiError> {
    let limit = query.limit.as_ref().and_then(|limit| limit.parse().ok());
    let limit = limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    let place = |name: &str, id: &Option<String>| {
        let Some(id) = id.as_ref().filter(|id| !id.is_empty()) else { return Ok(None) };
        let place = models.iter().position(|model| model.id == *id);
        let unknown = || ApiError::invalid(format!("/{name}"), "No model has that id.");
        place.map(Some).ok_or_else(unknown)
    };
    let after = place("after_id", &query.after_id)?;
    let (start, end, has_more) = match (after, place("before_id", &query.before_id)?) {
        (None, Some(end)) => {
            let start = end.saturating_sub(limit);
            (start, end, start > 0)
        }
        (after, _) => {
            let start = after.map_or(0, |place| place + 1);
            let end = start.saturating_add(limit).min(models.len());
            (start, end, end < models.len())
        }
    };
    let page = models.into_iter().skip(start).take(end - start);
    let data: Vec<AnthropicModel> = page.map(AnthropicModel::from).collect();
    Ok(AnthropicModels {
        has_more,
        first_id: data.first().map(|model| model.id.clone()),
        last_id: data.last().map(|model| model.id.clone()),
        data,
    })
}

#[cfg(test)]
mod tests {
    use common::config::ProviderKind;

    use super::*;

    fn models() -> Vec<llm::Model> {
        let models = ["a", "b", "c"].map(|id| llm::Model {
            id: id.to_owned(),
            provider: ProviderKind::Ollama,
            window: 8192,
            is_default: false,
            capabilities: None,
            facts: std::sync::Arc::default(),
        });
        models.into()
    }

    fn ids(query: PageQuery) -> (Vec<String>, bool) {
        let page = page(models(), &query).unwrap();
        let ids: Vec<_> = page.data.into_iter().map(|model| model.id).collect();
        assert_eq!(ids.first(), page.first_id.as_ref());
        assert_eq!(ids.last(), page.last_id.as_ref());
        (ids, page.has_more)
    }

    #[test]
    fn pages_follow_each_other() {
        let text = |text: &str| Some(text.to_owned());
        let query = |limit, after_id, before_id| PageQuery { limit, after_id, before_id };
        for (asked, wanted, more) in [
            (query(None, None, None), vec!["a", "b", "c"], false),
            (query(text("2"), None, None), vec!["a", "b"], true),
            (query(text("2"), text("b"), None), vec!["c"], false),
            (query(text("2"), text("c"), None), vec![], false),
            (query(text("1"), None, text("c")), vec!["b"], true),
            (query(text("2"), None, text("c")), vec!["a", "b"], false),
            (query(None, None, text("a")), vec![], false),
            (query(text("x"), text(""), None), vec!["a", "b", "c"], false),
        ] {
            let wanted = wanted.into_iter().map(str::to_owned).collect();
            assert_eq!(ids(asked), (wanted, more));
        }
        for (unknown, at) in [
            (query(None, text("?"), None), "/after_id"),
            (query(None, None, text("?")), "/before_id"),
            (query(None, text("a"), text("?")), "/before_id"),
        ] {
            assert_eq!(page(models(), &unknown).unwrap_err().errors[0].pointer, at);
        }
    }
}

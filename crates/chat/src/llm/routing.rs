//! Which provider gets a request: decided from the last look at each, without waiting.

use std::sync::Arc;

use common::config::ProviderKind;
use tokio::time::Instant;

use crate::llm::{
    error::ModelError,
    health::{Has, Reach},
    upstream::Upstream,
};

/// What all clones of [`super::LlmService`] share.
pub(super) struct Inner {
    /// In the order of the settings.
    pub(super) providers: Vec<Arc<Upstream>>,
    /// The model where nothing else names one.
    pub(super) model: String,
}

/// A provider that can be asked now.
pub(super) struct Choice {
    pub(super) index: usize,
    pub(super) provider: Arc<Upstream>,
    pub(super) model: String,
}

impl Inner {
    /// The first provider of the list, from that place on, which is up and has the model. The demo stands in where none
    /// of the others is there: by the last look, or because this request met nobody (`unreachable`, by place).
    pub(super) fn choose(
        &self,
        asked: Option<&str>,
        from: usize,
        unreachable: &[usize],
    ) -> Result<Choice, ModelError> {
        let (mut lacking, mut down) = (None, false);
        for (index, provider) in self
            .providers
            .iter()
            .enumerate()
            .skip(from)
            .filter(|(_, p)| !p.is_demo())
        {
            let model = asked.or(provider.model.as_deref()).unwrap_or(&self.model);
            let has = provider.has(model);
            match provider.reach() {
                Reach::Down => down |= has == Has::Yes,
                _ if has == Has::No => lacking = lacking.or(Some((provider.kind, model))),
                _ if unreachable.contains(&index) || !provider.breaker.allows(Instant::now()) => {
                    down = true
                }
                _ => {
                    return Ok(Choice {
                        index,
                        provider: provider.clone(),
                        model: model.to_owned(),
                    });
                }
            }
        }
        if let Some(choice) = self.stand_in(unreachable) {
            return Ok(choice);
        }
        match lacking {
            Some((kind, model)) if !down => Err(not_found(kind, model)),
            _ => Err(ModelError::Unavailable(
                "no provider that may have the model is up".to_owned(),
            )),
        }
    }

    fn stand_in(&self, unreachable: &[usize]) -> Option<Choice> {
        let is_away = |(index, provider): (usize, &Arc<Upstream>)| {
            provider.is_demo() || provider.reach() == Reach::Down || unreachable.contains(&index)
        };
        let (index, demo) = self
            .providers
            .iter()
            .enumerate()
            .find(|(_, provider)| provider.is_demo())?;
        let model = demo.model.clone().unwrap_or_default();
        self.providers
            .iter()
            .enumerate()
            .all(is_away)
            .then(|| Choice {
                index,
                provider: demo.clone(),
                model,
            })
    }
}

/// That a server lacks a model, in words for the caller: what it is and how to get it.
pub(super) fn not_found(kind: ProviderKind, model: &str) -> ModelError {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._:/-@".contains(c);
    ModelError::NotFound(match kind {
        _ if model.len() > 128 || !model.chars().all(is_plain) => {
            "No model has that name; GET /chat/models lists those that there are.".to_owned()
        }
        ProviderKind::Ollama => {
            format!("The model `{model}` is not there yet; `ollama pull {model}` gets it.")
        }
        _ => format!(
            "No model server here has `{model}`; GET /chat/models lists the models that there are."
        ),
    })
}

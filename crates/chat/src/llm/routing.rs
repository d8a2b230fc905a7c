//! Routing: which provider gets a request, decided by the last health probe of each, without waiting.

use std::{collections::BTreeMap, sync::Arc};

use crate::llm::{
    error::ModelError,
    providers::ollama::same_model,
    upstream::{Upstream, not_found},
};

pub(super) struct Router {
    pub(super) upstreams: Vec<Arc<Upstream>>,
    /// The model where nothing else names one.
    pub(super) default_model: String,
    /// The model that each further name stands for.
    pub(super) aliases: BTreeMap<String, String>,
}

/// A provider that can be asked now.
pub(super) struct Selection {
    pub(super) index: usize,
    pub(super) upstream: Arc<Upstream>,
    pub(super) model: String,
}

impl Router {
    /// The first provider of the list, from that place on, which is up and has the model. The demo stands in where none
    /// of the others is there: by the last probe, or because this request found them `unreachable`.
    ///
    /// # Errors
    /// [`ModelError::NotFound`] where all that are up lack the model, else [`ModelError::Unavailable`].
    pub(super) fn select(
        &self,
        requested: Option<&str>,
        from: usize,
        unreachable: &[usize],
    ) -> Result<Selection, ModelError> {
        let (mut lacking, mut is_down) = (None, false);
        let candidates = self.upstreams.iter().enumerate().skip(from);
        for (index, upstream) in candidates.filter(|(_, upstream)| !upstream.is_demo()) {
            let named =
                requested.or(upstream.default_model.as_deref()).unwrap_or(&self.default_model);
            let model = self.aliased(named);
            let has_model = upstream.has_model(model);
            if upstream.health.is_down() {
                is_down |= has_model == Some(true);
            } else if has_model == Some(false) {
                lacking = lacking.or(Some((upstream.kind, model)));
            } else if unreachable.contains(&index) || !upstream.is_breaker_closed() {
                is_down = true;
            } else {
                return Ok(Selection {
                    index,
                    upstream: upstream.clone(),
                    model: model.to_owned(),
                });
            }
        }
        if let Some(selection) = self.demo(unreachable) {
            return Ok(selection);
        }
        match lacking {
            Some((kind, model)) if !is_down => Err(not_found(kind, model)),
            _ => {
                Err(ModelError::Unavailable("no provider that may have the model is up".to_owned()))
            }
        }
    }

    /// What an alias stands for; any other name is its own.
    pub(super) fn aliased<'a>(&'a self, named: &'a str) -> &'a str {
        self.alias(named).map_or(named, |(_, target)| target)
    }

    /// The alias of that name, and what it stands for.
    pub(super) fn alias(&self, named: &str) -> Option<(&String, &String)> {
        let same = || self.aliases.iter().find(|(alias, _)| same_model(alias, named));
        self.aliases.get_key_value(named).or_else(same)
    }

    fn demo(&self, unreachable: &[usize]) -> Option<Selection> {
        let mut upstreams = self.upstreams.iter().enumerate();
        let (index, demo) = upstreams.clone().find(|(_, upstream)| upstream.is_demo())?;
        let is_away = |(index, upstream): (usize, &Arc<Upstream>)| {
            upstream.is_demo() || upstream.health.is_down() || unreachable.contains(&index)
        };
        upstreams.all(is_away).then(|| Selection {
            index,
            upstream: demo.clone(),
            model: demo.default_model.clone().unwrap_or_default(),
        })
    }
}

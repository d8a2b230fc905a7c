//! Routing: which provider gets a request, decided by the last health probe of each, without waiting.

use std::sync::Arc;

use common::identity::UserId;

use crate::llm::{
    attempt::ProviderAttempt,
    error::ModelError,
    upstream::{Availability, Upstream, not_found},
};

pub(super) struct Router {
    /// In the order of the settings.
    upstreams: Vec<Arc<Upstream>>,
    /// The model where nothing else names one.
    default_model: String,
}

/// A provider that can be asked now.
pub(super) struct Selection {
    /// Its place in the list.
    pub(super) index: usize,
    pub(super) upstream: Arc<Upstream>,
    pub(super) model: String,
}

impl Selection {
    /// Joins the provider's queue; `None` where it is full.
    pub(super) fn enqueue(self, user: &UserId) -> Option<ProviderAttempt> {
        let permit = self.upstream.enqueue(user)?;
        Some(ProviderAttempt::new(self.upstream, self.model, permit))
    }
}

impl Router {
    pub(super) fn new(upstreams: Vec<Arc<Upstream>>, default_model: String) -> Self {
        Self {
            upstreams,
            default_model,
        }
    }

    pub(super) fn upstreams(&self) -> &[Arc<Upstream>] {
        &self.upstreams
    }

    pub(super) fn default_model(&self) -> &str {
        &self.default_model
    }

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
            let model = requested
                .or(upstream.default_model())
                .unwrap_or(&self.default_model);
            let availability = upstream.availability(model);
            if upstream.is_down() {
                is_down |= availability == Availability::Yes;
            } else if availability == Availability::No {
                lacking = lacking.or(Some((upstream.kind(), model)));
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
            _ => Err(ModelError::Unavailable(
                "no provider that may have the model is up".to_owned(),
            )),
        }
    }

    fn demo(&self, unreachable: &[usize]) -> Option<Selection> {
        let mut upstreams = self.upstreams.iter().enumerate();
        let (index, demo) = upstreams.clone().find(|(_, upstream)| upstream.is_demo())?;
        let is_away = |(index, upstream): (usize, &Arc<Upstream>)| {
            upstream.is_demo() || upstream.is_down() || unreachable.contains(&index)
        };
        upstreams.all(is_away).then(|| Selection {
            index,
            upstream: demo.clone(),
            model: demo.default_model().unwrap_or_default().to_owned(),
        })
    }
}

//! From one provider to the next, for a request that none has answered a part of yet.

use std::sync::Arc;

use common::identity::UserId;

use crate::llm::{
    Route,
    call::ProviderCall,
    error::{ErrorKind, ModelError, ProviderError},
    request::ChatRequest,
    routing::{Router, Selection},
    scheduler::Lane,
};

pub(super) struct Failover {
    router: Arc<Router>,
    user: UserId,
    requested: Option<String>,
    lane: Lane,
    /// The place in the list of the provider that is asked.
    index: usize,
    /// Providers that this request found unreachable, by place in the list.
    unreachable: Vec<usize>,
    /// Of the errors so far, the one that helps the caller most.
    worst_error: Option<ModelError>,
}

impl Failover {
    /// Takes a place at the route's provider.
    ///
    /// # Errors
    /// [`ModelError::QueueFull`].
    pub(super) fn begin(
        router: &Arc<Router>,
        user: &UserId,
        route: &Route,
        lane: Lane,
    ) -> Result<(Self, ProviderCall), ModelError> {
        let no_such = || ModelError::Unavailable("no such provider".to_owned());
        let upstream = router.upstreams.get(route.index).ok_or_else(no_such)?.clone();
        let call = ProviderCall::enqueue(upstream, route.model.clone(), user, lane);
        let failover = Self {
            router: router.clone(),
            user: user.clone(),
            requested: route.requested.clone(),
            lane,
            index: route.index,
            unreachable: Vec::new(),
            worst_error: None,
        };
        Ok((failover, call.ok_or(ModelError::QueueFull)?))
    }

    /// Records why the call failed, and takes a place at the next provider that can be asked. `said` is what was sent, so that
    /// the error's text can be freed of it.
    ///
    /// # Errors
    /// The error itself where the provider `has_answered` a part, so that no other one can take over, and of the demo, which is
    /// the last. Where none is left, of all errors so far the one that helps the caller most.
    pub(super) fn advance(
        &mut self,
        call: &mut ProviderCall,
        error: ProviderError,
        said: &ChatRequest,
        has_answered: bool,
    ) -> Result<ProviderCall, ModelError> {
        if error.kind == ErrorKind::Unreachable {
            self.unreachable.push(self.index);
            call.upstream.health.request_probe();
        }
        let error = call.fail(error, said);
        // The demo stands in wherever nothing else is left, also for itself.
        if has_answered || call.upstream.is_demo() {
            return Err(error);
        }
        let worst = self.worst_error.as_ref().map(ModelError::error_priority);
        if worst.is_none_or(|worst| error.error_priority() > worst) {
            self.worst_error = Some(error);
        }
        let requested = self.requested.as_deref();
        let mut from = self.index + 1;
        while let Ok(selection) = self.router.select(requested, from, &self.unreachable) {
            let Selection { index, upstream, model } = selection;
            let is_demo = upstream.is_demo();
            if is_demo && self.lane == Lane::Embeddings {
                break;
            }
            if let Some(call) = ProviderCall::enqueue(upstream, model, &self.user, self.lane) {
                self.index = index;
                return Ok(call);
            }
            self.worst_error.get_or_insert(ModelError::QueueFull);
            if is_demo {
                break;
            }
            from = index + 1;
        }
        let nothing_left = || ModelError::Unavailable("no provider is left".to_owned());
        Err(self.worst_error.take().unwrap_or_else(nothing_left))
    }
}

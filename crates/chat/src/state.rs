//! What the HTTP handlers need.

use std::{sync::Arc, time::Duration};

use common::{
    errors::ApiError,
    http::LoadShedder,
    identity::{Authenticator, Identity},
    rate_limiter::RateLimiter,
    shutdown::Shutdown,
};
use futures_util::future::BoxFuture;

use crate::{
    generation::stateless::CompletionService,
    http::{inference::body::BodyBudget, ws::permits::Sockets},
    llm::LlmService,
    sessions::SessionService,
    turns::service::TurnService,
    usage::UsageService,
};

/// The services and limits that handlers use; shared by all requests.
pub struct AppState {
    pub turns: TurnService,
    pub completions: CompletionService,
    pub sessions: SessionService,
    pub usage: UsageService,
    pub llm: LlmService,
    pub authenticator: Authenticator,
    pub limiter: RateLimiter,
    /// What is in flight; a turn on a socket counts as a request does.
    pub load_shedder: LoadShedder,
    /// The limit of `/v1/messages/count_tokens`, which counts nothing else.
    pub count_limiter: RateLimiter,
    /// How long a streamed turn goes on when nobody watches it.
    pub disconnect_grace: Duration,
    pub tokens_per_day: Option<u64>,
    pub allowed_origins: Arc<[String]>,
    pub sockets: Sockets,
    /// The memory that large bodies may hold together.
    pub body_budget: BodyBudget,
    pub shutdown: Shutdown,
}

impl AppState {
    /// Resolves when the credential is revoked, with the error that ends what runs under it.
    pub fn until_revoked(&self, identity: &Identity) -> BoxFuture<'static, ApiError> {
        let (authenticator, identity) = (self.authenticator.clone(), identity.clone());
        Box::pin(async move { authenticator.revoked(&identity).await.into() })
    }
}

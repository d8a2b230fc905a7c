//! What the HTTP handlers need.

use std::{sync::Arc, time::Duration};

use common::{identity::Authenticator, rate_limiter::RateLimiter, shutdown::Shutdown};

use crate::{
    generation::stateless::CompletionService, http::ws::permits::Sockets, llm::LlmService,
    sessions::SessionService, turns::service::TurnService, usage::UsageService,
};

/// The services and limits that handlers use; shared by all requests.
pub struct AppState {
    pub turns: TurnService,
    pub completions: CompletionService,
    pub sessions: SessionService,
    pub usage: UsageService,
    /// The model servers.
    pub llm: LlmService,
    /// Who calls.
    pub authenticator: Authenticator,
    /// How often they may.
    pub limiter: RateLimiter,
    /// How long a streamed turn goes on when nobody watches it.
    pub disconnect_grace: Duration,
    /// The quota, for the usage call.
    pub tokens_per_day: Option<u64>,
    /// Browser origins beside our own.
    pub allowed_origins: Arc<[String]>,
    /// The open sockets of each user.
    pub sockets: Sockets,
    /// When to stop.
    pub shutdown: Shutdown,
}

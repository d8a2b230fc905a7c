//! What the caller used today, and what is left of the quota.

use std::sync::Arc;

use axum::{Json, extract::State};
use common::{clock, errors::ApiError, http::Deadline, identity::Identity};
use serde::Serialize;
use utoipa::ToSchema;

use crate::state::AppState;

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Today {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub requests: u64,
}

/// What may be used in a day.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct QuotaBody {
    /// The day's tokens.
    pub tokens_per_day: u64,
    /// What is left of them; running turns count with what they reserved.
    pub left: u64,
    /// When the next day begins.
    #[schema(format = DateTime)]
    pub resets_at: String,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UsageBody {
    pub today: Today,
    /// The quota, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub quota: Option<QuotaBody>,
}

/// Tells what the caller used today.
#[utoipa::path(
    get, path = "/chat/usage", operation_id = "read_usage", tag = "models",
    responses((status = 200, body = UsageBody)),
)]
pub async fn read(
    State(app): State<Arc<AppState>>,
    identity: Identity,
    Deadline(deadline): Deadline,
) -> Result<Json<UsageBody>, ApiError> {
    let day = app.usage.today(&identity.owner, deadline).await?;
    let quota = app.tokens_per_day.map(|tokens_per_day| QuotaBody {
        tokens_per_day,
        left: tokens_per_day.saturating_sub(day.held),
        resets_at: clock::rfc3339(clock::next_utc_day(clock::now_ms())),
    });
    let today = Today {
        prompt_tokens: day.prompt,
        completion_tokens: day.completion,
        requests: day.requests,
    };
    Ok(Json(UsageBody { today, quota }))
}

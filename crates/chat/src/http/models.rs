//! The models that can be asked.

use std::sync::Arc;

use axum::{Json, extract::State};
use common::{errors::ApiError, identity::Identity};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{llm, state::AppState};

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ModelBody {
    /// What to name it by.
    pub id: String,
    pub provider: String,
    /// The window that it is asked with, in tokens.
    pub context_window: u32,
    /// Whether it answers where nothing else is named.
    pub default: bool,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ModelList {
    /// The models, in the order of the providers.
    pub models: Vec<ModelBody>,
}

/// Lists the models of all providers, as of the last look at each.
#[utoipa::path(
    get, path = "/chat/models", operation_id = "list_chat_models", tag = "models",
    responses((status = 200, body = ModelList)),
)]
pub async fn list(
    State(app): State<Arc<AppState>>,
    _identity: Identity,
) -> Result<Json<ModelList>, ApiError> {
    let models = app.llm.models().into_iter();
    let models = models.filter(llm::Model::can_chat).map(|model| ModelBody {
        id: model.id,
        provider: model.provider.as_str().to_owned(),
        context_window: model.window,
        default: model.is_default,
    });
    Ok(Json(ModelList { models: models.collect() }))
}

//! `/v1/models`: the models in the form of whichever API the caller speaks.

pub mod anthropic;
mod codex;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    http::HeaderMap,
    middleware::map_response,
    routing::get,
};
use common::{
    errors::{ApiError, Code, extract::Path},
    identity::Identity,
};
use serde::Serialize;
use utoipa::ToSchema;

use self::{
    anthropic::{AnthropicModel, AnthropicModels, PageQuery, VERSION_HEADER, page},
    codex::CodexModel,
};
use crate::{
    http::{inference::errors::advise_on_retrying, openai::error::ErrorBody},
    llm,
    state::AppState,
};

pub fn routes() -> Router<Arc<AppState>> {
    Router::new()
        .route("/v1/models", get(list))
        .route("/v1/models/{model}", get(read))
        // An id with slashes that were not encoded; the description has it as `{model}`.
        .route("/v1/models/{first}/{*rest}", get(read_parts))
        .layer(map_response(advise_on_retrying))
}

#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ModelObject {
    id: String,
    object: &'static str,
    /// Always 0: model servers do not tell.
    created: i64,
    owned_by: String,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ModelObjects {
    object: &'static str,
    data: Vec<ModelObject>,
    /// Those that answer chats, as Codex reads them.
    models: Vec<CodexModel>,
}

/// All models, or a page of them, in the form of the API that the request speaks.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ModelsAnswer {
    OpenAi(ModelObjects),
    Anthropic(AnthropicModels),
}

/// One model, in the form of the API that the request speaks.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ModelAnswer {
    OpenAi(ModelObject),
    Anthropic(AnthropicModel),
}

impl From<llm::Model> for ModelObject {
    fn from(model: llm::Model) -> Self {
        Self {
            id: model.id,
            object: "model",
            created: 0,
            owned_by: model.provider.as_str().to_owned(),
        }
    }
}

/// Whether the client reads the models as Anthropic's SDKs do.
fn is_anthropic(headers: &HeaderMap) -> bool {
    headers.contains_key(VERSION_HEADER)
}

/// Lists the models of all providers, as of the last look at each. With an `anthropic-version` header the answer has the form
/// of Anthropic's API, in pages of `limit` (20) after `after_id`.
#[utoipa::path(
    get, path = "/v1/models", operation_id = "list_models", tag = "openai",
    params(
        ("limit" = Option<String>, Query, description = "With `anthropic-version`: how many, at most 1000."),
        ("after_id" = Option<String>, Query, description = "With `anthropic-version`: those that follow this one."),
        ("before_id" = Option<String>, Query, description = "With `anthropic-version`: those before this one."),
        ("anthropic-version" = Option<String>, Header, description = "Asks for the form of Anthropic's API."),
    ),
    responses((status = 200, body = ModelsAnswer), (status = "default", description = "An error.", body = ErrorBody)),
)]
pub async fn list(
    State(app): State<Arc<AppState>>,
    _identity: Identity,
    headers: HeaderMap,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<ModelsAnswer>, ApiError> {
    let models = app.llm.distinct_models();
    if is_anthropic(&headers) {
        let Query(query) = query.unwrap_or_default();
        return Ok(Json(ModelsAnswer::Anthropic(page(models, &query)?)));
    }
    let for_codex = models.iter().filter(|model| model.can_chat());
    Ok(Json(ModelsAnswer::OpenAi(ModelObjects {
        object: "list",
        models: for_codex.map(CodexModel::from).collect(),
        data: models.into_iter().map(ModelObject::from).collect(),
    })))
}

/// Tells of one model. Its id may have slashes and colons, encoded or not. With an `anthropic-version` header the answer has the
/// form of Anthropic's API.
#[utoipa::path(
    get, path = "/v1/models/{model}", operation_id = "read_model", tag = "openai",
    params(
        ("model" = String, Path, description = "The model's id."),
        ("anthropic-version" = Option<String>, Header, description = "Asks for the form of Anthropic's API."),
    ),
    responses((status = 200, body = ModelAnswer), (status = "default", description = "An error.", body = ErrorBody)),
)]
pub async fn read(
    State(app): State<Arc<AppState>>,
    _identity: Identity,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<ModelAnswer>, ApiError> {
    find(&app, &headers, &id)
}

/// The same for an id whose slashes came as they are.
pub async fn read_parts(
    State(app): State<Arc<AppState>>,
    _identity: Identity,
    headers: HeaderMap,
    Path((first, rest)): Path<(String, String)>,
) -> Result<Json<ModelAnswer>, ApiError> {
    find(&app, &headers, &format!("{first}/{rest}"))
}

fn find(app: &Arc<AppState>, headers: &HeaderMap, id: &str) -> Result<Json<ModelAnswer>, ApiError> {
    let model = app.llm.find(id).ok_or_else(|| {
        let detail = "No model has that id; GET /v1/models lists those that there are.";
        ApiError::new(Code::ModelNotFound, detail)
    })?;
    Ok(Json(if is_anthropic(headers) {
        ModelAnswer::Anthropic(model.into())
    } else {
        ModelAnswer::OpenAi(model.into())
    }))
}

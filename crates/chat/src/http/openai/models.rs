//! The models, as OpenAI's SDKs read them.

use std::sync::Arc;

use std::collections::HashSet;

use axum::{Json, extract::State};
use common::{
    errors::{ApiError, Code, extract::Path},
    identity::Identity,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{http::openai::error::ErrorBody, llm, state::AppState};

/// A model.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ModelObject {
    id: String,
    object: &'static str,
    /// Always 0: model servers do not tell.
    created: i64,
    /// The provider that has it.
    owned_by: String,
}

/// All models.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ModelObjects {
    object: &'static str,
    data: Vec<ModelObject>,
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

/// Each model once, of the provider that answers for it.
fn models(app: &Arc<AppState>) -> Vec<llm::Model> {
    let mut known = HashSet::new();
    let mut models = app.llm.models();
    models.retain(|model| known.insert(model.id.clone()));
    models
}

/// Lists the models of all providers, as of the last look at each.
#[utoipa::path(
    get, path = "/v1/models", tag = "openai",
    responses(
        (status = 200, body = ModelObjects),
        (status = "default", description = "An error.", body = ErrorBody),
    ),
    security(("bearer" = [])),
)]
pub async fn list(State(app): State<Arc<AppState>>, _identity: Identity) -> Json<ModelObjects> {
    Json(ModelObjects {
        object: "list",
        data: models(&app).into_iter().map(ModelObject::from).collect(),
    })
}

/// Tells of one model. Its id may have slashes and colons, encoded or not.
#[utoipa::path(
    get, path = "/v1/models/{model}", tag = "openai",
    params(("model" = String, Path, description = "The model's id.")),
    responses(
        (status = 200, body = ModelObject),
        (status = "default", description = "An error.", body = ErrorBody),
    ),
    security(("bearer" = [])),
)]
pub async fn read(
    State(app): State<Arc<AppState>>,
    _identity: Identity,
    Path(id): Path<String>,
) -> Result<Json<ModelObject>, ApiError> {
    find(&app, &id)
}

/// The same for an id whose slashes came as they are.
pub async fn read_parts(
    State(app): State<Arc<AppState>>,
    _identity: Identity,
    Path((first, rest)): Path<(String, String)>,
) -> Result<Json<ModelObject>, ApiError> {
    find(&app, &format!("{first}/{rest}"))
}

fn find(app: &Arc<AppState>, id: &str) -> Result<Json<ModelObject>, ApiError> {
    let models = models(app);
    let found = models
        .iter()
        .find(|model| model.id == id)
        .or_else(|| models.iter().find(|model| app.llm.same_model(model, id)));
    found
        .cloned()
        .map(|model| Json(model.into()))
        .ok_or_else(|| {
            ApiError::new(
                Code::ModelNotFound,
                "No model has that id; GET /v1/models lists those that there are.",
            )
        })
}

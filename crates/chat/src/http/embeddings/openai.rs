//! Embeddings, as OpenAI's SDKs ask for them and read them.

use std::sync::Arc;

use axum::response::Response;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use common::errors::ApiError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    http::{
        embeddings::{embed, write_floats},
        inference::{
            InferenceBody,
            checks::{check, check_model},
        },
        openai::error::ErrorBody,
    },
    llm::{EmbeddingInput, EmbeddingRequest},
};

/// What is to be embedded. Members that are not known here are ignored.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(example = json!({"model": "nomic-embed-text", "input": "Hello!"}))]
pub struct CreateEmbedding {
    /// An embedding model: those of `/v1/models` that are not in `/chat/models`, as far as its server tells.
    model: Option<String>,
    /// A text, a list of texts, a list of token numbers, or a list of such lists; at most 16384 of them, none empty.
    input: Value,
    /// `float` (the default) or `base64`: 32-bit floats, little-endian.
    encoding_format: Option<String>,
    /// The length of the vectors, where the model can make others than its own.
    dimensions: Option<u32>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Embeddings {
    object: &'static str,
    /// In the order of the inputs.
    data: Vec<EmbeddingObject>,
    model: String,
    usage: EmbeddingUsage,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EmbeddingObject {
    object: &'static str,
    index: usize,
    /// A list of numbers, or a text in base64.
    embedding: Value,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct EmbeddingUsage {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// Makes embeddings. Answers go before them: a large import waits while people talk.
#[utoipa::path(
    post, path = "/v1/embeddings", operation_id = "create_embedding", tag = "openai",
    request_body = CreateEmbedding,
    responses(
        (status = 200, body = Embeddings),
        (status = "default", description = "An error; `unsupported_by_model` where the model makes no embeddings, or none of that length.", body = ErrorBody),
    ),
)]
pub async fn create(
    InferenceBody(body, caller): InferenceBody<CreateEmbedding>,
) -> Result<Response, ApiError> {
    let is_base64 = body.is_base64()?;
    let model = body.model.clone();
    let request = body.checked(caller.request_id.clone())?;
    let answer = embed(caller, model.as_deref(), request).await?;
    let write_vector = if is_base64 { write_base64 } else { write_floats };
    let write = move |index, vector: &[f32], out: &mut String| {
        out.push_str(&format!(r#"{{"object":"embedding","index":{index},"embedding":"#));
        write_vector(vector, out);
        out.push('}');
    };
    let after = format!(
        r#"],"model":{model},"usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}}}"#,
        model = Value::from(answer.model.as_str()),
        tokens = answer.tokens,
    );
    Ok(answer.into_response(r#"{"object":"list","data":["#.to_owned(), write, after))
}

impl CreateEmbedding {
    fn is_base64(&self) -> Result<bool, ApiError> {
        match self.encoding_format.as_deref() {
            None | Some("float") => Ok(false),
            Some("base64") => Ok(true),
            Some(_) => Err(ApiError::invalid("/encoding_format", "This must be float or base64.")),
        }
    }

    fn checked(self, request_id: Arc<str>) -> Result<EmbeddingRequest, ApiError> {
        check_model(self.model.as_deref())?;
        let is_length = self.dimensions.is_none_or(|length| (1..=65_536).contains(&length));
        check(is_length, "/dimensions", "This must be from 1 to 65536.")?;
        let detail = "This must be a text, a list of texts, a list of token numbers, or a list of such lists, none of them empty.";
        let input = input(self.input).ok_or_else(|| ApiError::invalid("/input", detail))?;
        Ok(EmbeddingRequest { input, dimensions: self.dimensions, truncate: false, request_id })
    }
}

fn input(value: Value) -> Option<EmbeddingInput> {
    let items = match value {
        Value::String(text) => vec![Value::String(text)],
        Value::Array(items) if items.first()?.is_number() => vec![Value::Array(items)],
        Value::Array(items) => items,
        _ => return None,
    };
    let text = |item: &mut Value| match item.take() {
        Value::String(text) if !text.is_empty() => Some(text),
        _ => None,
    };
    let tokens = |item: &Value| {
        let list = item.as_array().filter(|list| !list.is_empty())?.iter();
        list.map(|token| u32::try_from(token.as_u64()?).ok()).collect()
    };
    let mut items = items;
    if items.first()?.is_string() {
        let texts: Option<Vec<String>> = items.iter_mut().map(text).collect();
        return Some(EmbeddingInput::Texts(texts?.into()));
    }
    let lists: Option<Vec<Vec<u32>>> = items.iter().map(tokens).collect();
    Some(EmbeddingInput::Tokens(lists?.into()))
}

fn write_base64(vector: &[f32], out: &mut String) {
    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    out.push('"');
    STANDARD.encode_string(bytes, out);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Option<String> {
        Some(match input(value)? {
            EmbeddingInput::Texts(texts) => format!("{texts:?}"),
            EmbeddingInput::Tokens(lists) => format!("{lists:?}"),
        })
    }

    #[test]
    fn input_comes_in_four_forms() {
        assert_eq!(read(json!("a")).as_deref(), Some(r#"["a"]"#));
        assert_eq!(read(json!(["a", "b"])).as_deref(), Some(r#"["a", "b"]"#));
        assert_eq!(read(json!([1, 2])).as_deref(), Some("[[1, 2]]"));
        assert_eq!(read(json!([[1], [2, 3]])).as_deref(), Some("[[1], [2, 3]]"));
        for wrong in [
            json!(""),
            json!([]),
            json!(["a", 1]),
            json!(["a", ""]),
            json!([1, "a"]),
            json!([[]]),
            json!([-1]),
            json!([1.5]),
            json!({}),
            json!(5),
        ] {
            assert_eq!(read(wrong.clone()), None, "{wrong}");
        }
    }

    #[test]
    fn base64_is_of_little_endian_floats() {
        let mut out = String::new();
        write_base64(&[1.0, -2.0], &mut out);
        assert_eq!(out, r#""AACAPwAAAMA=""#);
    }
}

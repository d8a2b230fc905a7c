//! Completes an OpenAPI document with the errors that every call of its kind may return, so that no handler lists them.

use http::StatusCode;
use utoipa::openapi::{
    Content, Header, OpenApi, PathItem, Ref, RefOr, Response,
    path::Operation,
    schema::{Object, Schema, Type},
    security::{Http, HttpAuthScheme, SecurityScheme},
};

use super::health;
use crate::errors::{Code, status_of};

const PROBLEM_JSON: &str = "application/problem+json";
const PROBLEM: &str = "#/components/schemas/Problem";

/// Statuses of the common layers, for any request.
const ANY: &[u16] = &[400, 403, 414, 431, 500, 503];

/// Further statuses of a call with an identity.
const IDENTIFIED: &[u16] = &[401, 429];

/// Further statuses of a call with a body.
const WITH_BODY: &[u16] = &[408, 413, 415, 422];

/// Adds the health calls and every error: each problem as `application/problem+json`, with the codes of its status.
/// An operation that has a `default` response is another API's: its errors have another shape, and none is added. Every response gets a
/// description, which OpenAPI demands.
#[must_use]
pub fn complete_openapi(mut openapi: OpenApi) -> OpenApi {
    openapi.merge(<health::Document as utoipa::OpenApi>::openapi());
    for (_, operation) in operations(&mut openapi) {
        if !operation.responses.responses.contains_key("default") {
            complete_operation(operation);
        }
        describe_responses(operation);
    }
    openapi
}

/// Adds the scheme `bearer`, which calls that take a token name.
pub fn add_bearer(openapi: &mut OpenApi, description: Option<&str>) {
    let mut bearer = Http::new(HttpAuthScheme::Bearer);
    bearer.description = description.map(str::to_owned);
    let components = openapi.components.get_or_insert_default();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
}

pub fn operations(openapi: &mut OpenApi) -> impl Iterator<Item = (&str, &mut Operation)> {
    openapi.paths.paths.iter_mut().flat_map(|(path, item)| {
        let PathItem { get, put, post, delete, patch, .. } = item;
        let operations = [get, put, post, delete, patch].into_iter().flatten();
        operations.map(|operation| (path.as_str(), operation))
    })
}

fn complete_operation(operation: &mut Operation) {
    let mut statuses = ANY.to_vec();
    if operation.security.is_some() {
        statuses.extend(IDENTIFIED);
    }
    if operation.request_body.is_some() {
        statuses.extend(WITH_BODY);
    }
    if operation.parameters.as_ref().is_some_and(|list| !list.is_empty()) {
        statuses.push(422);
    }
    let responses = &mut operation.responses.responses;
    for status in statuses {
        responses.entry(status.to_string()).or_insert_with(|| RefOr::T(problem()));
    }
    for (status, response) in responses {
        let RefOr::T(response) = response else { continue };
        if let Some(content) = response.content.shift_remove("application/json") {
            let kind = if is_problem(&content) { PROBLEM_JSON } else { "application/json" };
            response.content.insert(kind.to_owned(), content);
        }
        if matches!(status.as_str(), "429" | "503") {
            let seconds = Header::new(Object::with_type(Type::Integer));
            response.headers.entry("Retry-After".to_owned()).or_insert(RefOr::T(seconds));
        }
    }
}

fn describe_responses(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if response.description.is_empty() {
            response.description = match response.content.contains_key(PROBLEM_JSON) {
                true => codes_of(status),
                false => reason(status).to_owned(),
            };
        }
    }
}

fn reason(status: &str) -> &'static str {
    let status = StatusCode::from_bytes(status.as_bytes()).ok();
    status.and_then(|status| status.canonical_reason()).unwrap_or("Any other answer")
}

fn problem() -> Response {
    let mut response = Response::new("");
    response.content.insert(PROBLEM_JSON.to_owned(), Content::new(Some(Ref::new(PROBLEM))).into());
    response
}

fn is_problem(content: &RefOr<Content>) -> bool {
    let RefOr::T(content) = content else { return false };
    let schema: Option<&RefOr<Schema>> = content.schema.as_ref();
    matches!(schema, Some(RefOr::Ref(schema)) if schema.ref_location == PROBLEM)
}

fn codes_of(status: &str) -> String {
    let codes = Code::ALL.iter().filter(|code| status_of(**code).as_str() == status);
    codes.map(|code| format!("`{}`", code.as_str())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use utoipa::openapi::{
        ContentBuilder, HttpMethod, PathsBuilder, ResponseBuilder, path::OperationBuilder,
    };

    use super::*;

    fn described_operation(operation: OperationBuilder) -> Operation {
        let item = PathItem::new(HttpMethod::Get, operation);
        let paths = PathsBuilder::new().path("/x", item).build();
        let openapi = complete_openapi(OpenApi::new(utoipa::openapi::Info::new("x", "1"), paths));
        openapi.paths.paths["/x"].get.clone().unwrap()
    }

    #[test]
    fn a_problem_is_said_to_be_one_and_names_its_codes() {
        let response = ResponseBuilder::new().content(
            "application/json",
            ContentBuilder::new().schema(Some(Ref::new(PROBLEM))).build(),
        );
        let operation =
            described_operation(OperationBuilder::new().response("404", response.build()));
        let RefOr::T(response) = &operation.responses.responses["404"] else {
            panic!("a response of its own")
        };
        assert!(response.content.contains_key(PROBLEM_JSON));
        assert!(response.description.contains("`session_not_found`"));
        assert!(operation.responses.responses.contains_key("500"));
        assert!(!operation.responses.responses.contains_key("401"));
    }

    #[test]
    fn another_apis_operations_get_no_problems() {
        let operation = described_operation(
            OperationBuilder::new().response("default", ResponseBuilder::new().build()),
        );
        assert_eq!(operation.responses.responses.len(), 1);
    }
}

//! What is said where nothing is: which route serves instead, for those of other APIs that clients try.

use std::sync::LazyLock;

use axum::http::Uri;
use common::errors::{ApiError, Code};
use utoipa::openapi::OpenApi;

use crate::http::router;

/// Families of routes that other servers have, and what serves instead here: a line each.
const INSTEAD: &str = "\
/v1/completions Send the prompt as a user message to POST /v1/chat/completions.
/v1/responses/compact Nothing compacts a conversation here; send what is to be kept of it to POST /v1/chat/completions.
/v1/responses Responses are not stored here; send the whole conversation as the `input` of POST /v1/responses.
/v1/conversations Conversations are not stored here; a session keeps one: POST /chat/sessions, then POST /chat/message.
/v1/audio Nothing here speaks or listens; transcribe elsewhere and send the text to POST /v1/chat/completions.
/v1/images Nothing here draws; models that can see take images in the messages of POST /v1/chat/completions.
/v1/assistants There are no assistants here; a session with a system prompt is one: POST /chat/sessions, then POST /chat/message.
/v1/threads There are no threads here; a session keeps a conversation: POST /chat/sessions, then POST /chat/message.
/v1/files No files are kept here; put what the model needs into the messages of POST /v1/chat/completions.
/v1/uploads No files are kept here; put what the model needs into the messages of POST /v1/chat/completions.
/v1/vector_stores No files are kept here; put what the model needs into the messages of POST /v1/chat/completions.
/v1/batches There are no batches here; send the requests one by one to POST /v1/chat/completions.
/v1/fine_tuning Models are not trained here; GET /v1/models lists those that there are.
/v1/moderations Nothing here moderates; ask a model that does at POST /v1/chat/completions.
/v1/realtime There are no realtime sessions here; GET /chat/ws is a WebSocket for text.
/v1/v1 The base URL ends in one /v1: POST /v1/chat/completions.
/chat/completions The base URL ends in /v1: POST /v1/chat/completions.
/completions The base URL ends in /v1: POST /v1/chat/completions.
/models The base URL ends in /v1: GET /v1/models.";

/// The routes under `/v1` and `/api`, as a sentence may list them.
static OTHER_APIS: LazyLock<[(&str, String); 2]> = LazyLock::new(|| {
    let document = router::document();
    ["/v1/", "/api/"].map(|prefix| (prefix, routes_under(&document, prefix).join(", ")))
});

fn routes_under(document: &OpenApi, prefix: &str) -> Vec<String> {
    let mut routes = Vec::new();
    for (path, item) in &document.paths.paths {
        let methods = [
            ("GET", item.get.is_some()),
            ("POST", item.post.is_some()),
            ("DELETE", item.delete.is_some()),
        ];
        let there = methods.iter().filter(|(_, is_there)| *is_there);
        if path.starts_with(prefix) {
            routes.extend(there.map(|(method, _)| format!("{method} {path}")));
        }
    }
    routes
}

/// The families of [`INSTEAD`], each with its sentence.
fn instead() -> impl Iterator<Item = (&'static str, &'static str)> {
    INSTEAD.lines().filter_map(|line| line.split_once(' '))
}

/// The answer to a path that no route has. `ollama_api`: whether Ollama's API is served.
pub fn not_found(uri: &Uri, ollama_api: bool) -> ApiError {
    ApiError::new(Code::NotFound, detail(uri.path(), ollama_api))
}

fn detail(path: &str, ollama_api: bool) -> String {
    let is_of = |family: &str| {
        path.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if let Some((_, instead)) = instead().find(|(family, _)| is_of(family)) {
        return instead.to_owned();
    }
    if path.starts_with("/api/") && !ollama_api {
        return "Ollama's API is switched off here (chat.ollama_api); POST /v1/chat/completions serves the same models.".into();
    }
    let api = OTHER_APIS.iter().find(|(prefix, _)| path.starts_with(prefix));
    match api {
        Some((prefix, routes)) => {
            format!("There is nothing at this address; under {prefix} there are: {routes}.")
        }
        None => "There is nothing at this address; /docs shows what there is.".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `METHOD /path`, wherever a text names one.
    fn routes_in(text: &str) -> Vec<String> {
        let words: Vec<&str> = text.split([' ', ',', ';']).collect();
        words
            .windows(2)
            .filter(|pair| ["GET", "POST", "DELETE"].contains(&pair[0]))
            .map(|pair| format!("{} {}", pair[0], pair[1].trim_end_matches(['.', ':'])))
            .collect()
    }

    #[test]
    fn every_route_that_is_named_exists() {
        let there = routes_under(&router::document(), "/");
        let families = instead().map(|(family, _)| (family, true));
        for (path, ollama_api) in families.chain([
            ("/v1/files/abc/content", true),
            ("/v1/unheard_of", true),
            ("/api/unheard_of", true),
            ("/api/chat", false),
        ]) {
            let detail = detail(path, ollama_api);
            let named = routes_in(&detail);
            assert!(!named.is_empty(), "{path}: {detail}");
            for route in named {
                assert!(there.contains(&route), "{path} names {route}: {there:?}");
            }
        }
    }

    #[test]
    fn a_family_is_its_path_and_what_is_below() {
        assert!(detail("/v1/files", true).contains("No files"));
        assert!(detail("/v1/files/x", true).contains("No files"));
        assert!(!detail("/v1/filesystem", true).contains("No files"));
        assert!(detail("/v1/filesystem", true).contains("POST /v1/chat/completions"));
        assert!(detail("/nowhere", true).contains("/docs"));
    }
}

//! An answer that was read to its end, with the checks that every test makes.

use reqwest::{Response, header::HeaderMap};
use serde_json::Value;

/// An answer that was read to its end.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    /// Reads an answer to its end.
    ///
    /// # Panics
    /// When the connection breaks before.
    pub async fn read(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self {
            status,
            headers,
            body: response.bytes().await.expect("the body arrives whole").to_vec(),
        }
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("the body is UTF-8")
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{error} in a {} with {:?}", self.status, String::from_utf8_lossy(&self.body))
        })
    }

    /// A header as text; empty where it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The JSON of an answer with that status.
    ///
    /// # Panics
    /// When the status is another.
    pub fn expect(&self, status: u16) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "the answer was: {text}");
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// The problem object of a refusal with that status and code, checked in every member that all of them share.
    ///
    /// # Panics
    /// When anything about it is not as promised.
    pub fn problem(&self, status: u16, code: &str) -> Value {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        assert_eq!(self.status, status, "the answer was: {text}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{text}");
        assert_eq!(self.header("x-content-type-options"), "nosniff", "{text}");
        let problem = self.json();
        check_problem(&problem, status, code);
        assert_eq!(problem["request_id"], self.header("x-request-id"), "{text}");
        assert!(!self.header("x-request-id").is_empty(), "{text}");
        let needs_wait = matches!(status, 429 | 503);
        assert!(
            !needs_wait || self.header("retry-after").parse::<u64>().is_ok(),
            "Retry-After is missing: {text}"
        );
        assert!(
            status != 401 || !self.header("www-authenticate").is_empty(),
            "WWW-Authenticate is missing: {text}"
        );
        problem
    }

    /// The 422 that names exactly these members.
    ///
    /// # Panics
    /// When it is something else.
    pub fn names(&self, pointers: &[&str]) {
        let problem = self.problem(422, "validation_failed");
        let mut named: Vec<&str> = problem["errors"]
            .as_array()
            .expect("errors")
            .iter()
            .filter_map(|error| error["pointer"].as_str())
            .collect();
        let mut wanted = pointers.to_vec();
        named.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(named, wanted, "{problem}");
    }
}

/// The members that every problem object has, on HTTP and in streams.
pub(crate) fn check_problem(problem: &Value, status: u16, code: &str) {
    assert_eq!(problem["code"], code, "{problem}");
    assert_eq!(problem["status"], status, "{problem}");
    // A WebSocket frame has its own `type` in the place of the problem's.
    let kind = problem["type"].as_str();
    assert!(matches!(kind, Some("about:blank" | "error")), "{problem}");
    for member in ["title", "detail", "request_id"] {
        assert!(problem[member].is_string(), "no {member} in {problem}");
    }
    for member in ["detail", "request_id"] {
        assert_ne!(problem[member], "", "an empty {member} in {problem}");
    }
    let named = |error: &Value| error["pointer"].is_string() && error["detail"].is_string();
    let is_named =
        problem["errors"].as_array().is_some_and(|all| !all.is_empty() && all.iter().all(named));
    assert!(is_named || status != 422, "no member is named: {problem}");
    let is_pointed_at = problem["pointer"].is_string();
    assert_eq!(is_pointed_at, code == "unsupported_by_model", "the member is named: {problem}");
}

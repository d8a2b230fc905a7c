//! Checking the values of a request: every wrong one is named, each under its pointer.

use common::{
    errors::{ApiError, Code, FieldError},
    model_name::{MODEL_NAME_MAX, is_model_name},
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    domain::{MessageId, Options, SessionId},
    error::ChatError,
};

/// Longest system prompt, in characters.
const SYSTEM_MAX: usize = 131_072;

/// Longest title, in characters.
const TITLE_MAX: usize = 200;

#[derive(Debug, Default)]
pub struct Checks {
    errors: Vec<FieldError>,
}

impl Checks {
    fn wrong(&mut self, pointer: &str, detail: String) {
        self.errors.push(FieldError { pointer: pointer.to_owned(), detail });
    }

    /// A text of a message or a system prompt. How long a message may be is a setting, which the turn service checks.
    pub fn text(&mut self, pointer: &str, text: &str) {
        if text.trim().is_empty() {
            self.wrong(pointer, "This must hold more than white space.".into());
        } else if text.contains('\0') {
            self.wrong(pointer, "This must not hold a NUL character.".into());
        }
    }

    pub fn title(&mut self, title: Option<&str>) {
        if let Some(title) = title
            && (title.chars().count() > TITLE_MAX || title.chars().any(char::is_control))
        {
            let detail = format!("A title has at most {TITLE_MAX} characters, on one line.");
            self.wrong("/title", detail);
        }
    }

    pub fn model(&mut self, model: Option<&str>) {
        let Some(model) = model else { return };
        if !is_model_name(model) {
            let allowed = format!("1 to {MODEL_NAME_MAX} of A-Z a-z 0-9 . _ : / @ + -.");
            self.wrong("/model", format!("A model's name has {allowed}"));
        }
    }

    pub fn session(&mut self, id: Option<&str>) -> Option<SessionId> {
        let id = id?;
        let parsed = SessionId::parse(id);
        if parsed.is_none() {
            self.wrong("/session_id", "A session id has 1 to 64 of A-Z a-z 0-9 . _ -.".into());
        }
        parsed
    }

    pub fn options(&mut self, options: Option<&Options>) {
        let Some(options) = options else { return };
        for (name, detail) in options.faults() {
            self.wrong(&format!("/options/{name}"), detail.to_owned());
        }
        if options.top_p == Some(0.0) {
            self.wrong("/options/top_p", "This must be above 0.".to_owned());
        }
    }

    pub fn turn(&mut self, model: Option<&str>, system: Option<&str>, options: Option<&Options>) {
        self.model(model);
        if let Some(system) = system {
            self.text("/system", system);
            if system.chars().nth(SYSTEM_MAX).is_some() {
                let detail = format!("This may have at most {SYSTEM_MAX} characters.");
                self.wrong("/system", detail);
            }
        }
        self.options(options);
    }

    /// The 422 that names everything that was wrong.
    pub fn finish(self) -> Result<(), ApiError> {
        let Some(first) = self.errors.first() else { return Ok(()) };
        let detail = format!("{} ({})", first.detail, first.pointer);
        Err(ApiError { errors: self.errors, ..ApiError::new(Code::ValidationFailed, detail) })
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct SessionPath {
    #[param(pattern = "^[A-Za-z0-9._-]{1,64}$", example = "default")]
    pub session_id: String,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct MessagePath {
    /// The answer: the `message_id` that came with it.
    pub message_id: String,
}

/// The session id of a path; what cannot be one names no session.
pub fn session_in_path(session_id: &str) -> Result<SessionId, ApiError> {
    SessionId::parse(session_id).ok_or_else(|| ChatError::SessionNotFound.into())
}

/// The message id of a path; what cannot be one names no answer.
pub fn message_in_path(message_id: &str) -> Result<MessageId, ApiError> {
    MessageId::parse(message_id).ok_or_else(|| ChatError::MessageNotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_name_is_no_address_and_leads_nowhere() {
        for name in ["gemma3:1b", "org/name:fastest", "a", "hf.co/x/y-GGUF:Q4_K_M", "/models/llama"]
        {
            let mut checks = Checks::default();
            checks.model(Some(name));
            assert!(checks.finish().is_ok(), "{name}");
        }
        for name in [
            "",
            "../../x",
            "http://x/y",
            "/",
            "//etc",
            "/../etc",
            "a//b",
            "a b",
            "a\n",
            "ä",
            &"x".repeat(257),
        ] {
            let mut checks = Checks::default();
            checks.model(Some(name));
            assert!(checks.finish().is_err(), "{name}");
        }
    }

    #[test]
    fn every_wrong_value_is_named() {
        let mut checks = Checks::default();
        checks.text("/message", " \n");
        checks.session(Some("a b"));
        checks.options(Some(&Options {
            temperature: Some(3.0),
            top_p: Some(0.0),
            ..Options::default()
        }));
        let error = checks.finish().expect_err("four wrong values");
        let pointers: Vec<_> = error.errors.iter().map(|e| e.pointer.as_str()).collect();
        assert_eq!(pointers, ["/message", "/session_id", "/options/temperature", "/options/top_p"]);
    }
}

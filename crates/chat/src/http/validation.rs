//! Checking the values of a request: every wrong one is named, each under its pointer.

use common::errors::{ApiError, Code, FieldError};

use crate::{
    domain::{MessageId, Options, SessionId},
    error::ChatError,
};

/// Longest message and system prompt, in characters.
pub const TEXT_MAX: usize = 131_072;

/// Longest title, in characters.
const TITLE_MAX: usize = 200;

/// Longest model name, in characters.
const MODEL_MAX: usize = 256;

/// The wrong values of a request, all of them, each under its pointer.
#[derive(Debug, Default)]
pub struct Checks {
    errors: Vec<FieldError>,
}

impl Checks {
    fn wrong(&mut self, pointer: &str, detail: String) {
        self.errors.push(FieldError {
            pointer: pointer.to_owned(),
            detail,
        });
    }

    /// A text of a message or a system prompt.
    pub fn text(&mut self, pointer: &str, text: &str) {
        let length = text.chars().take(TEXT_MAX + 1).count();
        if text.trim().is_empty() {
            self.wrong(pointer, "This must hold more than white space.".into());
        } else if length > TEXT_MAX {
            self.wrong(
                pointer,
                format!("This may have at most {TEXT_MAX} characters."),
            );
        } else if text.contains('\0') {
            self.wrong(pointer, "This must not hold a NUL character.".into());
        }
    }

    /// A title.
    pub fn title(&mut self, title: Option<&str>) {
        if let Some(title) = title
            && (title.chars().count() > TITLE_MAX || title.chars().any(char::is_control))
        {
            self.wrong(
                "/title",
                format!("A title has at most {TITLE_MAX} characters, on one line."),
            );
        }
    }

    /// A model's name: never a path that leads elsewhere, never an address.
    pub fn model(&mut self, model: Option<&str>) {
        let Some(model) = model else { return };
        let allowed = |c: u8| c.is_ascii_alphanumeric() || b"._:/@+-".contains(&c);
        let is_name = (1..=MODEL_MAX).contains(&model.len())
            && model.bytes().all(allowed)
            // vLLM and llama-server name a model by its path where they are told no other name.
            && model
                .strip_prefix('/')
                .unwrap_or(model)
                .split('/')
                .all(|part| !matches!(part, "" | "." | ".."));
        if !is_name {
            self.wrong(
                "/model",
                format!("A model's name has 1 to {MODEL_MAX} of A-Z a-z 0-9 . _ : / @ + -."),
            );
        }
    }

    /// A session's id.
    pub fn session(&mut self, id: Option<&str>) -> Option<SessionId> {
        let id = id?;
        let parsed = SessionId::parse(id);
        if parsed.is_none() {
            self.wrong(
                "/session_id",
                "A session id has 1 to 64 of A-Z a-z 0-9 . _ -.".into(),
            );
        }
        parsed
    }

    /// Sampling options.
    pub fn options(&mut self, options: Option<&Options>) {
        let Some(options) = options else { return };
        let mut check = |holds: bool, name: &str, detail: &str| {
            if !holds {
                self.wrong(&format!("/options/{name}"), detail.to_owned());
            }
        };
        check(
            options.temperature.is_none_or(|t| (0.0..=2.0).contains(&t)),
            "temperature",
            "This must be from 0 to 2.",
        );
        check(
            options.top_p.is_none_or(|p| p > 0.0 && p <= 1.0),
            "top_p",
            "This must be above 0 and at most 1.",
        );
        check(
            options.top_k.is_none_or(|k| (1..=1000).contains(&k)),
            "top_k",
            "This must be from 1 to 1000.",
        );
        let max_tokens = options
            .max_tokens
            .is_none_or(|max| (1..=1_000_000).contains(&max));
        check(max_tokens, "max_tokens", "This must be from 1 to 1000000.");
        let stop = options.stop.as_ref().is_none_or(|stop| {
            stop.len() <= 16
                && stop
                    .iter()
                    .all(|text| (1..=256).contains(&text.chars().count()))
        });
        check(
            stop,
            "stop",
            "This must be at most 16 texts of 1 to 256 characters.",
        );
    }

    /// What a turn may choose for itself.
    pub fn turn(&mut self, model: Option<&str>, system: Option<&str>, options: Option<&Options>) {
        self.model(model);
        if let Some(system) = system {
            self.text("/system", system);
        }
        self.options(options);
    }

    /// The 422 that names everything that was wrong.
    pub fn finish(self) -> Result<(), ApiError> {
        let Some(first) = self.errors.first() else {
            return Ok(());
        };
        let detail = format!("{} ({})", first.detail, first.pointer);
        Err(ApiError {
            errors: self.errors,
            ..ApiError::new(Code::ValidationFailed, detail)
        })
    }
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
        for name in [
            "gemma3:1b",
            "org/name:fastest",
            "a",
            "hf.co/x/y-GGUF:Q4_K_M",
            "/models/llama",
        ] {
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
        assert_eq!(
            pointers,
            [
                "/message",
                "/session_id",
                "/options/temperature",
                "/options/top_p"
            ]
        );
    }
}

//! Translates a request of this API into a completion.

use common::errors::ApiError;

use crate::{
    domain::Options,
    generation::stateless::CompletionRequest,
    http::{
        inference::checks::{check, check_model, checked_options},
        openai::{passthrough, request::CreateChatCompletion},
    },
};

impl CreateChatCompletion {
    /// The completion that it asks for.
    ///
    /// # Errors
    /// The first wrong value is named, with what is allowed.
    pub fn checked(mut self) -> Result<CompletionRequest, ApiError> {
        check_model(self.model.as_deref())?;
        let detail = "There is one answer to a request here; leave `n` out or send 1.";
        check(self.n.is_none_or(|n| n == 1), "/n", detail)?;
        check(!self.messages.is_empty(), "/messages", "There must be at least one message.")?;
        let options = self.options()?;
        let extra = passthrough::members(&mut self)?;
        let messages = self.messages.into_iter().enumerate();
        Ok(CompletionRequest {
            model: self.model,
            messages: messages.map(|(i, message)| message.checked(i)).collect::<Result<_, _>>()?,
            options,
            extra,
            truncates: false,
        })
    }

    fn options(&self) -> Result<Options, ApiError> {
        let options = Options {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            max_tokens: self.max_completion_tokens.or(self.max_tokens),
            seed: self.seed,
            stop: self.stop.clone(),
            think: None,
        };
        let is_newer = self.max_completion_tokens.is_some();
        let most = if is_newer { "max_completion_tokens" } else { "max_tokens" };
        checked_options(options, &[("max_tokens", most)])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn checked(body: Value) -> Result<CompletionRequest, ApiError> {
        let body: CreateChatCompletion = common::errors::json::parse(body.to_string().as_bytes())?;
        body.checked()
    }

    fn pointer(body: Value) -> String {
        checked(body).unwrap_err().errors[0].pointer.clone()
    }

    #[test]
    fn what_sdks_send_is_taken_and_what_is_not_known_goes_on() {
        let new = checked(json!({
            "model": "m", "n": 1, "stop": "x", "seed": null, "max_tokens": 5, "max_completion_tokens": 7, "user": "u", "odd": [1], "n_predict": 9,
            "tools": [{ "type": "function", "function": { "name": "f", "parameters": { "z": 1, "a": 2 } } }],
            "messages": [
                { "role": "developer", "content": [{ "type": "text", "text": "Be" }, { "type": "text", "text": " brief." }] },
                { "role": "assistant", "content": null, "refusal": null, "tool_calls": [{ "id": "c", "type": "function", "function": { "name": "f", "arguments": "{}" } }] },
                { "role": "tool", "tool_call_id": "c", "content": "42" },
                { "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "data:," } }] },
            ],
        }))
        .unwrap();
        assert_eq!(new.messages[0].content, "Be brief.");
        assert_eq!(new.messages[0].extra, None);
        let call = new.messages[1].extra.as_ref().unwrap();
        assert_eq!((&call["content"], call.len()), (&Value::Null, 2));
        assert!(new.messages[3].extra.as_ref().unwrap()["content"].is_array());
        assert_eq!(new.options.max_tokens, Some(7));
        assert_eq!(new.options.stop, Some(vec!["x".to_owned()]));
        assert_eq!(new.extra.keys().collect::<Vec<_>>(), ["user", "odd", "tools"]);
        assert!(
            new.extra["tools"].to_string().contains(r#"{"z":1,"a":2}"#),
            "the order of a schema's members is the order in which a model writes them"
        );
    }

    #[test]
    fn an_empty_list_is_as_good_as_none() {
        let new = checked(json!({ "tools": [], "messages": [{ "role": "assistant", "content": "x", "tool_calls": [] }] })).unwrap();
        assert!(new.extra.is_empty());
        assert_eq!(new.messages[0].extra, None);
    }

    #[test]
    fn a_wrong_value_is_pointed_at() {
        let said = json!([{ "role": "user", "content": "Hi" }]);
        let function = |name: &str| json!({ "type": "function", "function": { "name": name } });
        let (tools, chosen) = (json!([function("f")]), function("g"));
        for (body, at) in [
            (json!({ "messages": [] }), "/messages"),
            (json!({ "model": "m" }), "/messages"),
            (json!({ "messages": said, "n": 2 }), "/n"),
            (json!({ "messages": said, "n": 0 }), "/n"),
            (json!({ "messages": said, "stop": 5 }), "/stop"),
            (json!({ "messages": said, "temperature": 3 }), "/temperature"),
            (json!({ "messages": said, "temperature": "x" }), "/temperature"),
            (json!({ "messages": said, "max_tokens": 0 }), "/max_tokens"),
            (json!({ "messages": said, "tools": {} }), "/tools"),
            (json!({ "messages": said, "tools": tools, "tool_choice": "bogus" }), "/tool_choice"),
            (json!({ "messages": said, "tools": tools, "tool_choice": chosen }), "/tool_choice"),
            (json!({ "messages": said, "functions": [{}] }), "/functions"),
            (
                json!({ "messages": said, "functions": [{ "name": "f" }], "function_call": { "name": "g" } }),
                "/function_call",
            ),
            (json!({ "messages": said, "response_format": "json" }), "/response_format"),
            (json!({ "messages": [{ "role": "user" }] }), "/messages/0/content"),
            (json!({ "messages": [{ "role": "robot", "content": "" }] }), "/messages/0/role"),
            (
                json!({ "messages": [{ "role": "user", "content": [{ "type": "x" }] }] }),
                "/messages/0/content/0/type",
            ),
            (json!({ "messages": ["Hi"] }), "/messages/0"),
        ] {
            assert_eq!(pointer(body), at);
        }
    }
}

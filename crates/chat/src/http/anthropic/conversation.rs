//! The conversation that is to be answered, in the form of OpenAI's API, which the providers take.

use common::errors::ApiError;
use serde_json::Value;

use crate::{
    http::{
        anthropic::{
            blocks::{ContentBlock, content, reminder},
            request::{InputMessage, InputRole},
        },
        inference::{
            checks::check,
            content::{Content, function_call},
        },
    },
    llm::PromptMessage,
};

/// What Claude Code tells Anthropic's servers in the first block of its system prompt. It changes with every conversation, so
/// that nothing after it would be found in a prompt cache, and means nothing to a model.
const BILLING: &str = "x-anthropic-billing-header:";

/// Between two messages of one role, which are one message to a model.
const BETWEEN: &str = "\n\n";

/// Gathers the messages. Consecutive messages of the user are one, since many chat templates want the roles to alternate.
#[derive(Default)]
struct PromptBuilder {
    system: String,
    messages: Vec<PromptMessage>,
    /// What the user has said since the last answer.
    said: Content,
    is_answered: bool,
}

/// The prompt: the system prompt first, then the messages.
///
/// # Errors
/// Where nothing is asked, or a block holds what no model could be given.
pub(super) fn prompt(
    mut system: Vec<ContentBlock>,
    messages: Vec<InputMessage>,
) -> Result<Vec<PromptMessage>, ApiError> {
    system
        .retain(|block| !matches!(block, ContentBlock::Text { text } if text.starts_with(BILLING)));
    let system = content(system)?.texts();
    let mut builder = PromptBuilder { system, ..PromptBuilder::default() };
    for message in messages {
        match message.role {
            InputRole::User => builder.user(message.content)?,
            InputRole::Assistant => builder.assistant(message.content),
            InputRole::System => builder.system(&content(message.content)?.texts()),
        }
    }
    builder.end_of_user();
    let PromptBuilder { system, mut messages, .. } = builder;
    check(!messages.is_empty(), "/messages", "There must be a message with content.")?;
    if !system.is_empty() {
        messages.insert(0, PromptMessage::text("system", system));
    }
    Ok(messages)
}

impl PromptBuilder {
    /// Results follow the calls that they answer directly; the images in them, which such a message cannot hold, come after all
    /// of them.
    fn user(&mut self, blocks: Vec<ContentBlock>) -> Result<(), ApiError> {
        let mut others = Vec::with_capacity(blocks.len());
        for block in blocks {
            let ContentBlock::ToolResult { tool_use_id, content: result, is_error } = block else {
                others.push(block);
                continue;
            };
            let result = content(result)?;
            let failed = if is_error == Some(true) { "Error: " } else { "" };
            let mut message = PromptMessage::text("tool", format!("{failed}{}", result.texts()));
            let images = result.without_texts();
            if !images.is_empty() {
                let mut shown = Content::default();
                shown.add_text(&format!("Images of the tool result {tool_use_id}:"));
                shown.append(images);
                self.say(shown);
            }
            message.set("tool_call_id", tool_use_id);
            self.messages.push(message);
        }
        self.say(content(others)?);
        Ok(())
    }

    fn say(&mut self, said: Content) {
        if !self.said.is_empty() && !said.is_empty() {
            self.said.add_text(BETWEEN);
        }
        self.said.append(said);
    }

    fn assistant(&mut self, blocks: Vec<ContentBlock>) {
        self.end_of_user();
        self.is_answered = true;
        let (mut text, mut thoughts, mut calls) = (String::new(), String::new(), Vec::new());
        for block in blocks {
            match block {
                ContentBlock::Text { text: piece } => text.push_str(&piece),
                ContentBlock::Thinking { thinking } => thoughts.push_str(&thinking),
                ContentBlock::ToolUse { id, name, input } => {
                    let arguments = if input.is_object() { &*input.to_string() } else { "{}" };
                    calls.push(function_call(&id, &name, arguments));
                }
                _ => {}
            }
        }
        let mut message = PromptMessage::text("assistant", text);
        if !calls.is_empty() {
            if message.content.is_empty() {
                message.set("content", Value::Null);
            }
            message.set("tool_calls", calls);
        }
        if !thoughts.is_empty() {
            message.set("reasoning_content", thoughts);
        }
        if !message.content.is_empty() || message.extra.is_some() {
            self.messages.push(message);
        }
    }

    /// Before the first answer it is a part of the system prompt, which stays the same from then on; later it stands where it
    /// came, so that what is before it can be found in a prompt cache.
    fn system(&mut self, text: &str) {
        if self.is_answered {
            let mut said = Content::default();
            said.add_text(&reminder(text));
            return self.say(said);
        }
        if !self.system.is_empty() {
            self.system.push_str(BETWEEN);
        }
        self.system.push_str(text);
    }

    fn end_of_user(&mut self) {
        let said = std::mem::take(&mut self.said);
        if !said.is_empty() {
            self.messages.push(said.into_message("user"));
        }
    }
}

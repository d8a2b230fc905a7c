//! What a model server is asked.

use std::{borrow::Cow, sync::Arc};

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::domain::Options;

/// Makes the request once a provider's turn has come: called for each provider tried, since windows
/// differ, and again where the server finds it too long.
pub trait Prompt: Send + Sync {
    fn fit(&self, model: &str, window: u32) -> ChatRequest;

    /// Estimates a prompt anew that the server found too long, by its count, and remembers that for later ones.
    fn recount(&self, refused: &ChatRequest, _counted: u32) -> u32 {
        refused.prompt_estimate
    }
}

/// One message of a prompt, in the OpenAI form, which the Ollama adapter translates.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptMessage {
    /// `system`, `user`, `assistant`, or on `/v1` also `tool`.
    pub role: Cow<'static, str>,
    pub content: String,
    /// Of stateless completions alone: everything else of the message (`tool_calls`, `tool_call_id`, `name`, and `content` as parts), as sent.
    pub extra: Option<Map<String, Value>>,
}

impl PromptMessage {
    pub fn text(role: impl Into<Cow<'static, str>>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), extra: None }
    }

    /// Whether it is the model's and says nothing that a model server could be sent: thoughts and a name alone are no answer.
    pub fn is_empty_answer(&self) -> bool {
        let mut extra = self.extra.iter().flatten();
        let is_aside = |name: &str| ["name", "reasoning_content"].contains(&name);
        self.role == "assistant"
            && self.content.is_empty()
            && extra.all(|(name, value)| value.is_null() || is_aside(name))
    }

    pub fn set(&mut self, member: &str, value: impl Into<Value>) {
        self.extra.get_or_insert_default().insert(member.to_owned(), value.into());
    }
}

#[derive(Clone, Debug, Default)]
pub struct ChatRequest {
    pub model: String,
    /// The messages that fit, oldest first.
    pub messages: Arc<[PromptMessage]>,
    pub options: Options,
    /// The window in tokens.
    pub window: u32,
    pub prompt_estimate: u32,
    pub dropped: u64,
    /// Of stateless completions: the caller made the prompt, so that a server that calls it bad means the caller.
    pub is_callers: bool,
    /// Of stateless completions alone: the prompt goes as the caller made it; a server that would cut it silently is told not to.
    pub untrimmed: bool,
    /// Of stateless completions alone: members passed through to servers that have them (`tools`, `tool_choice`, `response_format`, …).
    pub extra: Arc<Map<String, Value>>,
    /// The id of the caller's request, passed on so that the server's log can be searched by it; empty: none is sent.
    pub request_id: Arc<str>,
}

impl ChatRequest {
    /// The entries of a list of tools that the model may call: none where the caller forbids every call.
    pub(super) fn callable(&self, list: &str, choice: &str) -> &[Value] {
        let tools = self.extra.get(list).and_then(Value::as_array);
        let tools = tools.filter(|_| self.extra.get(choice).is_none_or(|choice| choice != "none"));
        tools.map_or(&[], Vec::as_slice)
    }

    /// The functions that the model may call, in the form of `tools`, also those of the older list. Other kinds of tools are run by
    /// the makers of their APIs.
    pub(super) fn functions(&self) -> impl Iterator<Item = Cow<'_, Value>> {
        let tools = self.callable("tools", "tool_choice").iter();
        let tools = tools.filter(|tool| tool.get("function").is_some()).map(Cow::Borrowed);
        let older = self.callable("functions", "function_call").iter();
        let older = older.map(|it| Cow::Owned(json!({ "type": "function", "function": it })));
        tools.chain(older)
    }

    /// Asks for no thoughts any more; returns whether it did.
    pub(super) fn forget_thinking(&mut self) -> bool {
        const EFFORT: &str = "reasoning_effort";
        let has_effort = self.extra.contains_key(EFFORT);
        if has_effort {
            Arc::make_mut(&mut self.extra).remove(EFFORT);
        }
        self.options.think.take().is_some() || has_effort
    }
}

#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum EmbeddingInput {
    Texts(Arc<[String]>),
    Tokens(Arc<[Vec<u32>]>),
}

#[derive(Clone, Debug)]
pub struct EmbeddingRequest {
    pub input: EmbeddingInput,
    /// The length that the vectors are to have.
    pub dimensions: Option<u32>,
    /// Whether an input that is too long is cut, where the server can; else it is refused.
    pub truncate: bool,
    pub request_id: Arc<str>,
}

impl EmbeddingInput {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Tokens(lists) => lists.len(),
        }
    }
}

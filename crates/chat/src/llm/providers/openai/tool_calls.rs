//! Puts the tool calls of an OpenAI-compatible answer together from their parts.

use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::llm::{
    chunk::ToolCall,
    error::ProviderError,
    providers::{
        openai::frame::CallPart,
        unicode::{RawText, TextJoiner, repair_escapes},
    },
};

#[derive(Default)]
pub(super) struct ToolCalls {
    calls: Vec<PartialCall>,
}

#[derive(Default)]
struct PartialCall {
    index: Option<u64>,
    id: Option<String>,
    name: String,
    arguments: String,
    joiner: TextJoiner,
}

impl PartialCall {
    /// Whether the arguments are a whole object, to which nothing can be added.
    fn has_whole_arguments(&self) -> bool {
        self.arguments.trim_end().ends_with('}')
            && serde_json::from_str::<IgnoredAny>(&self.arguments).is_ok()
    }

    fn append(&mut self, arguments: &RawValue) {
        let text = serde_json::from_str::<RawText>(arguments.get()).ok();
        match text.and_then(|text| self.joiner.push(text)) {
            Some(text) => self.arguments.push_str(&text),
            None => self.arguments.push_str(&repair_escapes(arguments.get())),
        }
    }

    fn finish(mut self) -> ToolCall {
        self.arguments.push_str(self.joiner.finish());
        let id = self
            .id
            .unwrap_or_else(|| format!("call_{}", Uuid::new_v4().simple()));
        let arguments = if self.arguments.is_empty() {
            "{}".to_owned()
        } else {
            self.arguments
        };
        ToolCall {
            id,
            name: self.name,
            arguments,
        }
    }
}

impl ToolCalls {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Adds a part to the call it belongs to, by index, else by id, else to the last one; or begins a call with it.
    pub(super) fn add(&mut self, part: CallPart<'_>) {
        let id = part.id.filter(|id| !id.is_empty());
        let names = part
            .function
            .as_ref()
            .and_then(|function| function.name.as_deref())
            .is_some_and(|name| !name.is_empty());
        let arguments = part
            .function
            .as_ref()
            .and_then(|function| function.arguments)
            .filter(|arguments| arguments.get() != "null");
        let argues = arguments.is_some_and(|arguments| arguments.get() != "\"\"");
        // Some servers give every call the index 0, or no call an index and an id.
        let is_other = |call: &PartialCall| match &id {
            Some(id) => call.id.as_ref().is_some_and(|known| known != id),
            None if !names || call.name.is_empty() => false,
            None => part.index.is_none() || (argues && call.has_whole_arguments()),
        };
        let found = self.calls.iter().rposition(|call| match (part.index, &id) {
            (Some(_), _) => call.index == part.index,
            (None, Some(id)) => call.id.as_ref() == Some(id),
            (None, None) => true,
        });
        let at = match found {
            Some(at) if self.calls.get(at).is_some_and(|call| !is_other(call)) => at,
            _ => {
                self.calls.push(PartialCall {
                    index: part.index,
                    ..PartialCall::default()
                });
                self.calls.len() - 1
            }
        };
        let Some(call) = self.calls.get_mut(at) else {
            return;
        };
        call.id = call.id.take().or(id);
        let name = part.function.and_then(|function| function.name);
        if let (true, Some(name)) = (call.name.is_empty(), name) {
            call.name = name;
        }
        if let Some(arguments) = arguments {
            call.append(arguments);
        }
    }

    /// The calls, whole.
    ///
    /// # Errors
    /// Where nobody could make one of them.
    pub(super) fn finish(&mut self) -> Result<Vec<ToolCall>, ProviderError> {
        let calls = std::mem::take(&mut self.calls);
        if calls.iter().any(|call| call.name.is_empty()) {
            return Err(ProviderError::failed("a tool call without a name"));
        }
        Ok(calls.into_iter().map(PartialCall::finish).collect())
    }
}

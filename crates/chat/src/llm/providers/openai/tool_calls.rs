//! Puts the tool calls of an OpenAI-compatible answer together from their parts.

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::llm::{
    chunk::ToolCall,
    error::ProviderError,
    providers::{
        openai::frame::CallPart,
        unicode::{RawText, TextJoiner, repair_escapes},
    },
};

/// The most that the calls of an answer may have, in bytes: as much as its text.
const MAX_SIZE: usize = 1024 * 1024;
/// What a call costs beside its text, in bytes.
const CALL_OVERHEAD: usize = 64;

#[derive(Default)]
pub(super) struct ToolCalls {
    calls: Vec<PartialCall>,
    size: usize,
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
        ToolCall::new(self.id, self.name, self.arguments)
    }
}

impl ToolCalls {
    /// Adds a part to the call it belongs to, or begins a call with it. `false`: with it the calls are longer than an answer may
    /// be, and the last one is dropped.
    ///
    /// A part with a name begins a call, unless it repeats the name of a call that is still growing; one without a name
    /// never does, whatever its id: some servers leave the id blank, or make a new one for every part. Some give every
    /// call the index 0, or no call an index and an id.
    pub(super) fn add(&mut self, part: CallPart<'_>) -> bool {
        let id = part.id.0.filter(|id| !id.trim().is_empty());
        let (name, arguments) = match part.function {
            Some(function) => (function.name, function.arguments),
            None => (None, None),
        };
        let name = name.filter(|name| !name.is_empty());
        let arguments = arguments.filter(|arguments| !matches!(arguments.get(), "null" | "\"\""));
        if id.is_none() && name.is_none() && arguments.is_none() {
            return true;
        }
        let at = self.find(part.index, id.as_deref(), name.is_some());
        let begins_another = |call: &PartialCall| {
            let Some(name) = name.as_deref().filter(|_| !call.name.is_empty()) else {
                return false;
            };
            let other_id = id.is_some() && call.id.is_some() && call.id != id;
            call.name != name
                || (other_id && (call.arguments.is_empty() || call.has_whole_arguments()))
                || (id.is_none() && part.index.is_none())
                || (id.is_none() && arguments.is_some() && call.has_whole_arguments())
        };
        let known = at.filter(|at| self.calls.get(*at).is_some_and(|call| !begins_another(call)));
        let at = known.unwrap_or(self.calls.len());
        if known.is_none() {
            self.size += CALL_OVERHEAD;
            self.calls.push(PartialCall { index: part.index, ..PartialCall::default() });
        }
        let Some(call) = self.calls.get_mut(at) else { return true };
        call.id = call.id.take().or(id);
        if let (true, Some(name)) = (call.name.is_empty(), name) {
            self.size += name.len();
            call.name = name;
        }
        if let Some(arguments) = arguments {
            let before = call.arguments.len();
            call.append(arguments);
            self.size += call.arguments.len() - before;
        }
        let fits = self.size <= MAX_SIZE;
        if !fits {
            self.calls.pop();
        }
        fits
    }

    /// The call that a part belongs to, unless it begins one: by id, else by index, else the last.
    fn find(&self, index: Option<u64>, id: Option<&str>, has_name: bool) -> Option<usize> {
        let has_index = |call: &PartialCall| index.is_some() && call.index == index;
        let has_id = |call: &PartialCall| id.is_some() && call.id.as_deref() == id;
        // A name under another index may begin a call: some servers give all of them one id.
        let may_move = |call: &PartialCall| !has_name || index.and(call.index).is_none();
        let find = |is_it: &dyn Fn(&PartialCall) -> bool| self.calls.iter().rposition(is_it);
        let by_both = find(&|call| has_id(call) && has_index(call));
        let by_id = || find(&|call| has_id(call) && may_move(call));
        by_both.or_else(by_id).or_else(|| find(&has_index)).or_else(|| {
            let last = self.calls.len().checked_sub(1)?;
            let goes_on = match index {
                Some(_) => !has_name && !self.calls[last].has_whole_arguments(),
                None => !has_name || id.is_none(),
            };
            goes_on.then_some(last)
        })
    }

    pub(super) fn finish(&mut self) -> Result<Vec<ToolCall>, ProviderError> {
        // An error leaves the calls where they are: asked again, it is the same.
        self.calls.retain(|call| !call.name.is_empty() || !call.arguments.trim().is_empty());
        if self.calls.iter().any(|call| call.name.is_empty()) {
            return Err(ProviderError::failed("a tool call without a name"));
        }
        Ok(self.calls.drain(..).map(PartialCall::finish).collect())
    }
}

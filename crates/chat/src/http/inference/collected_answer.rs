//! A whole answer, gathered from its chunks.

use std::time::Instant;

use crate::{
    domain::{FinishReason, Usage},
    error::ChatError,
    generation::stateless::Completion,
    llm::{Chunk, ToolCall, UsageDetails},
};

/// A part of an answer. Each ends before another begins.
#[derive(Clone, Debug, PartialEq)]
pub enum AnswerItem {
    Thinking(String),
    Text(String),
    ToolCall(ToolCall),
}

#[derive(Debug, Default)]
pub struct CollectedAnswer {
    pub model: String,
    pub first_token: Option<Instant>,
    pub items: Vec<AnswerItem>,
    pub end: AnswerEnd,
}

/// The end of an answer, and its cost.
#[derive(Clone, Debug, Default)]
pub struct AnswerEnd {
    pub finish: FinishReason,
    pub usage: Usage,
    pub details: UsageDetails,
    /// The one that ended the answer, where the server tells.
    pub stop_sequence: Option<String>,
}

impl AnswerItem {
    /// The item that begins with this piece, of which nothing is written yet.
    pub fn begun(&self) -> Self {
        match self {
            Self::Thinking(_) => Self::Thinking(String::new()),
            Self::Text(_) => Self::Text(String::new()),
            Self::ToolCall(call) => Self::ToolCall(call.clone()),
        }
    }

    /// True where the piece belongs to this item; a call comes in one piece.
    pub fn continues_with(&self, piece: &Self) -> bool {
        use AnswerItem::{Text, Thinking};
        matches!((self, piece), (Text(_), Text(_)) | (Thinking(_), Thinking(_)))
    }

    pub fn append(&mut self, piece: &Self) {
        if let (Self::Thinking(text), Self::Thinking(more)) | (Self::Text(text), Self::Text(more)) =
            (self, piece)
        {
            text.push_str(more);
        }
    }
}

impl CollectedAnswer {
    pub(super) async fn of(completion: &mut Completion) -> Result<Self, ChatError> {
        let mut answer = Self::default();
        while let Some(chunks) = completion.chunks.recv().await {
            for chunk in chunks? {
                if answer.take(chunk) {
                    return Ok(answer);
                }
            }
        }
        Err(ChatError::Broken)
    }

    /// Adds a chunk; returns whether it was the last.
    pub fn take(&mut self, chunk: Chunk) -> bool {
        match chunk {
            Chunk::Queued { .. } => {}
            Chunk::Started { model, .. } => {
                (self.model, self.first_token) = (model, Some(Instant::now()));
            }
            Chunk::Thinking(text) => self.add(AnswerItem::Thinking(text)),
            Chunk::Text(text) => self.add(AnswerItem::Text(text)),
            Chunk::ToolCall(call) => self.add(AnswerItem::ToolCall(call)),
            Chunk::End { finish, usage, details, stop_sequence } => {
                let usage = usage.unwrap_or_default();
                self.end = AnswerEnd { finish, usage, details, stop_sequence };
                return true;
            }
        }
        false
    }

    fn add(&mut self, piece: AnswerItem) {
        match self.items.last_mut() {
            Some(last) if last.continues_with(&piece) => last.append(&piece),
            _ => self.items.push(piece),
        }
    }
}

/// The text, the thoughts and the calls, for APIs that have one place for each.
pub fn merged(items: Vec<AnswerItem>) -> (String, String, Vec<ToolCall>) {
    let (mut text, mut thoughts, mut calls) = (String::new(), String::new(), Vec::new());
    for item in items {
        match item {
            AnswerItem::Text(piece) => text.push_str(&piece),
            AnswerItem::Thinking(piece) => thoughts.push_str(&piece),
            AnswerItem::ToolCall(call) => calls.push(call),
        }
    }
    (text, thoughts, calls)
}

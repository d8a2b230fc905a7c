//! Content blocks, and the texts and images in them.

use common::errors::{ApiError, Code};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::{domain::text_or_list::text_or_list, http::inference::content::Content};

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ContentBlock {
    Text {
        text: String,
    },
    Image {
        source: Source,
    },
    Document {
        source: Source,
        title: Option<String>,
        context: Option<String>,
    },
    SearchResult {
        title: Option<String>,
        #[serde(default, deserialize_with = "blocks")]
        content: Vec<ContentBlock>,
    },
    ToolUse {
        id: String,
        name: String,
        #[serde(default)]
        input: Value,
    },
    ToolResult {
        tool_use_id: String,
        #[serde(default, deserialize_with = "blocks")]
        content: Vec<ContentBlock>,
        is_error: Option<bool>,
    },
    Thinking {
        thinking: String,
    },
    /// What the system says in the middle of a conversation.
    MidConvSystem {
        #[serde(default, deserialize_with = "blocks")]
        content: Vec<ContentBlock>,
    },
    /// A tool that a search for tools has found.
    ToolReference {
        tool_name: String,
    },
    /// New kinds come with every release of an agent: they are left out.
    #[serde(other)]
    Unknown,
}

/// Where an image or a document comes from.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Source {
    Base64 {
        media_type: String,
        data: String,
    },
    Url {
        url: String,
    },
    Text {
        data: String,
    },
    Content {
        #[serde(deserialize_with = "blocks")]
        content: Vec<ContentBlock>,
    },
    #[serde(other)]
    Unknown,
}

impl From<String> for ContentBlock {
    fn from(text: String) -> Self {
        Self::Text { text }
    }
}

/// Reads content: a text is one block.
pub(super) fn blocks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ContentBlock>, D::Error> {
    text_or_list(from, "a text or a list of content blocks")
}

/// The texts and images of blocks that a user may say.
///
/// # Errors
/// For a document that is not text, and an image that is not named by its bytes or a URL.
pub(super) fn content(blocks: Vec<ContentBlock>) -> Result<Content, ApiError> {
    let mut said = Content::default();
    for block in blocks {
        match block {
            ContentBlock::Text { text } => said.add_text(&text),
            ContentBlock::Image { source } => said.add_image(image_url(source)?),
            ContentBlock::Document { source, title, context } => {
                for line in [title, context].into_iter().flatten() {
                    said.add_text(&format!("{line}\n"));
                }
                match source {
                    Source::Text { data } => said.add_text(&data),
                    Source::Content { content: inner } => said.append(content(inner)?),
                    _ => {
                        let detail = "Documents are read as text alone: send their text.";
                        return Err(unsupported(detail));
                    }
                }
            }
            ContentBlock::SearchResult { title, content: inner } => {
                said.add_text(&format!("{}\n", title.unwrap_or_default()));
                said.append(content(inner)?);
            }
            ContentBlock::MidConvSystem { content: inner } => {
                said.add_text(&reminder(&content(inner)?.texts()));
            }
            ContentBlock::ToolReference { tool_name } => {
                said.add_text(&format!("The tool {tool_name} can be used."));
            }
            _ => {}
        }
    }
    Ok(said)
}

/// Words of the system as a part of the user's message: many chat templates refuse a system message anywhere but at the beginning.
pub(super) fn reminder(text: &str) -> String {
    format!("<system-reminder>\n{text}\n</system-reminder>")
}

fn image_url(source: Source) -> Result<String, ApiError> {
    match source {
        Source::Base64 { media_type, data } => Ok(format!("data:{media_type};base64,{data}")),
        Source::Url { url } => Ok(url),
        _ => Err(unsupported("Send images in base64: `{type, media_type, data}`.")),
    }
}

fn unsupported(detail: &str) -> ApiError {
    ApiError { code: Code::UnsupportedByModel, ..ApiError::invalid("/messages", detail) }
}

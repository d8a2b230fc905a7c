//! The built-in stand-in for when no model server can be reached: it says so, and how to get one.

use std::time::Duration;

use async_trait::async_trait;
use common::config::ProviderKind;
use futures_util::{StreamExt, stream};

use crate::{
    domain::FinishReason,
    llm::{
        chunk::Chunk,
        error::RequestError,
        providers::{Chunks, ModelInfo, Provider},
        request::ChatRequest,
    },
};

/// The id under which it answers.
pub const MODEL: &str = "demo";
/// Between two pieces: enough to see that it streams.
const PACE: Duration = Duration::from_millis(8);
/// Words in a piece.
const PIECE: usize = 4;
/// Most characters of the message that are echoed.
const ECHO: usize = 120;

/// The stand-in.
pub struct Demo {
    /// The model that it tells people to get.
    wanted: String,
}

impl Demo {
    /// A stand-in that tells how to get that model.
    pub fn new(wanted: &str) -> Self {
        Self {
            wanted: wanted.to_owned(),
        }
    }

    fn answer(&self, request: &ChatRequest) -> String {
        let heard = request
            .messages
            .iter()
            .rev()
            .find(|message| message.role == "user");
        let heard = heard
            .map(|message| echo(&message.content))
            .unwrap_or_default();
        format!(
            "I am the built-in demo, not a language model: no model server could be reached. I did get your message \
             (\"{heard}\"). For real answers install Ollama (https://ollama.com/download), run `ollama serve`, and in \
             another terminal `ollama pull {wanted}`. Then ask again: I step aside by myself.",
            wanted = self.wanted
        )
    }
}

/// The beginning of what was said, on one line.
fn echo(said: &str) -> String {
    let mut words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((at, _)) = words.char_indices().nth(ECHO) {
        words.truncate(at);
        words.push('…');
    }
    words
}

/// Cuts after every few words, keeping every character.
fn pieces(text: &str) -> Vec<String> {
    let words: Vec<&str> = text.split_inclusive(' ').collect();
    words.chunks(PIECE).map(|words| words.concat()).collect()
}

#[async_trait]
impl Provider for Demo {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Demo
    }

    async fn list_models(&self) -> Result<Vec<ModelInfo>, RequestError> {
        Ok(vec![ModelInfo {
            id: MODEL.to_owned(),
            window: None,
        }])
    }

    async fn chat(&self, request: &ChatRequest) -> Result<Chunks, RequestError> {
        let text = pieces(&self.answer(request))
            .into_iter()
            .map(|piece| vec![Chunk::Text(piece)]);
        let end = vec![Chunk::End {
            finish: FinishReason::Stop,
            usage: None,
        }];
        let paced = stream::iter(text.chain([end])).then(|chunks| async move {
            tokio::time::sleep(PACE).await;
            Ok(chunks)
        });
        Ok(paced.boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::request::PromptMessage;

    #[tokio::test]
    async fn the_demo_says_what_it_is_and_how_to_get_a_model_in_several_pieces() {
        let said = PromptMessage {
            role: "user".to_owned(),
            content: "ü".repeat(5000),
            extra: None,
        };
        let request = ChatRequest {
            messages: vec![said],
            ..ChatRequest::default()
        };
        let chunks: Vec<_> = Demo::new("gemma3:1b")
            .chat(&request)
            .await
            .unwrap()
            .collect()
            .await;
        assert!(chunks.len() > 5, "{}", chunks.len());
        let text: String = chunks
            .iter()
            .flatten()
            .flatten()
            .filter_map(|chunk| match chunk {
                Chunk::Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        for words in [
            "not a language model",
            "`ollama serve`",
            "`ollama pull gemma3:1b`",
            "üüü",
        ] {
            assert!(text.contains(words), "{words} in {text}");
        }
        assert!(text.chars().count() < 600);
    }
}

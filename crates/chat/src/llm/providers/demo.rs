//! The built-in provider for when no model server can be reached: it says so, and how to get one.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};

use crate::{
    domain::FinishReason,
    llm::{
        chunk::{Chunk, UsageDetails},
        error::{ErrorKind, Feature, ProviderError},
        model::Capabilities,
        providers::{Batch, ChunkStream, EmbeddingAnswer, ModelInfo, Provider},
        request::{ChatRequest, EmbeddingRequest},
    },
};

pub(in crate::llm) const MODEL: &str = "demo";
/// Between two pieces: enough to see that it streams.
const PAUSE: Duration = Duration::from_millis(8);
const WORDS_A_PIECE: usize = 4;
/// Most characters of the message that are quoted.
const MAX_QUOTE: usize = 120;

pub(in crate::llm) fn model() -> ModelInfo {
    ModelInfo {
        id: MODEL.to_owned(),
        window: None,
        capabilities: Some(Capabilities { completion: true, ..Capabilities::default() }),
        facts: Arc::default(),
    }
}

pub(in crate::llm) struct Demo {
    pub(in crate::llm) recommended: String,
}

impl Demo {
    fn answer(&self, request: &ChatRequest) -> String {
        let quoted = request.messages.iter().rev().find(|message| message.role == "user");
        let quoted = quoted.map(|message| quote(&message.content)).unwrap_or_default();
        format!(
            "I am the built-in demo, not a language model: no model server could be reached. I did get your message \
             (\"{quoted}\"). For real answers install Ollama (https://ollama.com/download), run `ollama serve`, and in \
             another terminal `ollama pull {recommended}`. Then ask again: I step aside by myself.",
            recommended = self.recommended
        )
    }
}

/// The beginning of what was said, on one line.
fn quote(said: &str) -> String {
    let mut words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((at, _)) = words.char_indices().nth(MAX_QUOTE) {
        words.truncate(at);
        words.push('…');
    }
    words
}

/// Cuts after every few words, keeping every character.
fn pieces(text: &str) -> Vec<String> {
    let words: Vec<&str> = text.split_inclusive(' ').collect();
    words.chunks(WORDS_A_PIECE).map(|words| words.concat()).collect()
}

#[async_trait]
impl Provider for Demo {
    async fn list_models(&self) -> Result<Vec<ModelInfo>, ProviderError> {
        Ok(vec![model()])
    }

    async fn chat(&self, request: &ChatRequest) -> Result<ChunkStream, ProviderError> {
        let text = pieces(&self.answer(request)).into_iter().map(|piece| vec![Chunk::Text(piece)]);
        let end = vec![Chunk::End {
            finish: FinishReason::Stop,
            usage: None,
            details: UsageDetails::default(),
            stop_sequence: None,
        }];
        let paced = stream::iter(text.chain([end])).then(|chunks| async move {
            tokio::time::sleep(PAUSE).await;
            Ok(Batch { chunks, deltas: 1 })
        });
        Ok(paced.boxed())
    }

    async fn embed(
        &self,
        _model: &str,
        _part: &EmbeddingRequest,
    ) -> Result<EmbeddingAnswer, ProviderError> {
        let kind = ErrorKind::Unsupported(Feature::Embeddings);
        Err(ProviderError::new(kind, "the demo makes none"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::request::PromptMessage;

    #[tokio::test]
    async fn the_demo_says_what_it_is_and_how_to_get_a_model_in_several_pieces() {
        let said = PromptMessage { role: "user".into(), content: "ü".repeat(5000), extra: None };
        let request = ChatRequest { messages: vec![said].into(), ..ChatRequest::default() };
        let chunks: Vec<_> = Demo { recommended: "gemma3:1b".to_owned() }
            .chat(&request)
            .await
            .unwrap()
            .collect()
            .await;
        assert!(chunks.len() > 5, "{}", chunks.len());
        let text: String = chunks
            .iter()
            .flatten()
            .flat_map(|batch| &batch.chunks)
            .filter_map(|chunk| match chunk {
                Chunk::Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        for words in ["not a language model", "`ollama serve`", "`ollama pull gemma3:1b`", "üüü"]
        {
            assert!(text.contains(words), "{words} in {text}");
        }
        assert!(text.chars().count() < 600);
    }
}

//! The built-in provider for when no model server can be reached: it says so, and how to get one.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};

use crate::{
    domain::{FinishReason, Usage},
    llm::{
        chunk::{Chunk, UsageDetails},
        error::{Feature, ProviderError},
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
        capabilities: Some(Capabilities { completion: true, ..Capabilities::default() }),
        ..ModelInfo::default()
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

/// The answer in pieces of a few words, which are its tokens, and its end: at the first stop sequence, or where it is as long as
/// it may be.
fn pieces(mut text: String, request: &ChatRequest) -> Vec<Chunk> {
    let stops = request.options.stop.iter().flatten();
    let stop = stops.filter_map(|stop| Some((text.find(stop)?, stop.clone()))).min();
    text.truncate(stop.as_ref().map_or(text.len(), |(at, _)| *at));
    let words: Vec<&str> = text.split_inclusive(' ').collect();
    let most = request.options.max_tokens.and_then(|most| usize::try_from(most).ok());
    let is_cut = most.is_some_and(|most| words.len() > most);
    let kept = words.get(..most.unwrap_or(words.len())).unwrap_or(&words);
    let prompt_tokens = request.prompt_estimate.into();
    let end = Chunk::End {
        finish: if is_cut { FinishReason::Length } else { FinishReason::Stop },
        usage: Some(Usage { prompt_tokens, completion_tokens: kept.len() as u64 }),
        details: UsageDetails::default(),
        stop_sequence: stop.filter(|_| !is_cut).map(|(_, stop)| stop),
    };
    let pieces = kept.chunks(WORDS_A_PIECE).map(|words| Chunk::Text(words.concat()));
    pieces.chain([end]).collect()
}

#[async_trait]
impl Provider for Demo {
    async fn list_models(&self) -> Result<Vec<ModelInfo>, ProviderError> {
        Ok(vec![model()])
    }

    async fn chat(&self, request: &ChatRequest) -> Result<ChunkStream, ProviderError> {
        let format = request.extra.get("response_format");
        if format.is_some_and(|format| format["type"] != "text") {
            return Err(ProviderError::unsupported(Feature::Schema, "the demo keeps to no format"));
        }
        let pieces = pieces(self.answer(request), request);
        let paced = stream::iter(pieces).then(|chunk| async move {
            tokio::time::sleep(PAUSE).await;
            Ok(Batch { chunks: vec![chunk], deltas: 1 })
        });
        Ok(paced.boxed())
    }

    async fn embed(
        &self,
        _model: &str,
        _part: &EmbeddingRequest,
    ) -> Result<EmbeddingAnswer, ProviderError> {
        Err(ProviderError::unsupported(Feature::Embeddings, "the demo makes none"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::Options,
        llm::{error::ErrorKind, request::PromptMessage},
    };

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

    #[test]
    fn an_answer_ends_at_a_stop_sequence_or_where_it_is_long_enough() {
        let cut = |stop: &[&str], max_tokens: Option<u32>| {
            let stop = Some(stop.iter().map(|&stop| stop.to_owned()).collect());
            let options = Options { stop, max_tokens, ..Options::default() };
            let request = ChatRequest { options, ..ChatRequest::default() };
            let mut chunks = pieces("one two three four five six".to_owned(), &request);
            let Some(Chunk::End { finish, usage, stop_sequence, .. }) = chunks.pop() else {
                panic!("no end");
            };
            let text = chunks.into_iter().map(|chunk| match chunk {
                Chunk::Text(text) => text,
                other => panic!("{other:?}"),
            });
            let tokens = usage.unwrap().completion_tokens;
            (text.collect::<String>(), finish, tokens, stop_sequence.unwrap_or_default())
        };
        let whole = "one two three four five six".to_owned();
        assert_eq!(cut(&[], Some(6)), (whole, FinishReason::Stop, 6, String::new()));
        let five = "one two three four five ".to_owned();
        assert_eq!(cut(&["six"], Some(5)), (five, FinishReason::Stop, 5, "six".to_owned()));
        let two = "one two ".to_owned();
        assert_eq!(cut(&["six"], Some(2)), (two, FinishReason::Length, 2, String::new()));
        assert_eq!(cut(&["four", "e"], None).0, "on");
    }

    #[tokio::test]
    async fn a_format_is_refused() {
        let extra = serde_json::json!({ "response_format": { "type": "json_object" } });
        let request = ChatRequest {
            extra: extra.as_object().cloned().unwrap().into(),
            ..ChatRequest::default()
        };
        let refused = Demo { recommended: String::new() }.chat(&request).await.err().unwrap();
        assert_eq!(refused.kind, ErrorKind::Unsupported(Feature::Schema));
    }
}

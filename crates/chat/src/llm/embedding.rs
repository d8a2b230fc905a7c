//! Embeddings: texts in, vectors out, in parts that are small enough for answers to go between them.

use std::ops::Range;

use tokio::time::Instant;

use crate::llm::{
    call::{ProviderCall, send_with_retries},
    error::{Feature, ModelError, ProviderError},
    failover::Failover,
    providers::EmbeddingAnswer,
    request::{ChatRequest, EmbeddingInput, EmbeddingRequest, PromptMessage},
};
use common::otel::Span;

/// Most inputs of one request to a model server.
const PART_INPUTS: usize = 32;
/// Most text of one request to a model server, in bytes; a longer input goes alone. Seconds of work on a slow machine.
const PART_BYTES: usize = 16 * 1024;
/// What a token counts as, in bytes.
const TOKEN_BYTES: usize = 4;

/// For the caller of a request that the server calls bad.
const CHECK: &str =
    "The model server does not accept this request: check `input` and `dimensions`.";

#[derive(Debug)]
pub struct EmbeddedPart {
    pub vectors: Vec<Vec<f32>>,
    pub inputs: Range<usize>,
    pub tokens: Option<u64>,
    pub model: String,
}

/// A place in the lane for embeddings, then the vectors. Dropping it at any moment gives the place back and closes the connection.
pub struct EmbeddingRun {
    pub(super) failover: Failover,
    pub(super) call: ProviderCall,
    pub(super) done: usize,
    /// The length of the vectors so far.
    pub(super) length: Option<usize>,
}

impl EmbeddingInput {
    fn bytes(&self, at: usize) -> usize {
        match self {
            Self::Texts(texts) => texts.get(at).map_or(0, String::len),
            Self::Tokens(lists) => lists.get(at).map_or(0, Vec::len) * TOKEN_BYTES,
        }
    }

    fn part(&self, range: Range<usize>) -> Self {
        match self {
            Self::Texts(texts) => Self::Texts(texts.get(range).unwrap_or_default().into()),
            Self::Tokens(lists) => Self::Tokens(lists.get(range).unwrap_or_default().into()),
        }
    }

    /// The inputs from `start` on that go to the server together.
    fn part_from(&self, start: usize) -> Range<usize> {
        let (mut end, mut bytes) = (start, 0);
        while end < self.len() && end - start < PART_INPUTS {
            bytes += self.bytes(end);
            if bytes > PART_BYTES && end > start {
                break;
            }
            end += 1;
        }
        start..end
    }
}

impl EmbeddingRun {
    /// The span in which everything about this request is to run.
    pub fn span(&self) -> Span {
        self.call.request_span("embeddings")
    }

    /// The next vectors; `None` where there are all. Where the future is dropped, the request must be too.
    ///
    /// # Errors
    /// Whatever ended it. Another provider stands in only before the first part: vectors of two servers need not fit together.
    pub async fn next(
        &mut self,
        request: &EmbeddingRequest,
    ) -> Result<Option<EmbeddedPart>, ModelError> {
        if self.done >= request.input.len() {
            self.call.succeeded();
            return Ok(None);
        }
        if self.done > 0 {
            self.call.permit.take_turns().await;
        }
        let inputs = request.input.part_from(self.done);
        let part =
            EmbeddingRequest { input: request.input.part(inputs.clone()), ..request.clone() };
        loop {
            let error = match self.attempt(&part).await {
                Ok(answer) => {
                    self.done = inputs.end;
                    return Ok(Some(EmbeddedPart {
                        vectors: answer.vectors,
                        tokens: answer.tokens,
                        model: self.call.model.clone(),
                        inputs,
                    }));
                }
                Err(error) => error,
            };
            let said = as_prompt(&part.input);
            let has_answered = self.done > 0;
            self.call = self.failover.advance(&mut self.call, error, &said, has_answered)?;
        }
    }

    async fn attempt(&mut self, part: &EmbeddingRequest) -> Result<EmbeddingAnswer, ProviderError> {
        self.call.waiting();
        self.call.permit.admitted().await;
        if self.done == 0 {
            self.call.admitted();
        }
        let upstream = &self.call.upstream;
        let (mut timeouts, mut is_retried) = (upstream.stream_timeouts(), false);
        let send = || upstream.provider.embed(&self.call.model, part);
        let sent = send_with_retries(upstream, &mut timeouts, &mut is_retried, send);
        let answer = self.call.span().run(sent).await.map_err(|error| error.advised(CHECK))?;
        upstream.health.record_output(Instant::now());
        self.length = Some(check(&answer, part.input.len(), part.dimensions, self.length)?);
        Ok(answer)
    }
}

/// The length of the vectors of an answer: one vector for each input, all of one length.
fn check(
    answer: &EmbeddingAnswer,
    inputs: usize,
    wanted: Option<u32>,
    length: Option<usize>,
) -> Result<usize, ProviderError> {
    let lengths = || answer.vectors.iter().map(Vec::len);
    let first = lengths().next().unwrap_or_default();
    if answer.vectors.len() != inputs || first == 0 {
        return Err(ProviderError::failed("not one embedding for each input"));
    }
    if lengths().any(|other| other != length.unwrap_or(first)) {
        return Err(ProviderError::failed("embeddings of several lengths"));
    }
    if !answer.vectors.iter().flatten().all(|number| number.is_finite()) {
        return Err(ProviderError::failed("embeddings with a number that no f32 holds"));
    }
    if wanted.is_some_and(|wanted| usize::try_from(wanted) != Ok(first)) {
        let why = "the embeddings have another length";
        return Err(ProviderError::unsupported(Feature::Dimensions, why));
    }
    Ok(first)
}

/// What was sent, so that an error's text can be freed of it.
fn as_prompt(input: &EmbeddingInput) -> ChatRequest {
    let EmbeddingInput::Texts(texts) = input else { return ChatRequest::default() };
    let message = |text: &String| PromptMessage::text("user", text);
    ChatRequest { messages: texts.iter().map(message).collect(), ..ChatRequest::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sizes: &[usize]) -> EmbeddingInput {
        EmbeddingInput::Texts(sizes.iter().map(|size| "x".repeat(*size)).collect())
    }

    #[test]
    fn parts_are_small_and_hold_every_input_once() {
        let many = texts(&[10; 70]);
        assert_eq!(many.part_from(0), 0..32);
        assert_eq!(many.part_from(64), 64..70);
        let long = texts(&[PART_BYTES, 1, PART_BYTES + 1, PART_BYTES / 2, PART_BYTES / 2]);
        assert_eq!(long.part_from(0), 0..1);
        assert_eq!(long.part_from(1), 1..2);
        assert_eq!(long.part_from(2), 2..3);
        assert_eq!(long.part_from(3), 3..5);
    }

    #[test]
    fn an_answer_has_one_vector_for_each_input_and_all_of_one_length() {
        let answer = |vectors: &[&[f32]]| EmbeddingAnswer {
            vectors: vectors.iter().map(|vector| vector.to_vec()).collect(),
            tokens: None,
        };
        let two = answer(&[&[1.0, 2.0], &[3.0, 4.0]]);
        assert!(matches!(check(&two, 2, None, None), Ok(2)));
        assert!(matches!(check(&two, 2, Some(2), Some(2)), Ok(2)));
        for (inputs, wanted, length) in [(3, None, None), (2, None, Some(3)), (2, Some(3), None)] {
            assert!(check(&two, inputs, wanted, length).is_err());
        }
        let beyond: &[f32] = &serde_json::from_str::<Vec<f32>>("[1e39]").unwrap();
        let odd_ones: [&[&[f32]]; 5] =
            [&[], &[&[]], &[&[1.0], &[1.0, 2.0]], &[&[1.0], beyond], &[&[f32::NEG_INFINITY]]];
        for odd in odd_ones.map(answer) {
            assert!(check(&odd, odd.vectors.len(), None, None).is_err());
        }
    }
}

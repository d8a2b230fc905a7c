//! A generation: one answer through the queue and the providers, with failover before its first token.

use std::sync::Arc;

use common::identity::UserId;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};

use crate::llm::{
    attempt::ProviderAttempt,
    chunk::Chunk,
    error::{ErrorKind, ModelError, ProviderError},
    providers::Batch,
    request::Prompt,
    routing::{Router, Selection},
};

/// A place in the queue, then the answer. Dropping it at any moment gives the place back and closes the connection.
pub struct Generation {
    stage: GenerationStage,
    streamed_tokens: u64,
}

enum GenerationStage {
    /// It has its place in the queue; the prompt is not known yet.
    Queued(Box<Queued>),
    /// A stream, so that dropping the future of `next` loses nothing.
    Running(BoxStream<'static, Result<Batch, ModelError>>),
    Finished,
}

struct Queued {
    router: Arc<Router>,
    user: UserId,
    /// The model that the caller named.
    requested: Option<String>,
    index: usize,
    attempt: ProviderAttempt,
}

impl Generation {
    /// Joins the queue of the selected provider.
    pub(super) fn enqueue(
        router: Arc<Router>,
        user: &UserId,
        requested: Option<String>,
        selection: Selection,
    ) -> Result<Self, ModelError> {
        let index = selection.index;
        let attempt = selection.enqueue(user).ok_or(ModelError::QueueFull)?;
        let stage = GenerationStage::Queued(Box::new(Queued {
            router,
            user: user.clone(),
            requested,
            index,
            attempt,
        }));
        Ok(Self {
            stage,
            streamed_tokens: 0,
        })
    }

    /// Gives the prompt; must be called before the first [`Self::next`].
    pub fn begin(&mut self, prompt: Arc<dyn Prompt>) {
        let GenerationStage::Queued(queued) =
            std::mem::replace(&mut self.stage, GenerationStage::Finished)
        else {
            return;
        };
        let run = Run {
            queued: *queued,
            prompt,
            unreachable: Vec::new(),
            worst_error: None,
        };
        let steps = stream::unfold(Box::new(run), |mut run| async move {
            Some((run.step().await, run))
        });
        self.stage = GenerationStage::Running(steps.boxed());
    }

    /// The next chunks, never none: everything that one read returned comes at once. After [`Chunk::End`] or an error it
    /// must not be called again. Dropping the future loses nothing: the next call goes on.
    ///
    /// # Errors
    /// Whatever ended the answer without [`Chunk::End`].
    pub async fn next(&mut self) -> Result<Vec<Chunk>, ModelError> {
        let GenerationStage::Running(steps) = &mut self.stage else {
            return Err(ModelError::Failed(
                "the generation was not begun, or has ended".to_owned(),
            ));
        };
        let chunks = loop {
            match steps.next().await {
                Some(Ok(batch)) => {
                    self.streamed_tokens += batch.deltas;
                    if !batch.chunks.is_empty() {
                        break Ok(batch.chunks);
                    }
                }
                Some(Err(error)) => break Err(error),
                None => break Err(ModelError::Failed("nothing more".to_owned())),
            }
        };
        if !matches!(&chunks, Ok(chunks) if !matches!(chunks.last(), Some(Chunk::End { .. }))) {
            self.stage = GenerationStage::Finished;
        }
        chunks
    }

    /// The pieces of output that came so far. On Ollama each is a token; other servers may put several tokens into one.
    pub fn streamed_tokens(&self) -> u64 {
        self.streamed_tokens
    }
}

struct Run {
    queued: Queued,
    prompt: Arc<dyn Prompt>,
    /// Providers that this request found unreachable, by place in the list.
    unreachable: Vec<usize>,
    /// Of the errors so far, the one that helps the caller most.
    worst_error: Option<ModelError>,
}

impl Run {
    /// What comes next; may be nothing.
    async fn step(&mut self) -> Result<Batch, ModelError> {
        let error = match self.queued.attempt.step(&*self.prompt).await {
            Ok(batch) => return Ok(batch),
            Err(error) => error,
        };
        self.fail_over(error)?;
        Ok(Batch::default())
    }

    /// Moves on to the next provider that can be asked, or gives up with the error that helps the caller most.
    fn fail_over(&mut self, error: ProviderError) -> Result<(), ModelError> {
        let attempt = &mut self.queued.attempt;
        if error.kind() == ErrorKind::Unreachable {
            self.unreachable.push(self.queued.index);
            attempt.upstream().health().request_probe();
        }
        let error = attempt.fail(error, &*self.prompt);
        if attempt.has_output() {
            return Err(error);
        }
        self.record_error(error);
        let (router, requested) = (&self.queued.router, self.queued.requested.as_deref());
        let mut from = self.queued.index + 1;
        while let Ok(selection) = router.select(requested, from, &self.unreachable) {
            let (index, is_demo) = (selection.index, selection.upstream.is_demo());
            if let Some(attempt) = selection.enqueue(&self.queued.user) {
                (self.queued.index, self.queued.attempt) = (index, attempt);
                return Ok(());
            }
            self.worst_error.get_or_insert(ModelError::QueueFull);
            if is_demo {
                break;
            }
            from = index + 1;
        }
        let nothing_left = || ModelError::Unavailable("no provider is left".to_owned());
        Err(self.worst_error.take().unwrap_or_else(nothing_left))
    }

    fn record_error(&mut self, error: ModelError) {
        let worst = self.worst_error.as_ref().map(ModelError::error_priority);
        if worst.is_none_or(|worst| error.error_priority() > worst) {
            self.worst_error = Some(error);
        }
    }
}

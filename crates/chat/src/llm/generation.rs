//! One answer on its way through the providers, handed out bit by bit.

use std::sync::Arc;

use common::identity::UserId;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};

use crate::llm::{
    attempt::ProviderAttempt,
    chunk::Chunk,
    error::{Cause, ModelError, RequestError},
    request::Prompt,
    routing::Inner,
};

/// A place in the queue, then the answer. Dropping it at any moment gives the place back and closes the connection.
pub struct Generation {
    stage: Stage,
}

enum Stage {
    /// It has its place; nobody said yet what to ask.
    Entered(Box<Entered>),
    /// It waits, asks and reads; a stream, so that a dropped `next` loses nothing.
    Running(BoxStream<'static, Result<Vec<Chunk>, ModelError>>),
    /// It is over; the place is given back.
    Over,
}

struct Entered {
    llm: Arc<Inner>,
    user: UserId,
    asked: Option<String>,
    attempt: ProviderAttempt,
}

impl Generation {
    /// A place that was just taken.
    pub(super) fn entered(
        llm: Arc<Inner>,
        user: UserId,
        asked: Option<String>,
        attempt: ProviderAttempt,
    ) -> Self {
        Self {
            stage: Stage::Entered(Box::new(Entered {
                llm,
                user,
                asked,
                attempt,
            })),
        }
    }

    /// Says what to ask; must be called before the first [`Self::next`].
    pub fn begin(&mut self, prompt: Arc<dyn Prompt>) {
        let Stage::Entered(entered) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return;
        };
        let Entered {
            llm,
            user,
            asked,
            attempt,
        } = *entered;
        let run = Box::new(Run {
            llm,
            user,
            asked,
            prompt,
            attempt,
            unreachable: Vec::new(),
            worst: None,
        });
        let steps = stream::unfold(run, |mut run| async move { Some((run.step().await, run)) });
        self.stage = Stage::Running(steps.boxed());
    }

    /// What happened since, never empty: everything that one read returned comes at once. After [`Chunk::End`] or
    /// an error it must not be called again. Dropping the future loses nothing: the next call goes on.
    ///
    /// # Errors
    /// Whatever ended the answer without [`Chunk::End`].
    pub async fn next(&mut self) -> Result<Vec<Chunk>, ModelError> {
        let Stage::Running(steps) = &mut self.stage else {
            return Err(ModelError::Failed(
                "asked for more before the beginning or after the end".to_owned(),
            ));
        };
        let progress = loop {
            match steps.next().await {
                Some(Ok(progress)) if progress.is_empty() => {}
                Some(progress) => break progress,
                None => break Err(ModelError::Failed("nothing more".to_owned())),
            }
        };
        if !matches!(&progress, Ok(batch) if !matches!(batch.last(), Some(Chunk::End { .. }))) {
            self.stage = Stage::Over;
        }
        progress
    }
}

/// One request on its way through the providers.
struct Run {
    llm: Arc<Inner>,
    user: UserId,
    asked: Option<String>,
    prompt: Arc<dyn Prompt>,
    attempt: ProviderAttempt,
    /// Providers that were not there when this request came, by place in the list.
    unreachable: Vec<usize>,
    /// Of what went wrong so far, what helps the caller most.
    worst: Option<ModelError>,
}

impl Run {
    /// What happens next; may be empty.
    async fn step(&mut self) -> Result<Vec<Chunk>, ModelError> {
        let refusal = match self.attempt.step(&*self.prompt).await {
            Ok(progress) => return Ok(progress),
            Err(refusal) => refusal,
        };
        self.attempt.failed(&refusal.error);
        if self.attempt.has_begun() {
            return Err(refusal.error);
        }
        self.go_on(refusal)?;
        Ok(Vec::new())
    }

    /// Moves on to the next provider that can be asked, or gives up with what helps the caller most.
    fn go_on(&mut self, refusal: RequestError) -> Result<(), ModelError> {
        if refusal.cause == Cause::Unreachable {
            self.unreachable.push(self.attempt.index);
            self.attempt.provider.look_again();
        }
        tracing::warn!(provider = self.attempt.provider.kind.as_str(), model = self.attempt.model, error = %refusal.error, "no answer");
        self.record_error(refusal.error);
        let mut from = self.attempt.index + 1;
        while let Ok(choice) = self
            .llm
            .choose(self.asked.as_deref(), from, &self.unreachable)
        {
            if let Some(place) = choice.provider.scheduler.enqueue(&self.user) {
                self.attempt =
                    ProviderAttempt::new(choice.index, choice.provider, choice.model, place);
                return Ok(());
            }
            self.record_error(ModelError::QueueFull);
            if choice.provider.is_demo() {
                break;
            }
            from = choice.index + 1;
        }
        Err(self
            .worst
            .take()
            .unwrap_or_else(|| ModelError::Unavailable("no provider is left".to_owned())))
    }

    fn record_error(&mut self, error: ModelError) {
        if self
            .worst
            .as_ref()
            .is_none_or(|worst| error_priority(&error) > error_priority(worst))
        {
            self.worst = Some(error);
        }
    }
}

/// How much an error tells the caller: what the request can change first, a full queue last.
fn error_priority(error: &ModelError) -> u8 {
    match error {
        ModelError::ContextTooLong(_) | ModelError::Unsupported(_) => 3,
        ModelError::Failed(_) | ModelError::Timeout(_) => 2,
        ModelError::Unavailable(_) | ModelError::NotFound(_) | ModelError::Busy { .. } => 1,
        ModelError::QueueFull => 0,
    }
}

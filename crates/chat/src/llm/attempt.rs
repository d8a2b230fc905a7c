//! One provider's part in a generation: its place in the queue, the request, and the stream.

use std::ops::Range;

use common::otel::{self, Span};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::time::Instant;

use crate::llm::{
    call::{ProviderCall, retry_pause, send_with_retries},
    chunk::Chunk,
    deadlines::StreamTimeouts,
    error::{ErrorKind, Feature, ProviderError},
    providers::{Batch, ChunkStream},
    request::{ChatRequest, Prompt, PromptMessage},
    think_tags::ThinkTags,
};

pub(super) struct ProviderAttempt {
    pub(super) call: ProviderCall,
    reported_position: Option<usize>,
    stage: AttemptStage,
    timeouts: StreamTimeouts,
    /// The server was asked again, by a second request or for a stream that failed before its first output.
    is_retried: bool,
}

enum AttemptStage {
    Waiting,
    Requesting,
    Streaming(Streaming),
}

struct Streaming {
    stream: ChunkStream,
    window: u32,
    dropped: u64,
    has_output: bool,
    /// Where tags in the text are to be told apart.
    think_tags: Option<ThinkTags>,
}

impl ProviderAttempt {
    pub(super) fn new(call: ProviderCall) -> Self {
        let timeouts = call.upstream.stream_timeouts();
        let (reported_position, stage) = (None, AttemptStage::Waiting);
        Self { call, reported_position, stage, timeouts, is_retried: false }
    }

    /// Whether the provider has sent a part of the answer, so that no other one can take over.
    pub(super) fn has_output(&self) -> bool {
        matches!(&self.stage, AttemptStage::Streaming(streaming) if streaming.has_output)
    }

    /// The span of a whole answer, of which this is the first attempt.
    pub(super) fn answer_span(&self, prompt: &dyn Prompt) -> Span {
        let span = self.call.request_span("chat");
        if otel::captures_content() {
            let model = &self.call.model;
            let request = prompt.fit(model, self.call.upstream.window(model));
            span.set("gen_ai.input.messages", captured(&request.messages));
        }
        span
    }

    pub(super) async fn step(&mut self, prompt: &dyn Prompt) -> Result<Batch, ProviderError> {
        match &mut self.stage {
            AttemptStage::Waiting => Ok(self.wait().await),
            AttemptStage::Requesting => {
                // Boxed, as is what else happens once: most of its time a generation waits for the next piece.
                let opened = self.call.span().run(Box::pin(self.open(prompt)));
                let streaming = opened.await?;
                self.stage = AttemptStage::Streaming(streaming);
                Ok(Batch::default())
            }
            AttemptStage::Streaming(streaming) => {
                let cut_off = || Err(ProviderError::new(ErrorKind::CutOff, "the stream ended"));
                let read = self.timeouts.limit(streaming.stream.next()).await?;
                match read.unwrap_or_else(cut_off) {
                    Ok(batch) => Ok(self.output(batch)),
                    Err(error) if self.can_restart(&error) => {
                        self.is_retried = true;
                        let pause = Box::pin(tokio::time::sleep(retry_pause()));
                        self.timeouts.limit(pause).await?;
                        self.stage = AttemptStage::Requesting;
                        Ok(Batch::default())
                    }
                    Err(mut error) => {
                        if self.has_output() {
                            // Whatever it says of the request, it has taken it.
                            error.kind = ErrorKind::Failed;
                        }
                        Err(error)
                    }
                }
            }
        }
    }

    fn can_restart(&self, error: &ProviderError) -> bool {
        error.is_transient() && !self.is_retried && !self.has_output()
    }

    async fn open(&mut self, prompt: &dyn Prompt) -> Result<Streaming, ProviderError> {
        let (upstream, model) = (&*self.call.upstream, &*self.call.model);
        let window = upstream.window(model);
        let mut request = prompt.fit(model, window);
        let capabilities = upstream.model(model).and_then(|model| model.capabilities);
        // Some servers drop what their model cannot take, and answer all the same.
        if let Some(feature) = capabilities.and_then(|all| all.lacking(&request)) {
            let why = "not among the model's capabilities";
            return Err(ProviderError::unsupported(feature, why));
        }
        let mut quarters = 0..4;
        let stream = loop {
            let send = || upstream.provider.chat(&request);
            let (timeouts, is_retried) = (&mut self.timeouts, &mut self.is_retried);
            let error = match send_with_retries(upstream, timeouts, is_retried, send).await {
                Ok(stream) => break stream,
                Err(error) => error,
            };
            match error.kind {
                // Not known before, or it would not have been asked to.
                ErrorKind::Unsupported(Feature::Thinking) if request.forget_thinking() => {}
                ErrorKind::ContextTooLong if !request.untrimmed => {
                    let narrowed = narrowed(prompt, &request, &error, &mut quarters);
                    request = narrowed.ok_or(error)?;
                }
                _ => return Err(error),
            }
        };
        Ok(Streaming {
            stream,
            window,
            dropped: request.dropped,
            has_output: false,
            think_tags: upstream.think_tags.then(ThinkTags::default),
        })
    }

    async fn wait(&mut self) -> Batch {
        self.call.waiting();
        self.reported_position = self.call.permit.changed(self.reported_position).await;
        match self.reported_position {
            Some(position) => Batch { chunks: vec![Chunk::Queued { position }], deltas: 0 },
            None => {
                self.stage = AttemptStage::Requesting;
                self.timeouts = self.call.upstream.stream_timeouts();
                self.call.admitted();
                Batch::default()
            }
        }
    }

    fn output(&mut self, mut batch: Batch) -> Batch {
        let AttemptStage::Streaming(streaming) = &mut self.stage else { return batch };
        // A tool call is told when it is whole, but the model is at work from its first piece on.
        let has_output = batch.deltas > 0 || !batch.chunks.is_empty();
        let is_first = !streaming.has_output && has_output;
        if streaming.has_output || is_first {
            let now = Instant::now();
            self.timeouts.restart_idle(now);
            self.call.upstream.health.record_output(now);
        }
        if let Some(tags) = &mut streaming.think_tags {
            tags.separate(&mut batch.chunks);
        }
        if batch.is_finished() {
            self.call.succeeded();
        }
        if is_first {
            streaming.has_output = true;
            self.call.first_token();
            Span::current().set("gen_ai.response.model", self.call.model.clone());
            let started = Chunk::Started {
                provider: self.call.upstream.kind,
                model: self.call.model.clone(),
                window: streaming.window,
                dropped: streaming.dropped,
            };
            batch.chunks.insert(0, started);
        }
        batch
    }
}

/// A prompt of fewer messages for a server that found this one too long, since our estimate was too low; what goes is counted as
/// dropped. `None` where nothing more can go. It is cut by the server's own counts where it tells them, else to one of the
/// `quarters` of the window that were not tried yet, at last to none, which leaves the newest message alone.
fn narrowed(
    prompt: &dyn Prompt,
    refused: &ChatRequest,
    error: &ProviderError,
    quarters: &mut Range<u32>,
) -> Option<ChatRequest> {
    let window = refused.window;
    let by_counts = error.counts().map(|(counted, limit)| {
        let estimate = prompt.recount(refused, counted);
        let room = refused.options.max_tokens.filter(|room| *room < limit).unwrap_or(0);
        let part = u64::from(limit - room) * u64::from(estimate) / u64::from(counted);
        u32::try_from(part).unwrap_or(window).saturating_add(room).min(window)
    });
    let first = match (quarters.next_back()?, by_counts) {
        (0, _) => 0,
        (_, Some(part)) => part,
        (quarter, None) => window / 4 * quarter,
    };
    let others = std::iter::from_fn(|| quarters.next_back()).map(|quarter| window / 4 * quarter);
    let mut narrower = std::iter::once(first).chain(others);
    narrower.find_map(|part| {
        let fitted = prompt.fit(&refused.model, part);
        let is_less = fitted.messages.len() < refused.messages.len();
        is_less.then_some(ChatRequest { window, ..fitted })
    })
}

/// The newest messages of a prompt, as a span may hold them.
fn captured(messages: &[PromptMessage]) -> String {
    let mut size = 0;
    let newest = messages.iter().rev().take_while(|message| {
        size += message.content.len();
        size <= otel::MAX_CONTENT
    });
    let captured = newest.map(|message| otel::message(&message.role, &message.content));
    Value::from_iter(captured.collect::<Vec<_>>().into_iter().rev()).to_string()
}

//! A completion: one answer for a caller who keeps the history; of it nothing is stored but what it cost.

use std::{
    sync::{Arc, atomic::AtomicU32},
    time::Instant,
};

use common::{clock, identity::Owner};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::{
    domain::{FinishReason, Options, Usage, error::ChatError, random_text},
    generation::stateless::{request::Request, task::Job},
    llm::{PromptMessage, ToolCall},
    store::reservations::Reservation,
    turns::service::Turns,
};

mod request;
mod task;

/// Batches on the way to the caller: each is what one read of the model server returned, so that little waits in memory
/// and the model is read no faster than its reader reads.
const BATCHES: usize = 8;

/// Our estimate must be that many times the window before a prompt is refused unasked: it is meant to be too high.
const CLEARLY: u32 = 4;

/// A request for a completion, checked.
#[derive(Clone, Debug)]
pub struct NewCompletion {
    /// The model; the default one where none is named.
    pub model: Option<String>,
    /// The conversation, oldest message first.
    pub messages: Vec<PromptMessage>,
    /// The options.
    pub options: Options,
    /// What is passed through to servers that have it.
    pub extra: Map<String, Value>,
    /// The id of the request, for the log.
    pub request_id: Arc<str>,
}

/// A piece of a completion.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// That model answers; told once, before everything else.
    Begun {
        /// Its id.
        model: String,
    },
    /// Thoughts.
    Thinking(String),
    /// Text.
    Text(String),
    /// A tool call, whole.
    ToolCall(ToolCall),
    /// The end; nothing follows.
    End {
        /// How it ended.
        finish: FinishReason,
        /// What it cost, as the server counted or as we estimate.
        usage: Usage,
    },
}

/// A completion that runs. Dropping it ends it at once, wherever it is.
#[derive(Debug)]
pub struct Completion {
    parts: mpsc::Receiver<Result<Vec<Part>, ChatError>>,
}

impl Completion {
    /// What happened since; `None` where the completion was lost, which only a fault of ours can do before its end.
    pub async fn next(&mut self) -> Option<Result<Vec<Part>, ChatError>> {
        self.parts.recv().await
    }

    /// What is there already, without waiting.
    pub fn ready(&mut self) -> Option<Result<Vec<Part>, ChatError>> {
        self.parts.try_recv().ok()
    }
}

impl Turns {
    /// Begins a completion: its place in the queue is taken when this returns. The day's quota is asked before the model
    /// is, by `deadline`; its refusal comes as the first and only thing.
    ///
    /// # Errors
    /// No such model, none up, a prompt that clearly does not fit, a full queue, a service that stops.
    pub fn complete(
        self: &Arc<Self>,
        owner: &Owner,
        new: NewCompletion,
        deadline: Instant,
    ) -> Result<Completion, ChatError> {
        if self.shutdown.is_draining() {
            return Err(ChatError::ShuttingDown);
        }
        let route = self.llm.resolve(new.model.as_deref())?;
        let (model, window) = (route.model.clone(), route.window);
        let request = Request {
            messages: new.messages,
            options: new.options,
            extra: new.extra,
            request_id: Arc::clone(&new.request_id),
            estimates: self.estimates.clone(),
            last_estimate: AtomicU32::new(0),
        };
        let estimate = request.estimate(&model);
        if estimate / CLEARLY > window {
            return Err(ChatError::ContextTooLong { window });
        }
        let answering = self.llm.enqueue(&route, &owner.user)?;
        let tokens = match self.limits.tokens_per_day {
            Some(_) => request.reservation(estimate, window),
            None => 0,
        };
        let (sender, parts) = mpsc::channel(BATCHES);
        let job = Job {
            turns: Arc::clone(self),
            owner: owner.clone(),
            request: Arc::new(request),
            request_id: new.request_id,
            reservation: Reservation {
                id: random_text(24),
                day: clock::utc_day(clock::now_ms()),
                tokens,
                prompt: estimate.min(window).into(),
            },
            parts: sender,
        };
        let work = self.shutdown.work();
        self.shutdown.spawn(async move {
            metrics::gauge!("chat_completions_running").increment(1.0);
            job.run(answering, deadline).await;
            metrics::gauge!("chat_completions_running").decrement(1.0);
            drop(work);
        });
        Ok(Completion { parts })
    }
}

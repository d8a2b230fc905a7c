//! One model server as this instance sees it: what the last look showed, its queue and its breaker.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use common::{
    clients::http::{PerThread, model_server},
    config::{self, ProviderKind},
    shutdown::Shutdown,
};
use tokio::{sync::Notify, time::Instant};

use crate::llm::{
    circuit_breaker::CircuitBreaker,
    deadlines::StreamTimeouts,
    health::{Has, Look, Reach},
    providers::{
        ModelInfo, Provider,
        demo::Demo,
        ollama::{self, Ollama},
        openai::OpenAi,
    },
    scheduler::Scheduler,
};

/// Between two looks at a server that is up.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Between two looks at a server that is down, or did not answer the last one.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a look may take past connecting.
const LOOK_PATIENCE: Duration = Duration::from_secs(3);

/// One model server.
pub(super) struct Upstream {
    pub(super) kind: ProviderKind,
    pub(super) client: Box<dyn Provider>,
    pub(super) scheduler: Arc<Scheduler>,
    pub(super) breaker: Arc<CircuitBreaker>,
    /// The model where nobody names one, of this provider's own settings.
    pub(super) model: Option<String>,
    window: u32,
    timeouts: Timeouts,
    look: ArcSwap<Look>,
    again: Notify,
    /// When it last sent a part of an answer: milliseconds since `born`, 0 for never.
    heard: AtomicU64,
    born: Instant,
}

struct Timeouts {
    connect: Duration,
    first_token: Duration,
    idle: Duration,
    total: Duration,
}

impl Upstream {
    /// The server of those settings.
    ///
    /// # Errors
    /// Where its HTTP client cannot be built.
    pub(super) fn new(kind: ProviderKind, settings: &config::Llm) -> Result<Self, reqwest::Error> {
        let (client, provider): (Box<dyn Provider>, _) = match kind {
            ProviderKind::Demo => return Ok(Self::demo(&settings.model)),
            ProviderKind::Ollama => (
                Box::new(Ollama::new(client(&settings.ollama)?, &settings.ollama)),
                &settings.ollama,
            ),
            ProviderKind::OpenAi => (
                Box::new(OpenAi::new(
                    kind,
                    client(&settings.openai)?,
                    &settings.openai,
                )),
                &settings.openai,
            ),
            ProviderKind::HuggingFace => (
                Box::new(OpenAi::new(
                    kind,
                    client(&settings.huggingface)?,
                    &settings.huggingface,
                )),
                &settings.huggingface,
            ),
        };
        Ok(Self {
            kind,
            client,
            scheduler: Scheduler::new(
                kind.as_str(),
                size(provider.max_concurrency.get()),
                size(provider.queue),
            ),
            breaker: CircuitBreaker::new(provider.breaker_failures),
            model: provider.model.clone(),
            window: provider.context_window.get(),
            timeouts: Timeouts {
                connect: provider.connect_timeout,
                first_token: provider.first_token_timeout,
                idle: provider.idle_timeout,
                total: provider.total_timeout,
            },
            look: ArcSwap::default(),
            again: Notify::new(),
            heard: AtomicU64::new(0),
            born: Instant::now(),
        })
    }

    /// The built-in stand-in: always there, with the least ceremony.
    fn demo(wanted: &str) -> Self {
        let second = Duration::from_secs(1);
        Self {
            kind: ProviderKind::Demo,
            client: Box::new(Demo::new(wanted)),
            scheduler: Scheduler::new(ProviderKind::Demo.as_str(), 64, 256),
            breaker: CircuitBreaker::new(0),
            model: Some(crate::llm::providers::demo::MODEL.to_owned()),
            window: 8192,
            timeouts: Timeouts {
                connect: second,
                first_token: 10 * second,
                idle: 10 * second,
                total: 60 * second,
            },
            look: ArcSwap::from_pointee(Look {
                reach: Reach::Up,
                models: None,
                listed: false,
            }),
            again: Notify::new(),
            heard: AtomicU64::new(0),
            born: Instant::now(),
        }
    }

    pub(super) fn is_demo(&self) -> bool {
        self.kind == ProviderKind::Demo
    }

    pub(super) fn reach(&self) -> Reach {
        self.look.load().reach
    }

    /// The models as last listed.
    pub(super) fn models(&self) -> Option<Arc<[ModelInfo]>> {
        self.look.load().models.clone()
    }

    pub(super) fn has(&self, model: &str) -> Has {
        match &self.look.load().models {
            None => Has::Perhaps,
            Some(models)
                if models
                    .iter()
                    .any(|listed| self.same_model(&listed.id, model)) =>
            {
                Has::Yes
            }
            Some(_) => Has::No,
        }
    }

    /// The window that a request for that model is made with: always the same, since another one makes Ollama load it anew.
    pub(super) fn window(&self, model: &str) -> u32 {
        let look = self.look.load();
        let own = look.models.as_ref().and_then(|models| {
            models
                .iter()
                .find(|listed| self.same_model(&listed.id, model))
                .and_then(|listed| listed.window)
        });
        self.window_of(own)
    }

    /// The window that a model is asked with whose own is this.
    pub(super) fn window_of(&self, own: Option<u32>) -> u32 {
        own.map_or(self.window, |own| own.min(self.window))
    }

    pub(super) fn same_model(&self, listed: &str, asked: &str) -> bool {
        match self.kind {
            ProviderKind::Ollama => ollama::same_model(listed, asked),
            // The router takes `org/name:where`.
            ProviderKind::HuggingFace => {
                listed == asked
                    || asked
                        .split_once(':')
                        .is_some_and(|(name, _)| name == listed)
            }
            ProviderKind::OpenAi | ProviderKind::Demo => listed == asked,
        }
    }

    pub(super) fn patience(&self) -> StreamTimeouts {
        StreamTimeouts::new(
            self.timeouts.first_token,
            self.timeouts.idle,
            self.timeouts.total,
        )
    }

    /// Notes that it just sent a part of an answer.
    pub(super) fn was_heard(&self, now: Instant) {
        self.heard.store(self.age(now).max(1), Ordering::Relaxed);
    }

    /// Whether it sent a part of an answer since the last look was due: a server may be too busy answering to be looked at.
    fn is_talking(&self) -> bool {
        let heard = self.heard.load(Ordering::Relaxed);
        let recent = u64::try_from(LOOK_EVERY.as_millis()).unwrap_or(u64::MAX);
        heard > 0 && self.age(Instant::now()).saturating_sub(heard) < recent
    }

    fn age(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX)
    }

    /// Asks for a look now, because a request just met nobody there.
    pub(super) fn look_again(&self) {
        self.again.notify_one();
    }

    /// Looks at the server again and again until the stop.
    pub(super) async fn watch(self: Arc<Self>, shutdown: Shutdown) {
        let mut misses = 0;
        loop {
            tokio::select! {
                biased;
                () = shutdown.stopping() => return,
                () = self.look(&mut misses) => {}
            }
            let pause = if misses > 0 || self.reach() == Reach::Down {
                LOOK_AGAIN
            } else {
                LOOK_EVERY
            };
            tokio::select! {
                () = shutdown.stopping() => return,
                () = tokio::time::sleep(pause) => {}
                () = self.again.notified() => {}
            }
        }
    }

    async fn look(&self, misses: &mut u32) {
        let patience = self.timeouts.connect.saturating_add(LOOK_PATIENCE);
        let seen = tokio::time::timeout(patience, self.client.list_models()).await;
        *misses = if seen.is_err() { *misses + 1 } else { 0 };
        let before = self.look.load();
        let (now, error) = match seen {
            Ok(seen) => {
                let error = seen.as_ref().err().map(ToString::to_string);
                (before.answered(seen), error)
            }
            Err(_) => (
                before.unanswered(*misses, self.is_talking()),
                Some("no answer in time".to_owned()),
            ),
        };
        if now.differs(&before) {
            let (provider, up) = (self.kind.as_str(), now.reach == Reach::Up);
            let models = now.models.as_ref().map_or(0, |models| models.len());
            match error {
                None => tracing::info!(provider, up, models, "model server"),
                Some(error) => {
                    tracing::warn!(
                        provider,
                        up,
                        models,
                        error,
                        "model server without a list of models"
                    );
                }
            }
        }
        self.look.store(Arc::new(now));
    }
}

fn client(settings: &config::Provider) -> Result<PerThread, reqwest::Error> {
    model_server(settings.connect_timeout)
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

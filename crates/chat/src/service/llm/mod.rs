//! The model servers as one: which has a model, whose turn it is, retry, breaker and fallback.

use std::sync::Arc;

use common::{
    config::{self, ProviderKind},
    identity::UserId,
    shutdown::Shutdown,
};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::time::Instant;

use crate::{
    adapters::{Ask, ModelError, ToolCall},
    models::{FinishReason, Usage},
};

mod answering;
mod breaker;
mod patience;
mod provider;
mod queue;

use answering::{Leg, Run};
use provider::{Has, Provider, Reach};

/// Where a request for a model will go: decided from the last look, without waiting.
#[derive(Clone, Debug)]
pub struct Route {
    /// The model's id.
    pub model: String,
    /// The provider that is tried first.
    pub provider: ProviderKind,
    /// That provider's window for the model, in tokens.
    pub window: u32,
    /// The model that was asked for by name: each provider tried has its own where there was none.
    asked: Option<String>,
}

/// What makes the request once a provider's turn has come: called once for each provider tried, since windows differ.
pub trait Prompt: Send + Sync {
    /// The request for that model and window.
    fn fit(&self, model: &str, window: u32) -> Ask;
}

/// What happens on the way to an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// So many turns wait ahead; told when it changes.
    Queued {
        /// Turns ahead.
        position: usize,
    },
    /// This provider answers; told once, with its first chunk.
    Generating {
        /// Which provider.
        provider: ProviderKind,
        /// Under which id: another than the route's where another provider stood in.
        model: String,
        /// The window it was asked with.
        window: u32,
        /// Earlier messages left out of the prompt.
        dropped: u64,
    },
    /// Thoughts.
    Thinking(String),
    /// Text.
    Text(String),
    /// A tool call; on `/v1` alone.
    ToolCall(ToolCall),
    /// The end; nothing follows.
    End {
        /// How it ended.
        finish: FinishReason,
        /// What it cost, if the server counted.
        usage: Option<Usage>,
    },
}

/// All model servers of this instance. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Llm {
    inner: Arc<Inner>,
}

struct Inner {
    /// In the order of the settings.
    providers: Vec<Arc<Provider>>,
    /// The model where nothing else names one.
    model: String,
}

/// A provider that can be asked now.
struct Choice {
    index: usize,
    provider: Arc<Provider>,
    model: String,
}

/// A model that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub provider: ProviderKind,
    /// The window it is asked with, in tokens.
    pub window: u32,
    /// Whether it answers where nobody names a model.
    pub is_default: bool,
}

/// How a provider is, for people who look after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Which.
    pub provider: ProviderKind,
    /// Whether it was there at the last look; `None` before the first.
    pub up: Option<bool>,
    /// Whether its breaker lets requests through.
    pub breaker_open: bool,
    /// Turns that run on it.
    pub running: usize,
    /// Turns that wait for it.
    pub waiting: usize,
}

/// A place in the queue, then the answer. Dropping it at any moment gives the place back and closes the connection.
pub struct Answering {
    stage: Stage,
}

enum Stage {
    /// It has its place; nobody said yet what to ask.
    Entered(Box<Entered>),
    /// It waits, asks and reads; a stream, so that a dropped `next` loses nothing.
    Running(BoxStream<'static, Result<Vec<Progress>, ModelError>>),
    /// It is over; the place is given back.
    Over,
}

struct Entered {
    llm: Arc<Inner>,
    user: UserId,
    asked: Option<String>,
    leg: Leg,
}

impl Llm {
    /// The model servers of those settings, and a task each that looks at them until the stop. The first look begins at
    /// once; what has not been looked at yet counts as up.
    ///
    /// # Errors
    /// Where an HTTP client cannot be built.
    pub fn new(settings: &config::Llm, shutdown: &Shutdown) -> Result<Self, reqwest::Error> {
        let mut kinds: Vec<ProviderKind> = Vec::new();
        for kind in &settings.providers {
            if !kinds.contains(kind) {
                kinds.push(*kind);
            }
        }
        let providers: Vec<_> = kinds
            .into_iter()
            .map(|kind| Provider::new(kind, settings).map(Arc::new))
            .collect::<Result<_, _>>()?;
        for provider in providers.iter().filter(|provider| !provider.is_demo()) {
            shutdown.spawn(provider.clone().watch(shutdown.clone()));
        }
        Ok(Self {
            inner: Arc::new(Inner {
                providers,
                model: settings.model.clone(),
            }),
        })
    }

    /// Where a request for that model (or the default one) goes.
    ///
    /// # Errors
    /// [`ModelError::NotFound`] with the command that gets it, [`ModelError::Unavailable`] where every provider that
    /// has it is known to be down.
    pub fn resolve(&self, model: Option<&str>) -> Result<Route, ModelError> {
        let choice = self.inner.choose(model, 0, &[])?;
        let (provider, window) = (choice.provider.kind, choice.provider.window(&choice.model));
        Ok(Route {
            model: choice.model,
            provider,
            window,
            asked: model.map(str::to_owned),
        })
    }

    /// Takes a place in the queue of the route's first provider.
    ///
    /// # Errors
    /// [`ModelError::QueueFull`].
    pub fn enter(&self, route: &Route, user: &UserId) -> Result<Answering, ModelError> {
        let found = self
            .inner
            .providers
            .iter()
            .enumerate()
            .find(|(_, provider)| provider.kind == route.provider);
        let (index, provider) =
            found.ok_or_else(|| ModelError::Unavailable("no such provider".to_owned()))?;
        let place = provider.queue.enter(user).ok_or(ModelError::QueueFull)?;
        let leg = Leg::new(index, provider.clone(), route.model.clone(), place);
        let (llm, user, asked) = (self.inner.clone(), user.clone(), route.asked.clone());
        Ok(Answering {
            stage: Stage::Entered(Box::new(Entered {
                llm,
                user,
                asked,
                leg,
            })),
        })
    }

    /// The models of every provider that is up, in the order in which they are tried; `demo` where it stands in.
    pub fn models(&self) -> Vec<Model> {
        let default = self.resolve(None).ok();
        let mut models = Vec::new();
        for provider in &self.inner.providers {
            let is_default = |id: &str| {
                let route = default
                    .as_ref()
                    .filter(|route| route.provider == provider.kind);
                route.is_some_and(|route| provider.same_model(id, &route.model))
            };
            let entry = |id: &str| Model {
                id: id.to_owned(),
                provider: provider.kind,
                window: provider.window(id),
                is_default: is_default(id),
            };
            if provider.is_demo() {
                models.extend(
                    provider
                        .model
                        .as_deref()
                        .map(entry)
                        .filter(|model| model.is_default),
                );
            } else if provider.reach() != Reach::Down {
                models.extend(
                    provider
                        .models()
                        .iter()
                        .flat_map(|listed| listed.iter())
                        .map(|model| entry(&model.id)),
                );
            }
        }
        models
    }

    /// How every provider is, in the order of the settings.
    pub fn status(&self) -> Vec<Status> {
        let status = |provider: &Arc<Provider>| {
            let (running, waiting) = provider.queue.load();
            let up = match provider.reach() {
                Reach::Unknown => None,
                reach => Some(reach == Reach::Up),
            };
            Status {
                provider: provider.kind,
                up,
                breaker_open: !provider.breaker.allows(Instant::now()),
                running,
                waiting,
            }
        };
        self.inner.providers.iter().map(status).collect()
    }
}

impl Inner {
    /// The first provider of the list, from that place on, which is up and has the model. The demo stands in where none
    /// of the others is there: by the last look, or because this request met nobody (`unreachable`, by place).
    fn choose(
        &self,
        asked: Option<&str>,
        from: usize,
        unreachable: &[usize],
    ) -> Result<Choice, ModelError> {
        let (mut lacking, mut down) = (None, false);
        for (index, provider) in self
            .providers
            .iter()
            .enumerate()
            .skip(from)
            .filter(|(_, p)| !p.is_demo())
        {
            let model = asked.or(provider.model.as_deref()).unwrap_or(&self.model);
            let has = provider.has(model);
            match provider.reach() {
                Reach::Down => down |= has == Has::Yes,
                _ if has == Has::No => lacking = lacking.or(Some((provider.kind, model))),
                _ if unreachable.contains(&index) || !provider.breaker.allows(Instant::now()) => {
                    down = true
                }
                _ => {
                    return Ok(Choice {
                        index,
                        provider: provider.clone(),
                        model: model.to_owned(),
                    });
                }
            }
        }
        if let Some(choice) = self.stand_in(unreachable) {
            return Ok(choice);
        }
        match lacking {
            Some((kind, model)) if !down => Err(not_found(kind, model)),
            _ => Err(ModelError::Unavailable(
                "no provider that may have the model is up".to_owned(),
            )),
        }
    }

    fn stand_in(&self, unreachable: &[usize]) -> Option<Choice> {
        let is_away = |(index, provider): (usize, &Arc<Provider>)| {
            provider.is_demo() || provider.reach() == Reach::Down || unreachable.contains(&index)
        };
        let (index, demo) = self
            .providers
            .iter()
            .enumerate()
            .find(|(_, provider)| provider.is_demo())?;
        let model = demo.model.clone().unwrap_or_default();
        self.providers
            .iter()
            .enumerate()
            .all(is_away)
            .then(|| Choice {
                index,
                provider: demo.clone(),
                model,
            })
    }
}

/// That a server lacks a model, in words for the caller: what it is and how to get it.
fn not_found(kind: ProviderKind, model: &str) -> ModelError {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._:/-@".contains(c);
    ModelError::NotFound(match kind {
        _ if model.len() > 128 || !model.chars().all(is_plain) => {
            "No model has that name; GET /chat/models lists those that there are.".to_owned()
        }
        ProviderKind::Ollama => {
            format!("The model `{model}` is not there yet; `ollama pull {model}` gets it.")
        }
        _ => format!(
            "No model server here has `{model}`; GET /chat/models lists the models that there are."
        ),
    })
}

impl Answering {
    /// Says what to ask; must be called before the first [`Self::next`].
    pub fn begin(&mut self, prompt: Arc<dyn Prompt>) {
        let Stage::Entered(entered) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return;
        };
        let Entered {
            llm,
            user,
            asked,
            leg,
        } = *entered;
        let run = Box::new(Run {
            llm,
            user,
            asked,
            prompt,
            leg,
            unreachable: Vec::new(),
            worst: None,
        });
        let steps = stream::unfold(run, |mut run| async move { Some((run.step().await, run)) });
        self.stage = Stage::Running(steps.boxed());
    }

    /// What happened since, never empty: everything that one read returned comes at once. After [`Progress::End`] or
    /// an error it must not be called again. Dropping the future loses nothing: the next call goes on.
    ///
    /// # Errors
    /// Whatever ended the answer without [`Progress::End`].
    pub async fn next(&mut self) -> Result<Vec<Progress>, ModelError> {
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
        if !matches!(&progress, Ok(batch) if !matches!(batch.last(), Some(Progress::End { .. }))) {
            self.stage = Stage::Over;
        }
        progress
    }
}

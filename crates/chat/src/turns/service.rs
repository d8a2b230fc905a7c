//! All turns of this instance: which run here, and what ends one from outside.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use common::{config, identity::Owner, rate_limiter::RateLimitTicket, shutdown::Shutdown};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{
        MessageId, Options, SessionId,
        records::{OpenTurn, Session},
    },
    events::{
        log::{EventLog, Watch},
        remote_tail::Follower,
    },
    llm::Llm,
    store::Repository,
    turns::{prompt::Estimates, session_cache::Heads, session_queue::Lanes},
};

/// What a turn is to answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// A new message.
    Message(String),
    /// The session's last message, once more.
    Last,
}

/// What happens to a turn that nobody watches any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisconnect {
    /// It goes on to its end.
    Continue,
    /// It is cancelled after that time, unless somebody comes back.
    CancelAfter(Duration),
}

/// An idempotency key with the request that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// SHA-256 of the key, hexadecimal.
    pub digest: String,
    /// SHA-256 of the request, hexadecimal.
    pub body: String,
}

/// A request for a turn, checked.
#[derive(Clone, Debug)]
pub struct NewTurn {
    /// The session.
    pub session: SessionId,
    /// What to answer.
    pub question: Question,
    /// The model, for this turn.
    pub model: Option<String>,
    /// The system prompt, for this turn.
    pub system: Option<String>,
    /// The options.
    pub options: Options,
    /// What a watcher's leaving means.
    pub on_disconnect: OnDisconnect,
    /// The idempotency key.
    pub key: Option<IdempotencyKey>,
    /// The request as the rate limit sees it, counted or not.
    pub call: RateLimitTicket,
    /// The id of the request, for the log and the `error` event.
    pub request_id: Arc<str>,
}

/// A turn that has begun, or one that was there already under the same idempotency key.
#[derive(Debug)]
pub struct Begun {
    /// The answer's id.
    pub id: MessageId,
    /// Its events from the first.
    pub watch: Watch,
    /// Whether it was there already: then the request costs nothing.
    pub joined: bool,
}

/// Why a turn is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Somebody asked for it.
    Cancelled,
    /// Its session was deleted.
    Deleted,
    /// Somebody else closed it, since its lease had lapsed.
    Lost,
}

/// A turn that runs here.
#[derive(Debug)]
pub struct Turn {
    /// Whose it is.
    pub owner: Owner,
    /// Its session's id.
    pub session_id: SessionId,
    /// Its session, as accepting it left it.
    pub session: Session,
    /// What the store has of it.
    pub open: OpenTurn,
    /// Its events.
    pub log: Arc<EventLog>,
    /// What a watcher's leaving means.
    pub on_disconnect: OnDisconnect,
    /// The id of the request that began it.
    pub request_id: Arc<str>,
    /// The last event that the store is known to have.
    pub(crate) mirrored: AtomicU64,
    /// Resolves when it is to end.
    pub(crate) stopped: CancellationToken,
    why: OnceLock<Stop>,
    lease_renewed: Mutex<Instant>,
}

impl Turn {
    pub(crate) fn new(owner: Owner, session: Session, open: OpenTurn, new: &NewTurn) -> Self {
        Self {
            owner,
            session_id: new.session.clone(),
            session,
            open,
            log: EventLog::new(),
            on_disconnect: new.on_disconnect,
            request_id: Arc::clone(&new.request_id),
            mirrored: AtomicU64::new(0),
            stopped: CancellationToken::new(),
            why: OnceLock::new(),
            lease_renewed: Mutex::new(Instant::now()),
        }
    }

    /// Ends it; the first reason given holds.
    pub fn stop(&self, why: Stop) {
        let _ = self.why.set(why);
        self.stopped.cancel();
    }

    /// Why it is to end.
    pub(crate) fn why(&self) -> Stop {
        self.why.get().copied().unwrap_or(Stop::Cancelled)
    }

    /// When the store was last told that this turn's instance lives.
    pub(crate) fn lease_renewed_at(&self) -> Instant {
        *self
            .lease_renewed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note_lease_renewed(&self, at: Instant) {
        *self
            .lease_renewed
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = at;
    }

    pub(crate) fn note_mirrored(&self, last_id: u64) {
        self.mirrored.fetch_max(last_id, Ordering::SeqCst);
    }
}

/// How turns are made here.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The newest messages looked at for a prompt.
    pub history_messages: usize,
    /// Most messages a session keeps.
    pub max_session_messages: u64,
    /// The system prompt where neither request nor session has one.
    pub system_prompt: Option<String>,
    /// LLM tokens a user may use in a day.
    pub tokens_per_day: Option<u64>,
}

impl Limits {
    /// As the settings say.
    pub fn from_settings(settings: &config::Settings) -> Self {
        Self {
            history_messages: settings.chat.history_messages,
            max_session_messages: settings.chat.max_session_messages,
            system_prompt: settings.chat.system_prompt.clone(),
            tokens_per_day: settings.rate_limit.tokens_per_day,
        }
    }
}

/// All turns of this instance.
pub struct Turns {
    pub(crate) repository: Repository,
    pub(crate) llm: Llm,
    pub(crate) limits: Limits,
    pub(crate) shutdown: Shutdown,
    pub(crate) lanes: Lanes,
    pub(crate) heads: Heads,
    pub(crate) estimates: Estimates,
    pub(crate) follower: Follower,
    /// This process among all that share the store.
    pub(crate) instance: String,
    pub(crate) began: Notify,
    running: Mutex<HashMap<MessageId, Arc<Turn>>>,
}

impl Turns {
    /// The turns of a new instance, with the tasks that keep their events and erase deleted accounts.
    pub fn new(repository: Repository, llm: Llm, limits: Limits, shutdown: Shutdown) -> Arc<Self> {
        let turns = Arc::new(Self {
            instance: repository.instance().to_owned(),
            repository,
            llm,
            limits,
            lanes: Lanes::default(),
            heads: Heads::default(),
            estimates: Estimates::default(),
            follower: Follower::default(),
            began: Notify::new(),
            running: Mutex::default(),
            shutdown: shutdown.clone(),
        });
        let mirror = Arc::clone(&turns);
        shutdown.spawn(async move { mirror.mirror().await });
        let eraser = Arc::clone(&turns);
        shutdown.spawn(async move { eraser.erase_deleted_accounts().await });
        turns
    }

    fn map(&self) -> MutexGuard<'_, HashMap<MessageId, Arc<Turn>>> {
        // Single insertions and removals: nothing is left half done by a panic.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turns that run here.
    pub(crate) fn running(&self) -> Vec<Arc<Turn>> {
        self.map().values().cloned().collect()
    }

    /// Whether any turn runs here.
    pub(crate) fn is_idle(&self) -> bool {
        self.map().is_empty()
    }

    /// That turn, if it runs here and is that owner's.
    pub(crate) fn local(&self, owner: &Owner, id: &MessageId) -> Option<Arc<Turn>> {
        self.map()
            .get(id)
            .filter(|turn| turn.owner == *owner)
            .cloned()
    }

    pub(crate) fn enter(&self, turn: &Arc<Turn>) {
        self.map().insert(turn.open.id.clone(), Arc::clone(turn));
        metrics::gauge!("chat_turns_running").increment(1.0);
        self.began.notify_one();
    }

    pub(crate) fn leave(&self, turn: &Turn) {
        if self.map().remove(&turn.open.id).is_some() {
            metrics::gauge!("chat_turns_running").decrement(1.0);
        }
    }
}

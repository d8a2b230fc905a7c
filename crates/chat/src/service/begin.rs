//! How a turn begins: every check in the contract's order, then one atomic step in the store.

use std::{
    sync::{Arc, atomic::AtomicU32},
    time::{Duration, Instant},
};

use common::{
    clock,
    identity::Owner,
    store::{Bytes, StoreError},
};
use tokio::time::{sleep, timeout_at};

use super::{
    context::Conversation,
    event::{Event, Start},
    lanes::Place,
    llm::{Answering, Route},
    log::Watch,
    turns::{ChatError, IdempotencyKey, NewTurn, Question, Turn, Turns},
};
use crate::{
    models::{
        MessageId, Role, SessionId,
        records::{Ending, KeyRecord, MessageRecord, OpenTurn, Session, VERSION},
    },
    repository::{
        Repository,
        sessions::{NewSession, View},
        turns::{Accept, Accepted},
    },
};

/// How long a message waits for the turns before it in its session.
const SESSION_WAIT: Duration = Duration::from_secs(30);

/// How often one who waits looks whether another instance has finished its turn, or whether a joined key has begun.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

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

/// How the wait for a place in the session's lane went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Nobody was before us: what was read still holds.
    None,
    /// The place is reached; what was read is old.
    Reached,
    /// The place is not reached, but something happened that may make it needless.
    LookAgain,
}

/// What an idempotency key led to.
enum Known {
    /// A turn that answers for it.
    Turn(Begun),
    /// A turn that failed, to be run again while it is the last of its session: the key, and those bytes as stored.
    Again(KeyRecord, Bytes),
    /// A turn that this instance accepts at this moment, or takes back since the store did not say whether it took it.
    Unsettled,
    /// Nothing yet.
    New,
}

impl Turns {
    /// Begins a turn, or joins the one that its idempotency key stands for. Store calls before accept end by `deadline`.
    ///
    /// # Errors
    /// Every refusal of the contract's section 4, up to accept; nothing is then stored.
    pub async fn begin(
        self: &Arc<Self>,
        owner: &Owner,
        new: NewTurn,
        deadline: Instant,
    ) -> Result<Begun, ChatError> {
        let place = self.arrive(owner, &new.session);
        self.begin_at(place, owner, new, deadline).await
    }

    /// Takes the next place in the session's lane: turns begin in the order in which their places were taken.
    pub fn arrive(&self, owner: &Owner, session: &SessionId) -> Place {
        self.lanes.enter(owner, session)
    }

    /// As [`Self::begin`], from a place that was taken before.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub async fn begin_at(
        self: &Arc<Self>,
        mut place: Place,
        owner: &Owner,
        new: NewTurn,
        deadline: Instant,
    ) -> Result<Begun, ChatError> {
        let give_up = tokio::time::Instant::now() + SESSION_WAIT;
        let mut repository = self.repository.by(deadline);
        let mut reached = false;
        loop {
            if self.shutdown.is_draining() {
                return Err(ChatError::ShuttingDown);
            }
            if tokio::time::Instant::now() >= give_up {
                return Err(ChatError::SessionBusy);
            }
            let again = match self.known(&repository, owner, new.key.as_ref()).await? {
                Known::Turn(begun) => return Ok(begun),
                Known::Again(record, stored) => Some((record, stored)),
                Known::Unsettled => {
                    sleep(LOOK_AGAIN).await;
                    continue;
                }
                Known::New => None,
            };
            let view = repository
                .view(owner, &new.session, self.limits.history_messages)
                .await?;
            let plan = match self.plan(&new, view, again.as_ref().map(|(record, _)| record))? {
                Some(plan) => plan,
                None => return self.last_ending(&repository, owner, &new).await,
            };
            if !reached {
                let wait = self.wait_for_place(owner, &new, &place, give_up).await?;
                reached = wait != Wait::LookAgain;
                if wait != Wait::None {
                    repository = self.repository.clone();
                    continue;
                }
            }
            if let Some(open) = plan.session.open_turn() {
                self.wait_for_other(&repository, owner, &new, &open, give_up)
                    .await?;
                repository = self.repository.clone();
                continue;
            }
            let answering = self.llm.enter(&plan.route, &owner.user)?;
            let stored_key = again.map(|(_, stored)| stored);
            let ready = Ready {
                accept: self.accept_of(owner, &new, &plan, stored_key),
                plan,
                answering,
                place,
            };
            match self
                .accept_and_launch(&repository, owner, &new, ready)
                .await?
            {
                Launched::Yes(begun) => return Ok(begun),
                Launched::Changed(back) => {
                    place = back;
                    repository = self.repository.clone();
                }
            }
        }
    }

    /// Accepts the turn and starts its task, both on a task of their own: a caller who leaves in the middle must not
    /// leave a turn behind that is accepted and that nobody runs.
    async fn accept_and_launch(
        self: &Arc<Self>,
        repository: &Repository,
        owner: &Owner,
        new: &NewTurn,
        ready: Ready,
    ) -> Result<Launched, ChatError> {
        let (turns, repository) = (Arc::clone(self), repository.clone());
        let (owner, new) = (owner.clone(), new.clone());
        let task = self.shutdown.spawn(async move {
            match turns.accept(&repository, &owner, &ready.accept).await? {
                Accepted::Yes => Ok(Launched::Yes(turns.launch(&owner, &new, ready))),
                Accepted::Changed => Ok(Launched::Changed(ready.place)),
                Accepted::QuotaExceeded => {
                    let tokens_per_day = turns.limits.tokens_per_day.unwrap_or_default();
                    Err(ChatError::QuotaExceeded { tokens_per_day })
                }
            }
        });
        task.await
            .map_err(|error| StoreError::Corrupt(format!("accepting broke off: {error}")))?
    }

    /// Waits for the turns before this one on this instance. One who brings a key that another has begun meanwhile need
    /// not wait: looking again finds that turn.
    async fn wait_for_place(
        &self,
        owner: &Owner,
        new: &NewTurn,
        place: &Place,
        give_up: tokio::time::Instant,
    ) -> Result<Wait, ChatError> {
        let reached = place.reached();
        tokio::pin!(reached);
        let mut wait = Wait::None;
        loop {
            if futures_util::poll!(&mut reached).is_ready() {
                return Ok(wait);
            }
            wait = Wait::Reached;
            let look_again = async {
                match &new.key {
                    Some(_) => sleep(LOOK_AGAIN * 4).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = &mut reached => return Ok(wait),
                () = self.shutdown.draining() => return Ok(Wait::LookAgain),
                () = tokio::time::sleep_until(give_up) => return Err(ChatError::SessionBusy),
                () = look_again => {
                    if let Some(key) = &new.key
                        && self.repository.key(owner, &key.digest).await?.is_some()
                    {
                        return Ok(Wait::LookAgain);
                    }
                }
            }
        }
    }

    /// Waits until the turn of another instance is closed, closing it where its instance is dead.
    async fn wait_for_other(
        self: &Arc<Self>,
        repository: &Repository,
        owner: &Owner,
        new: &NewTurn,
        open: &OpenTurn,
        give_up: tokio::time::Instant,
    ) -> Result<(), ChatError> {
        let mut repository = repository.clone();
        let closed = async {
            loop {
                let stored = repository.turn(owner, &open.id, false).await?;
                if stored.instance.is_none() {
                    self.close_dead(&repository, owner, &new.session, &open.id)
                        .await?;
                    return Ok(());
                }
                if self.shutdown.is_draining() {
                    return Err(ChatError::ShuttingDown);
                }
                sleep(LOOK_AGAIN).await;
                repository = self.repository.clone();
                if repository
                    .view(owner, &new.session, 0)
                    .await?
                    .session
                    .is_none_or(|s| s.open_turn().as_ref() != Some(open))
                {
                    return Ok(());
                }
            }
        };
        timeout_at(give_up, closed)
            .await
            .unwrap_or(Err(ChatError::SessionBusy))
    }

    /// What an idempotency key stands for.
    async fn known(
        self: &Arc<Self>,
        repository: &Repository,
        owner: &Owner,
        key: Option<&IdempotencyKey>,
    ) -> Result<Known, ChatError> {
        let Some(key) = key else {
            return Ok(Known::New);
        };
        let Some((record, stored)) = repository.key(owner, &key.digest).await? else {
            return Ok(Known::New);
        };
        if record.body != key.body {
            return Err(ChatError::IdempotencyMismatch);
        }
        match self.outcome(repository, owner, &record).await? {
            Outcome::Failed => return Ok(Known::Again(record, stored)),
            Outcome::Unsettled => return Ok(Known::Unsettled),
            Outcome::Readable => {}
        }
        let watch = self.attach(owner, &record.id, 0, repository).await?;
        Ok(Known::Turn(Begun {
            id: record.id,
            watch,
            joined: true,
        }))
    }

    /// How it stands with a key's turn.
    async fn outcome(
        self: &Arc<Self>,
        repository: &Repository,
        owner: &Owner,
        record: &KeyRecord,
    ) -> Result<Outcome, ChatError> {
        if self.local(owner, &record.id).is_some() {
            return Ok(Outcome::Readable);
        }
        let mut stored = repository.turn(owner, &record.id, false).await?;
        let Some(session) = stored.session.clone() else {
            return Err(ChatError::SessionNotFound);
        };
        let runs = stored
            .record
            .as_ref()
            .is_some_and(|turn| turn.ending.is_none());
        if runs && stored.instance.is_none() {
            self.close_dead(repository, owner, &session, &record.id)
                .await?;
            stored = repository.turn(owner, &record.id, false).await?;
        }
        let Some(turn) = stored.record else {
            return Ok(Outcome::Readable);
        };
        let is_ours = stored.instance.as_deref() == Some(self.instance.as_str());
        Ok(match turn.ending {
            Some(Ending::Error { .. }) => Outcome::Failed,
            None if turn.withdrawn || is_ours && self.local(owner, &record.id).is_none() => {
                Outcome::Unsettled
            }
            _ => Outcome::Readable,
        })
    }

    /// The ending of a key's turn once more, since it is no longer the last of its session.
    async fn last_ending(
        self: &Arc<Self>,
        repository: &Repository,
        owner: &Owner,
        new: &NewTurn,
    ) -> Result<Begun, ChatError> {
        let digest = new
            .key
            .as_ref()
            .map(|key| key.digest.as_str())
            .unwrap_or_default();
        let Some((record, _)) = repository.key(owner, digest).await? else {
            return Err(ChatError::MessageNotFound);
        };
        let watch = self.attach(owner, &record.id, 0, repository).await?;
        Ok(Begun {
            id: record.id,
            watch,
            joined: true,
        })
    }

    /// What the turn will be; `None` where it should run again but is not the last of its session.
    fn plan(
        &self,
        new: &NewTurn,
        view: View,
        again: Option<&KeyRecord>,
    ) -> Result<Option<Plan>, ChatError> {
        let begins = view.session.is_none();
        if begins && new.question == Question::Last {
            return Err(ChatError::SessionNotFound);
        }
        let session = view
            .session
            .unwrap_or_else(|| Session::begin(NewSession::default()));
        let is_last = |key: &KeyRecord| {
            key.fence == session.fence && key.id.incarnation() == session.incarnation
        };
        if again.is_some_and(|key| !is_last(key)) {
            return Ok(None);
        }
        let model = new.model.as_deref().or(session.model.as_deref());
        let route = self.llm.resolve(model)?;
        let mut messages = view.tail;
        let (mut replaces, mut message) = (None, None);
        match &new.question {
            Question::Message(text) if again.is_none() => {
                if session.count.saturating_add(2) > self.limits.max_session_messages {
                    return Err(ChatError::SessionFull(self.limits.max_session_messages));
                }
                let record = user_message(&session, text);
                message = Some(record.clone());
                messages.push(record);
            }
            _ => {
                replaces = messages
                    .pop_if(|last| last.role == Role::Assistant)
                    .map(|answer| answer.id);
                if messages.last().is_none_or(|last| last.role != Role::User) {
                    return match again {
                        Some(_) => Ok(None),
                        None => Err(ChatError::MessageNotFound),
                    };
                }
            }
        }
        let looked_at =
            messages.len() as u64 + u64::from(replaces.is_some()) - u64::from(message.is_some());
        let conversation = Conversation {
            system: new
                .system
                .clone()
                .or_else(|| session.system.clone())
                .or_else(|| self.limits.system_prompt.clone()),
            messages,
            older: session.count.saturating_sub(looked_at),
            options: new.options.clone(),
            request_id: Arc::clone(&new.request_id),
            estimates: self.estimates.clone(),
            last_estimate: AtomicU32::new(0),
        };
        if !conversation.message_fits(&route.model, route.window) {
            return Err(ChatError::ContextTooLong {
                window: route.window,
            });
        }
        Ok(Some(Plan {
            session,
            begins,
            route,
            conversation,
            message,
            replaces,
        }))
    }

    fn accept_of(
        &self,
        owner: &Owner,
        new: &NewTurn,
        plan: &Plan,
        stored_key: Option<Bytes>,
    ) -> Accept {
        let Plan { session, route, .. } = plan;
        let appended = u64::from(plan.message.is_some());
        let position = plan
            .replaces
            .as_ref()
            .map_or(session.count + appended, MessageId::position);
        let id = MessageId::new(&session.incarnation, position);
        // A plan has at least the message that it answers.
        let reply_to = plan
            .conversation
            .messages
            .last()
            .map_or_else(|| id.clone(), |message| message.id.clone());
        let reserved = match self.limits.tokens_per_day {
            Some(_) => plan.conversation.reservation(&route.model, route.window),
            None => 0,
        };
        let open = OpenTurn {
            v: VERSION,
            id: id.clone(),
            fence: session.fence + 1,
            reply_to,
            replaces: plan.replaces.clone(),
            regenerates: new.question == Question::Last,
            model: route.model.clone(),
            provider: route.provider.as_str().to_owned(),
            keyed: new.key.is_some(),
            reserved,
            day: clock::utc_day(clock::now_ms()),
            window: route.window,
        };
        let start = start_event(owner, new, &open);
        let mut first_line = String::new();
        Event::write_line(1, start.kind, &start.members, &mut first_line);
        let key = new.key.as_ref().map(|key| {
            let record = KeyRecord {
                v: VERSION,
                id,
                session: new.session.clone(),
                fence: open.fence,
                body: key.body.clone(),
            };
            (key.digest.clone(), record, stored_key)
        });
        Accept {
            session_id: new.session.clone(),
            session: session.clone(),
            begins: plan.begins,
            open,
            message: plan.message.clone(),
            key,
            quota: self.limits.tokens_per_day,
            instance: self.instance.clone(),
            first_line,
        }
    }

    /// Accepts; where the outcome stays unknown, sees to it in the background that the turn never runs.
    async fn accept(
        self: &Arc<Self>,
        repository: &Repository,
        owner: &Owner,
        accept: &Accept,
    ) -> Result<Accepted, ChatError> {
        let mut unknown = false;
        for pause in [
            Duration::from_millis(10),
            Duration::from_millis(50),
            Duration::ZERO,
        ] {
            match repository.accept(owner, accept).await {
                Ok(Accepted::Yes) => return Ok(Accepted::Yes),
                Ok(refused) if !unknown => return Ok(refused),
                // Refused for the first try's own doing, or for another's; then the first may still come late.
                Ok(refused) => match repository.was_accepted(owner, accept).await {
                    Ok(true) => return Ok(Accepted::Yes),
                    looked => {
                        self.withdraw_later(owner, accept);
                        looked?;
                        return Ok(refused);
                    }
                },
                Err(StoreError::Unavailable(_)) if pause > Duration::ZERO => {
                    unknown = true;
                    sleep(pause).await;
                }
                Err(error) => {
                    if unknown || matches!(error, StoreError::Unavailable(_)) {
                        self.withdraw_later(owner, accept);
                    }
                    return Err(error.into());
                }
            }
        }
        Ok(Accepted::Changed)
    }

    fn withdraw_later(self: &Arc<Self>, owner: &Owner, accept: &Accept) {
        let (turns, owner, accept) = (Arc::clone(self), owner.clone(), accept.clone());
        self.shutdown.spawn(async move {
            while turns.repository.withdraw(&owner, &accept).await.is_err() {
                tokio::select! {
                    () = turns.shutdown.stopping() => return,
                    () = sleep(Duration::from_millis(250)) => {}
                }
            }
        });
    }

    fn launch(self: &Arc<Self>, owner: &Owner, new: &NewTurn, ready: Ready) -> Begun {
        let Ready {
            plan,
            accept,
            answering,
            place,
        } = ready;
        let id = accept.open.id.clone();
        let start = start_event(owner, new, &accept.open);
        let turn = Arc::new(Turn::new(
            owner.clone(),
            new.session.clone(),
            accept.open,
            new,
        ));
        turn.note_mirrored(turn.log.append([start]));
        let watch = turn.log.watch(0);
        self.enter(&turn);
        let turns = Arc::clone(self);
        let conversation = Arc::new(plan.conversation);
        let work = self.shutdown.work();
        self.shutdown.spawn(async move {
            turns.run(turn, answering, conversation, place).await;
            drop(work);
        });
        Begun {
            id,
            watch,
            joined: false,
        }
    }
}

/// How it stands with a turn that a key remembers.
enum Outcome {
    /// It ended without success, and may run again.
    Failed,
    /// It is being accepted or taken back here.
    Unsettled,
    /// It runs, or has an answer.
    Readable,
}

/// A planned turn with everything that it needs to run.
struct Ready {
    plan: Plan,
    accept: Accept,
    answering: Answering,
    place: Place,
}

/// How accepting and starting went.
enum Launched {
    Yes(Begun),
    /// What was read is old; the place in the lane comes back.
    Changed(Place),
}

/// A turn that can be accepted.
struct Plan {
    session: Session,
    begins: bool,
    route: Route,
    conversation: Conversation,
    message: Option<MessageRecord>,
    replaces: Option<MessageId>,
}

fn user_message(session: &Session, text: &str) -> MessageRecord {
    MessageRecord {
        v: VERSION,
        id: MessageId::new(&session.incarnation, session.count),
        role: Role::User,
        content: text.to_owned(),
        at: clock::now_ms(),
        thinking: None,
        answer: None,
    }
}

fn start_event(owner: &Owner, new: &NewTurn, open: &OpenTurn) -> Event {
    Event::start(&Start {
        message_id: open.id.as_str(),
        session_id: new.session.as_str(),
        user_id: owner.user.as_str(),
        model: &open.model,
        provider: &open.provider,
        reset: false,
    })
}

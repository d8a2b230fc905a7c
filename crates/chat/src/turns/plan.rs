//! What a turn will be, computed from what was read; nothing is stored yet.

use std::sync::Arc;

use common::{clock, config, identity::Owner};

use crate::{
    domain::{
        IdempotencyRecord, Message, MessageId, NewSession, OpenTurn, Role, Session, TurnInput,
        event::Start,
    },
    error::ChatError,
    generation::tokens::TokenEstimates,
    llm::{LlmService, Route},
    store::{
        accept::{Accept, KeyChange},
        messages::TailLimit,
        sessions::{SessionTail, StoredSession},
    },
    turns::{
        prompt::{PromptBase, SessionPrompt},
        request::TurnRequest,
    },
};

/// Bytes of text that are read for each token of the window: with less than that no window is left unfilled.
const BYTES_PER_TOKEN: usize = 8;

pub(super) struct TurnPlan {
    pub(super) session: StoredSession,
    pub(super) route: Route,
    pub(super) prompt: SessionPrompt,
    /// The user's message, unless it is stored already.
    pub(super) message: Option<Arc<Message>>,
    pub(super) replaces: Option<MessageId>,
}

pub(super) struct Planner {
    pub(super) llm: LlmService,
    pub(super) estimates: TokenEstimates,
    pub(super) settings: config::Chat,
    /// LLM tokens that a user may use per day.
    pub(super) tokens_per_day: Option<u64>,
}

impl Planner {
    /// What can be said without reading anything.
    ///
    /// # Errors
    /// [`ChatError::MessageTooLong`].
    pub(super) fn check(&self, request: &TurnRequest) -> Result<(), ChatError> {
        let most = self.settings.max_message_chars;
        match &request.input {
            TurnInput::Message(text) if text.chars().nth(most).is_some() => {
                Err(ChatError::MessageTooLong(most))
            }
            _ => Ok(()),
        }
    }

    /// How much of the session's history the turn needs.
    pub(super) fn tail_limit(
        &self,
        request: &TurnRequest,
        again: Option<&IdempotencyRecord>,
    ) -> TailLimit {
        // An answer that is to be replaced follows the message that it answered.
        let at_least = match (&request.input, again) {
            (TurnInput::Message(_), None) => 0,
            _ => 2,
        };
        // The session's own model is not known yet; every route has about the same window.
        let window = self
            .llm
            .resolve(request.model.as_deref())
            .map_or(u32::from(u16::MAX), |route| route.window);
        let bytes = usize::try_from(window).unwrap_or(usize::MAX).saturating_mul(BYTES_PER_TOKEN);
        TailLimit { messages: self.settings.history_messages.max(at_least), bytes, at_least }
    }

    /// What the turn will be; `None` where it should run again but is not the last of its session.
    pub(super) fn plan(
        &self,
        request: &TurnRequest,
        tail: SessionTail,
        again: Option<&IdempotencyRecord>,
    ) -> Result<Option<Box<TurnPlan>>, ChatError> {
        let stored = match (tail.session, &request.input) {
            (Some(stored), _) => stored,
            (None, TurnInput::Message(_)) => StoredSession::begin(NewSession::default()),
            (None, TurnInput::Regenerate) => return Err(ChatError::SessionNotFound),
        };
        let session = &stored.session;
        let is_last = |key: &IdempotencyRecord| {
            key.fence == session.fence && key.id.incarnation() == session.incarnation
        };
        if again.is_some_and(|key| !is_last(key)) {
            return Ok(None);
        }
        let route = self.llm.resolve(request.model.as_deref().or(session.model.as_deref()))?;
        let mut messages = tail.messages;
        let (mut replaces, mut message) = (None, None);
        match &request.input {
            TurnInput::Message(text) if again.is_none() => {
                if session.message_count.saturating_add(2) > self.settings.max_session_messages {
                    return Err(ChatError::SessionFull(self.settings.max_session_messages));
                }
                let record = Arc::new(user_message(session, text));
                message = Some(Arc::clone(&record));
                messages.push(record);
            }
            _ => {
                replaces = messages
                    .pop_if(|last| last.role == Role::Assistant)
                    .map(|answer| answer.id.clone());
                if messages.last().is_none_or(|last| last.role != Role::User) {
                    return again.map_or(Err(ChatError::MessageNotFound), |_| Ok(None));
                }
            }
        }
        let read =
            messages.len() as u64 + u64::from(replaces.is_some()) - u64::from(message.is_some());
        let older = session.message_count.saturating_sub(read);
        let system = request
            .system
            .clone()
            .or_else(|| session.system.clone())
            .or_else(|| self.settings.system_prompt.clone());
        let base = PromptBase {
            options: request.options.clone(),
            request_id: Arc::clone(&request.request_id),
            estimates: self.estimates.for_user(&request.identity.owner.user),
        };
        let prompt = SessionPrompt::new(base, system, messages, older);
        if !prompt.message_fits(&route.model, route.window) {
            return Err(ChatError::ContextTooLong { window: route.window });
        }
        Ok(Some(Box::new(TurnPlan { session: stored, route, prompt, message, replaces })))
    }

    /// The step that accepts a planned turn. `again` is what its idempotency key refers to now.
    pub(super) fn accept(
        &self,
        request: &TurnRequest,
        plan: &TurnPlan,
        again: Option<IdempotencyRecord>,
    ) -> Accept {
        let TurnPlan { route, prompt, .. } = plan;
        let session = &plan.session.session;
        let appended = u64::from(plan.message.is_some());
        let position =
            plan.replaces.as_ref().map_or(session.message_count + appended, MessageId::position);
        let id = MessageId::new(&session.incarnation, position);
        // A plan has at least the message that it answers.
        let reply_to = prompt.question().map_or_else(|| id.clone(), |message| message.id.clone());
        let (prompt_tokens, answer_tokens) = prompt.cost_estimate(&route.model, route.window);
        let reserved = self.tokens_per_day.map_or(0, |_| prompt_tokens + answer_tokens);
        let open = OpenTurn {
            id: id.clone(),
            fence: session.fence + 1,
            reply_to,
            replaces: plan.replaces.clone(),
            regenerates: request.input == TurnInput::Regenerate,
            model: route.model.clone(),
            provider: route.provider.as_str().to_owned(),
            keyed: request.key.is_some(),
            reserved,
            prompt: prompt_tokens,
            day: clock::utc_day(clock::now_ms()),
            window: route.window,
        };
        let key = request.key.as_ref().map(|key| KeyChange {
            digest: key.digest.clone(),
            before: again,
            after: IdempotencyRecord {
                id,
                session: request.session.clone(),
                fence: open.fence,
                body: key.body.clone(),
            },
        });
        Accept {
            session_id: request.session.clone(),
            before: plan.session.clone(),
            after: opened(session.clone(), &open, plan.message.as_deref()),
            start: start(&request.identity.owner, request, &open),
            message: plan.message.clone(),
            key,
            quota: self.tokens_per_day,
            open,
        }
    }
}

fn start(owner: &Owner, request: &TurnRequest, open: &OpenTurn) -> Start {
    Start {
        message_id: open.id.clone(),
        session_id: request.session.clone(),
        user_id: owner.user.to_string(),
        model: open.model.clone(),
        provider: open.provider.clone(),
        reset: false,
    }
}

/// A session with that turn open, and its message in the list.
fn opened(session: Session, open: &OpenTurn, message: Option<&Message>) -> Session {
    let title = match message {
        Some(message) if session.title.is_empty() => title_of(&message.content),
        _ => session.title,
    };
    Session {
        title,
        last_model: Some(open.model.clone()),
        updated_at: message.map_or_else(clock::now_ms, |message| message.at),
        fence: open.fence,
        open: Some(open.clone()),
        message_count: session.message_count + u64::from(message.is_some()),
        ..session
    }
}

/// A title from a first message: its first words on one line without control characters, at most 60 characters.
fn title_of(message: &str) -> String {
    const LENGTH: usize = 60;
    let mut title = String::new();
    for word in
        message.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty())
    {
        if !title.is_empty() {
            title.push(' ');
        }
        title.push_str(word);
        if title.chars().count() > LENGTH {
            let cut: String = title.chars().take(LENGTH - 1).collect();
            return format!("{}…", cut.trim_end());
        }
    }
    title
}

fn user_message(session: &Session, text: &str) -> Message {
    Message {
        id: MessageId::new(&session.incarnation, session.message_count),
        role: Role::User,
        content: text.to_owned(),
        at: clock::now_ms(),
        thinking: None,
        answer: None,
    }
}

//! What a turn will be, worked out from what was read: nothing is stored yet.

use std::sync::{Arc, atomic::AtomicU32};

use common::{clock, identity::Owner, store::Bytes};

use crate::{
    domain::{
        MessageId, Role,
        error::ChatError,
        event::{Event, Start},
        records::{KeyRecord, MessageRecord, OpenTurn, Session, VERSION},
    },
    llm::Route,
    store::{
        accept::Accept,
        sessions::{NewSession, View},
    },
    turns::{
        prompt::Conversation,
        service::{NewTurn, Question, Turns},
    },
};

/// A turn that can be accepted.
pub(crate) struct Plan {
    pub(crate) session: Session,
    pub(crate) route: Route,
    pub(crate) conversation: Conversation,
    pub(crate) message: Option<Arc<MessageRecord>>,
    pub(crate) replaces: Option<MessageId>,
}

impl Turns {
    /// What the turn will be; `None` where it should run again but is not the last of its session.
    pub(crate) fn plan(
        &self,
        new: &NewTurn,
        view: View,
        again: Option<&KeyRecord>,
    ) -> Result<Option<Plan>, ChatError> {
        let session = match (view.session, &new.question) {
            (Some(session), _) => session,
            (None, Question::Message(_)) => Session::begin(NewSession::default()),
            (None, Question::Last) => return Err(ChatError::SessionNotFound),
        };
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
                let record = Arc::new(user_message(&session, text));
                message = Some(Arc::clone(&record));
                messages.push(record);
            }
            _ => {
                replaces = messages
                    .pop_if(|last| last.role == Role::Assistant)
                    .map(|answer| answer.id.clone());
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
            route,
            conversation,
            message,
            replaces,
        }))
    }

    pub(crate) fn accept_of(
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
        Event::write_line(1, start.kind, &start.data, &mut first_line);
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
            before: session.clone(),
            after: opened(session.clone(), &open, plan.message.as_deref()),
            open,
            message: plan.message.clone(),
            key,
            quota: self.limits.tokens_per_day,
            instance: self.instance.clone(),
            first_line,
        }
    }
}

/// A session with that turn open, and its message in the list.
fn opened(session: Session, open: &OpenTurn, message: Option<&MessageRecord>) -> Session {
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
        count: session.count + u64::from(message.is_some()),
        ..session
    }
}

/// A title out of a first message: its first words on one line, at most 60 characters.
fn title_of(message: &str) -> String {
    const LENGTH: usize = 60;
    let mut title = String::new();
    for word in message.split_whitespace() {
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

pub(crate) fn start_event(owner: &Owner, new: &NewTurn, open: &OpenTurn) -> Event {
    Event::start(&Start {
        message_id: open.id.as_str(),
        session_id: new.session.as_str(),
        user_id: owner.user.as_str(),
        model: &open.model,
        provider: &open.provider,
        reset: false,
    })
}

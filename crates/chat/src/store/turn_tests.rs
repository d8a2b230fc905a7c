//! Steps of a turn that are repeated, late, or overtaken by others.

use std::{sync::Arc, time::Duration};

use common::{
    config::StoreUrl,
    identity::{Credential, Identity, Owner, UserId, state},
    shutdown::Shutdown,
    store::{Op, Read, Store},
};

use super::{
    ChatStore,
    accept::{Accept, Accepted},
    events::EventBatch,
    finish::{Finish, Finished},
    keys::Keys,
    sessions::StoredSession,
    turns::Replication,
    usage::DayUsage,
};
use crate::domain::{
    AnswerInfo, Context, Ending, FinishReason, Message, MessageId, NewSession, OpenTurn, Role,
    Session, SessionId, Usage,
    event::{End, Event, EventRef, RECOVERY_GAP, Start},
};

const DAY: &str = "20260102";

fn chat_store(store: &Store) -> ChatStore {
    ChatStore::new(store.clone(), None, Duration::from_secs(10))
}

fn alice() -> Owner {
    Owner { user: UserId::parse("alice").unwrap(), generation: 0 }
}

/// Alice, checked at that revision of her account's state.
fn caller(revision: u64) -> Identity {
    Identity::new(alice(), Credential::Open, revision)
}

/// A turn that answers a new message, or the last one once more in place of `replaces`.
fn accept(before: StoredSession, replaces: Option<MessageId>) -> Accept {
    let session = before.session.clone();
    let message = Message {
        id: MessageId::new(&session.incarnation, session.message_count),
        role: Role::User,
        content: "hello".into(),
        at: 1,
        thinking: None,
        answer: None,
    };
    let message = replaces.is_none().then(|| Arc::new(message));
    let count = session.message_count + u64::from(message.is_some());
    let position = replaces.as_ref().map_or(count, MessageId::position);
    let id = MessageId::new(&session.incarnation, position);
    let open = OpenTurn {
        id: id.clone(),
        fence: session.fence + 1,
        reply_to: id.clone(),
        regenerates: replaces.is_some(),
        replaces,
        model: "m".into(),
        provider: "demo".into(),
        keyed: false,
        reserved: 100,
        prompt: 20,
        day: DAY.into(),
        window: 8192,
    };
    let after =
        Session { fence: open.fence, open: Some(open.clone()), message_count: count, ..session };
    let start = Start {
        message_id: id,
        session_id: SessionId::default_session(),
        user_id: "alice".into(),
        model: "m".into(),
        provider: "demo".into(),
        reset: false,
    };
    Accept {
        session_id: SessionId::default_session(),
        before,
        after,
        open,
        message,
        key: None,
        quota: None,
        start,
    }
}

async fn accepted(chat: &ChatStore, accept: &Accept) -> StoredSession {
    match chat.turns().accept(&caller(0), accept, None).await.unwrap() {
        (Accepted::Yes(session), _) => *session,
        other => panic!("{other:?}"),
    }
}

fn finish(accept: &Accept, session: StoredSession, text: &str) -> Finish {
    let usage = Usage { prompt_tokens: 3, completion_tokens: 4 };
    let ending = Ending::Done {
        finish_reason: FinishReason::Stop,
        usage,
        context: Context::default(),
        model: "m".into(),
        provider: "demo".into(),
    };
    let answer = AnswerInfo {
        reply_to: accept.open.reply_to.clone(),
        model: "m".into(),
        provider: "demo".into(),
        finish_reason: FinishReason::Stop,
        usage,
        context: Context::default(),
        code: None,
    };
    Finish {
        session_id: accept.session_id.clone(),
        session,
        open: accept.open.clone(),
        answer: Some(Message {
            id: accept.open.id.clone(),
            role: Role::Assistant,
            content: text.into(),
            at: 2,
            thinking: None,
            answer: Some(answer),
        }),
        ending,
        usage,
        events: EventBatch::default(),
        last_event_id: 2,
        until: None,
        for_dead_instance: false,
    }
}

fn new_session() -> StoredSession {
    StoredSession::begin(NewSession::default())
}

/// Everything that is stored of the day, as it is.
async fn counters(store: &Store) -> usize {
    let read = Read::Fields(Keys::of(&alice()).usage(DAY));
    store.read(vec![read]).await.unwrap().fields(0).len()
}

#[tokio::test]
async fn a_finish_whose_answer_was_lost_is_known_again_after_a_later_turn() {
    let store = Store::open(&StoreUrl::Memory, &Shutdown::new()).unwrap();
    let chat = chat_store(&store);
    let first = accept(new_session(), None);
    let lost = finish(&first, accepted(&chat, &first).await, "one");
    let Finished::Yes(Some(session)) = chat.turns().finish(&alice(), &lost).await.unwrap() else {
        panic!("it is stored");
    };
    let again = accept(*session, Some(first.open.id.clone()));
    let open = accepted(&chat, &again).await;
    for replaced in [false, true] {
        if replaced {
            let second = finish(&again, open.clone(), "two");
            let finished = chat.turns().finish(&alice(), &second).await.unwrap();
            assert!(matches!(finished, Finished::Yes(Some(_))), "{finished:?}");
        }
        let repeated = chat.turns().finish(&alice(), &lost).await.unwrap();
        assert_eq!(repeated, Finished::Yes(None), "replaced: {replaced}");
    }
    let (messages, _) =
        chat.sessions().messages(&alice(), &first.session_id).before(2, 2).await.unwrap();
    let texts: Vec<&str> = messages.iter().map(|it| it.content.as_str()).collect();
    assert_eq!(texts, ["hello", "two"]);
}

#[tokio::test]
async fn a_withdrawn_turn_leaves_nothing_whichever_of_the_two_comes_first() {
    for accept_comes_first in [true, false] {
        let store = Store::open(&StoreUrl::Memory, &Shutdown::new()).unwrap();
        let chat = chat_store(&store);
        // Made without a message, so that it has no title yet.
        let new = NewSession { title: String::new(), model: None, system: None };
        let id = SessionId::default_session();
        chat.sessions().create(&alice(), &id, new).await.unwrap();
        let before = chat.sessions().get(&alice(), &id).await.unwrap().unwrap();
        let mut turn = accept(before.clone(), None);
        turn.after.title = "hello".into();
        turn.after.last_model = Some("m".into());
        turn.after.updated_at += 9;
        if accept_comes_first {
            accepted(&chat, &turn).await;
        }
        for _ in 0..2 {
            chat.turns().withdraw(&alice(), &turn).await.unwrap();
        }
        let late = chat.turns().accept(&caller(0), &turn, None).await.unwrap().0;
        assert_eq!(late, Accepted::Changed, "accepted first: {accept_comes_first}");
        let after = chat.sessions().get(&alice(), &id).await.unwrap().unwrap();
        assert_eq!(after.session, before.session, "accepted first: {accept_comes_first}");
        let used = chat.reservations().usage(&alice(), DAY).await.unwrap();
        assert_eq!(used.held, 0, "accepted first: {accept_comes_first}");
    }
}

#[tokio::test]
async fn an_undone_accept_takes_nothing_from_a_day_that_is_gone_or_was_settled() {
    for settled in [true, false] {
        let store = Store::open(&StoreUrl::Memory, &Shutdown::new()).unwrap();
        let chat = chat_store(&store);
        let turn = accept(new_session(), None);
        accepted(&chat, &turn).await;
        if settled {
            // On a store of its own another process proves that this one is dead.
            chat_store(&store).reservations().usage(&alice(), DAY).await.unwrap();
        } else {
            let day = Keys::of(&alice()).usage(DAY);
            store.apply(vec![Op::Delete(day)]).await.unwrap();
        }
        for _ in 0..2 {
            chat.turns().withdraw(&alice(), &turn).await.unwrap();
        }
        let found = chat.sessions().get(&alice(), &turn.session_id).await;
        assert!(found.unwrap().is_none(), "the session is undone");
        if settled {
            let used = chat.reservations().usage(&alice(), DAY).await.unwrap();
            let prompt_alone = DayUsage { prompt: 20, completion: 0, requests: 1, held: 20 };
            assert_eq!(used, prompt_alone);
        } else {
            assert_eq!(counters(&store).await, 0, "no counter begins below zero");
        }
    }
}

#[tokio::test]
async fn a_finish_is_not_applied_once_its_readers_were_told_otherwise() {
    let store = Store::open(&StoreUrl::Memory, &Shutdown::new()).unwrap();
    let chat = chat_store(&store);
    let turn = accept(new_session(), None);
    let late = Finish {
        until: Some(chat.now_ms()),
        ..finish(&turn, accepted(&chat, &turn).await, "late")
    };
    assert!(chat.turns().finish(&alice(), &late).await.is_err());
    chat.turns().retract(&alice(), &late).await.unwrap();
    let message = chat
        .sessions()
        .messages(&alice(), &turn.session_id)
        .by_id(&turn.open.id)
        .await
        .unwrap()
        .unwrap();
    let reason = message.answer.map(|answer| answer.finish_reason);
    assert_eq!(reason, Some(FinishReason::Interrupted));
}

#[tokio::test]
async fn a_retracted_answer_keeps_its_events_and_ends_as_interrupted() {
    for was_applied in [true, false] {
        let store = Store::open(&StoreUrl::Memory, &Shutdown::new()).unwrap();
        let chat = chat_store(&store);
        let turn = accept(new_session(), None);
        let mut events = EventBatch::default();
        events.push(2, EventRef::Token("all of it"));
        let session = accepted(&chat, &turn).await;
        let mut done = finish(&turn, session, "all of it");
        let end = End { ending: done.ending.clone(), request_id: "r".into(), by_recovery: false };
        events.push(3, EventRef::End(&end));
        (done.events, done.last_event_id) = (events, 3);
        if was_applied {
            chat.turns().finish(&alice(), &done).await.unwrap();
        }
        for _ in 0..2 {
            chat.turns().retract(&alice(), &done).await.unwrap();
        }
        let stored = chat.turns().events(&alice(), &turn.open.id, 0).await.unwrap().events;
        let ids: Vec<u64> = stored.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [1, 2, 2 + RECOVERY_GAP], "applied: {was_applied}");
        let ended = matches!(&stored[2].1, Event::End(End { ending, .. }) if *ending == Ending::interrupted());
        assert!(ended, "applied: {was_applied}: {stored:?}");
    }
}

#[tokio::test]
async fn a_turn_whose_events_cannot_be_stored_fails_no_other() {
    let store = Store::open(&StoreUrl::Memory, &Shutdown::new()).unwrap();
    let chat = chat_store(&store);
    let [spoilt, well] = [0, 1].map(|position| MessageId::new("h2k9w0qzs1ab", position));
    let keys = Keys::of(&alice());
    let spoil = Op::Set { key: keys.events(&spoilt), value: "text".into(), ttl: None };
    store.apply(vec![spoil, Op::Push(keys.events(&well), "1 token".into())]).await.unwrap();
    // More than fits one item of the stored list.
    let mut events = EventBatch::default();
    let text = "x".repeat(10_000);
    for id in 2..6 {
        events.push(id, EventRef::Token(&text));
    }
    assert!(events.items().len() > 1);
    let changes = [spoilt, well].map(|id| Replication::Events(alice(), id.clone(), events.clone()));
    assert_eq!(chat.turns().replicate(&changes).await, [None, Some(true)]);
}

#[tokio::test]
async fn a_turn_is_not_accepted_for_a_credential_whose_account_has_changed() {
    let store = Store::open(&StoreUrl::Memory, &Shutdown::new()).unwrap();
    let chat = chat_store(&store);
    let turn = accept(new_session(), None);
    let changed = Op::FieldSet(state(&alice().user), "revision".into(), "5".into());
    store.apply(vec![changed]).await.unwrap();
    for checked_at in [0, 4] {
        let refused = chat.turns().accept(&caller(checked_at), &turn, None).await.unwrap().0;
        assert_eq!(refused, Accepted::AccountChanged, "{checked_at}");
    }
    let found = chat.sessions().get(&alice(), &turn.session_id).await.unwrap();
    assert!(found.is_none(), "nothing is stored of what was refused");
    let accepted = chat.turns().accept(&caller(5), &turn, None).await.unwrap().0;
    assert!(matches!(accepted, Accepted::Yes(_)), "{accepted:?}");
}

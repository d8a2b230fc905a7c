//! The model of a talk: what sessions hold and callers are told, without a store, time or a network.

use std::collections::HashMap;

use proptest::prelude::*;
use tests::Answer;

/// How the model server behaves.
#[derive(Clone, Copy, Debug)]
pub enum Plays {
    Well,
    SaysNothing,
    BreaksOff,
    Refuses,
}

/// How a turn that is watched while it runs comes to its end.
#[derive(Clone, Copy, Debug)]
pub enum End {
    Finished,
    Cancelled,
    Deleted,
    Left,
}

#[derive(Clone, Debug)]
pub enum Step {
    Send(usize, usize, Option<usize>, Plays),
    Regenerate(usize, Option<usize>, Plays),
    /// Another message, or another answer to the last one.
    Watched(usize, bool, End),
    Create(usize),
    Delete(usize),
}

pub fn step() -> impl Strategy<Value = Step> {
    let plays = || {
        prop_oneof![
            3 => Just(Plays::Well),
            1 => Just(Plays::SaysNothing),
            2 => Just(Plays::BreaksOff),
            2 => Just(Plays::Refuses),
        ]
    };
    let end =
        prop_oneof![Just(End::Finished), Just(End::Cancelled), Just(End::Deleted), Just(End::Left)];
    // Few of each, so that the same things meet often.
    let mostly_the_first = || prop_oneof![4 => Just(0_usize), 1 => Just(1)];
    let (session, text) = (mostly_the_first, mostly_the_first);
    let key = || prop::option::weighted(0.6, mostly_the_first());
    prop_oneof![
        6 => (session(), text(), key(), plays())
            .prop_map(|(s, text, key, plays)| Step::Send(s, text, key, plays)),
        4 => (session(), key(), plays())
            .prop_map(|(s, key, plays)| Step::Regenerate(s, key, plays)),
        3 => (session(), any::<bool>(), end)
            .prop_map(|(s, again, end)| Step::Watched(s, again, end)),
        1 => session().prop_map(Step::Create),
        1 => session().prop_map(Step::Delete),
    ]
}

/// A session as it should be.
#[derive(Clone, Debug, Default)]
pub struct Session {
    pub life: usize,
    pub turns: usize,
    /// The user's text, and the answer with its reason.
    pub pairs: Vec<(String, Option<(String, String)>)>,
    /// The number of each pair's answer.
    pub numbers: Vec<Option<usize>>,
}

/// What a key should remember.
#[derive(Clone, Debug)]
pub struct Key {
    pub body: String,
    pub session: usize,
    pub life: usize,
    pub turn: usize,
    /// Which message and answer of its session.
    pub pair: usize,
    /// What its caller was told: a reply, or a failure.
    pub told: Result<String, ()>,
    /// Its answer's number, if it has one.
    pub answer: Option<usize>,
}

/// The model: no store, no time, no network.
#[derive(Default)]
pub struct Talk {
    pub lives: usize,
    pub answers: usize,
    pub sessions: HashMap<usize, Session>,
    pub keys: HashMap<usize, Key>,
}

/// What a caller should be told.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Reply(String),
    Status(u16),
}

impl Talk {
    pub fn session(&mut self, at: usize) -> &mut Session {
        let lives = &mut self.lives;
        self.sessions.entry(at).or_insert_with(|| {
            *lives += 1;
            Session { life: *lives, ..Session::default() }
        })
    }

    /// What a known key leads to; `None`: a turn is to run.
    pub fn repeated(&self, key: usize, body: &str) -> Option<Told> {
        let known = self.keys.get(&key)?;
        if known.body != body {
            return Some(Told::Status(422));
        }
        let Some(session) =
            self.sessions.get(&known.session).filter(|session| session.life == known.life)
        else {
            return Some(Told::Status(404));
        };
        if known.told.is_err() && session.turns == known.turn {
            return None;
        }
        if known.answer.is_some() && self.was_replaced(known) {
            // Only a whole answer takes the place of another one.
            let (text, _) = session.pairs[known.pair].1.clone().unwrap();
            return Some(Told::Reply(text));
        }
        Some(known.told.clone().map_or(Told::Status(502), Told::Reply))
    }

    /// Moves the model on, and says what the caller should be told.
    pub fn expect(
        &mut self,
        s: usize,
        text: Option<String>,
        key: Option<usize>,
        asked: &str,
        kept: Option<(String, &'static str)>,
        told: Told,
    ) -> Told {
        if let Some(repeated) = key.and_then(|key| self.repeated(key, asked)) {
            return repeated;
        }
        // A key that is known and still here runs its failed turn again: the message stands already.
        let again = key.is_some_and(|key| self.keys.contains_key(&key));
        let regenerates = text.is_none();
        if regenerates && self.sessions.get(&s).is_none_or(|session| session.pairs.is_empty()) {
            return Told::Status(404);
        }
        self.answers += 1;
        let number = self.answers;
        let session = self.session(s);
        session.turns += 1;
        if let Some(text) = text.filter(|_| !again) {
            session.pairs.push((text, None));
            session.numbers.push(None);
        }
        let last = session.pairs.last_mut().unwrap();
        // Neither an empty answer nor another try that is not complete takes the place of an earlier answer. A failed turn that is run again
        // under its key is another matter: its caller is given the id of what it says now.
        let spoils = last.1.is_some()
            && regenerates
            && kept.as_ref().is_some_and(|(text, reason)| text.is_empty() || *reason != "stop");
        let answered = kept.is_some() && !spoils;
        if let Some((text, reason)) = kept.filter(|_| !spoils) {
            last.1 = Some((text, reason.to_owned()));
            session.numbers.pop();
            session.numbers.push(Some(number));
        }
        let (life, turn, pair) = (session.life, session.turns, session.pairs.len() - 1);
        if let Some(key) = key {
            let remembered = Key {
                body: asked.to_owned(),
                session: s,
                life,
                turn,
                pair,
                told: match &told {
                    Told::Reply(reply) => Ok(reply.clone()),
                    Told::Status(_) => Err(()),
                },
                answer: answered.then_some(number),
            };
            self.keys.insert(key, remembered);
        }
        told
    }

    /// Whether another answer stands in the place of a key's own.
    pub fn was_replaced(&self, key: &Key) -> bool {
        !self.sessions[&key.session].numbers.contains(&key.answer)
    }
}

/// What the model server says as the answer of that number, and how that ends.
pub fn script(plays: Plays, number: usize) -> (Answer, Option<(String, &'static str)>, Told) {
    let (whole, half) = (format!("whole #{number}"), format!("half #{number}"));
    match plays {
        Plays::Well => {
            (Answer::tokens([whole.clone()]), Some((whole.clone(), "stop")), Told::Reply(whole))
        }
        Plays::SaysNothing => {
            (Answer::tokens([""; 0]), Some((String::new(), "stop")), Told::Reply(String::new()))
        }
        Plays::BreaksOff => (
            Answer::partial([half.clone()]).error("broken"),
            Some((half, "error")),
            Told::Status(502),
        ),
        Plays::Refuses => (Answer::refuse(500, "", r#"{"error":"no"}"#), None, Told::Status(502)),
    }
}

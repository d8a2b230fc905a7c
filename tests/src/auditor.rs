//! What was acknowledged, compared with what is stored: nothing lost, nothing twice, nothing out of pairs.

use std::{collections::BTreeMap, sync::Mutex};

use crate::Client;

/// Remembers acknowledged turns. Message texts must be unique within a session.
#[derive(Default)]
pub struct Auditor(Mutex<BTreeMap<String, Vec<(String, String)>>>);

impl Auditor {
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers that this message was answered so.
    pub fn acknowledge(&self, session: &str, message: &str, reply: &str) {
        let turn = (message.to_owned(), reply.to_owned());
        self.0.lock().unwrap().entry(session.to_owned()).or_default().push(turn);
    }

    pub fn count(&self) -> usize {
        self.0.lock().unwrap().values().map(Vec::len).sum()
    }

    /// Reads every session and compares.
    ///
    /// # Panics
    /// When an acknowledged turn is missing, stands there twice, or was given another answer.
    pub async fn check(&self, client: &Client) {
        let wrong = self.differences(client).await;
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// The same; what is wrong, one sentence for each message.
    pub async fn differences(&self, client: &Client) -> Vec<String> {
        let sessions = self.0.lock().unwrap().clone();
        let mut wrong = Vec::new();
        for (session, turns) in sessions {
            let talk = client.talk(&session).await;
            let twice =
                talk.iter().enumerate().filter(|(at, it)| stands_after(&talk[at + 1..], it));
            wrong.extend(twice.map(|(_, it)| format!("{session}: {it:?} stands there twice")));
            let answers = talk.windows(2).filter(|two| two.iter().all(|(role, _)| role != "user"));
            wrong.extend(answers.map(|two| format!("{session}: two answers in a row: {two:?}")));
            for (message, reply) in turns {
                let at = talk.iter().position(|(role, text)| role == "user" && *text == message);
                let next = at.and_then(|at| talk.get(at + 1));
                let is_kept = next.is_some_and(|it| it.0 == "assistant" && it.1 == reply);
                if !is_kept {
                    let seen = at.map_or("it is not there".to_owned(), |_| format!("{next:?}"));
                    wrong.push(format!("{session}: {message:?} was answered {reply:?}: {seen}"));
                }
            }
        }
        wrong
    }
}

fn stands_after(rest: &[(String, String)], (role, text): &(String, String)) -> bool {
    role == "user" && rest.iter().any(|other| other.0 == "user" && other.1 == *text)
}

//! What was acknowledged, compared with what is stored: nothing lost, nothing twice, nothing out of pairs.

use std::{collections::BTreeMap, sync::Mutex};

use crate::Client;

/// Remembers acknowledged turns. Message texts must be unique within a session.
#[derive(Default)]
pub struct Auditor(Mutex<BTreeMap<String, Vec<(String, String)>>>);

impl Auditor {
    /// Nothing acknowledged yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers that this message was answered so.
    pub fn acknowledge(&self, session: &str, message: &str, reply: &str) {
        let turn = (message.to_owned(), reply.to_owned());
        self.0
            .lock()
            .unwrap()
            .entry(session.to_owned())
            .or_default()
            .push(turn);
    }

    /// How many turns were acknowledged.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap().values().map(Vec::len).sum()
    }

    /// Reads every session and compares.
    ///
    /// # Panics
    /// When an acknowledged turn is missing, stands there twice, or was given another answer.
    pub async fn check(&self, client: &Client) {
        let sessions = self.0.lock().unwrap().clone();
        for (session, turns) in sessions {
            let talk = client.talk(&session).await;
            no_message_stands_twice(&talk);
            no_answer_follows_an_answer(&talk);
            for (message, reply) in turns {
                let at = talk
                    .iter()
                    .position(|(role, text)| role == "user" && *text == message);
                let at = at.unwrap_or_else(|| {
                    panic!("{message:?} was acknowledged and is lost: {talk:?}")
                });
                let next = talk
                    .get(at + 1)
                    .unwrap_or_else(|| panic!("the answer to {message:?} is lost: {talk:?}"));
                assert_eq!(
                    (next.0.as_str(), next.1.as_str()),
                    ("assistant", reply.as_str()),
                    "after {message:?}"
                );
            }
        }
    }
}

fn no_message_stands_twice(talk: &[(String, String)]) {
    for (at, (role, text)) in talk.iter().enumerate() {
        let twice = role == "user"
            && talk[at + 1..]
                .iter()
                .any(|other| other.0 == "user" && other.1 == *text);
        assert!(!twice, "{text:?} stands there twice: {talk:?}");
    }
}

fn no_answer_follows_an_answer(talk: &[(String, String)]) {
    for pair in talk.windows(2) {
        assert!(
            pair[0].0 == "user" || pair[1].0 == "user",
            "two answers in a row: {pair:?}"
        );
    }
}

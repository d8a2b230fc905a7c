//! Random talk against a model of it: whatever is sent, repeated, regenerated, cancelled, deleted and left, a session
//! holds what was accepted, and every answer is what its caller was told.
//!
//! `TEST_RANDOM_CASES` says how many talks there are (some dozens).

mod model;

use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Answer, Backend, Client, Gate, PATIENCE, Reply, TestApp, eventually, text_of};

use model::{End, Plays, Step, Talk, Told, script, step};

const SESSIONS: [&str; 2] = ["a", "b"];

struct Scenario<'a> {
    app: &'a TestApp,
    alice: Client,
    talk: Talk,
}

impl Scenario<'_> {
    async fn take(&mut self, step: &Step) {
        match *step {
            Step::Send(s, text, key, plays) => {
                let text = format!("text {text}");
                let body = json!({"session_id": SESSIONS[s], "message": text});
                self.turn(s, Some(text), key, plays, "/chat/message", &body).await;
            }
            Step::Regenerate(s, key, plays) => {
                let path = format!("/chat/sessions/{}/regenerate", SESSIONS[s]);
                self.turn(s, None, key, plays, &path, &json!({})).await;
            }
            Step::Watched(s, again, end) => self.watched(s, again, end).await,
            Step::Create(s) => {
                let exists = self.talk.sessions.contains_key(&s);
                let reply =
                    self.alice.post("/chat/sessions", &json!({"session_id": SESSIONS[s]})).await;
                assert_eq!(reply.status, if exists { 409 } else { 201 });
                self.talk.session(s);
            }
            Step::Delete(s) => {
                let exists = self.talk.sessions.remove(&s).is_some();
                let reply = self.alice.delete(&format!("/chat/sessions/{}", SESSIONS[s])).await;
                assert_eq!(reply.status, if exists { 204 } else { 404 });
            }
        }
    }

    async fn turn(
        &mut self,
        s: usize,
        text: Option<String>,
        key: Option<usize>,
        plays: Plays,
        path: &str,
        body: &Value,
    ) {
        let number = self.talk.answers + 1;
        let (answer, kept, told) = script(plays, number);
        self.app.model.usually(answer);
        let asked = format!("{path} {body}");
        let expected = self.talk.expect(s, text, key, &asked, kept, told);
        let request = self.alice.request(Method::POST, path).json(body);
        let request = match key {
            Some(key) => request.header("idempotency-key", format!("key-{key}")),
            None => request,
        };
        let reply = self.alice.fetch(request).await;
        assert_eq!(told_by(&reply), expected, "{}", reply.text());
    }

    /// A turn with two watchers that comes to its end in the middle: another message, or another answer to the last one.
    async fn watched(&mut self, s: usize, again: bool, end: End) {
        let (text, reason) = match end {
            End::Finished => ("one two", "stop"),
            _ => ("one ", "cancelled"),
        };
        let message = (!again).then(|| "watched".to_owned());
        let kept = Some((text.to_owned(), reason));
        if self.talk.expect(s, message, None, "", kept, Told::Status(200)) != Told::Status(200) {
            return;
        }
        let gate = Gate::new();
        self.app.model.usually(Answer::gated(["one ", "two"], &gate));
        let rule = if matches!(end, End::Left) { json!("cancel") } else { json!("continue") };
        let (path, body) = if again {
            let path = format!("/chat/sessions/{}/regenerate?stream=true", SESSIONS[s]);
            (path, json!({"on_disconnect": rule}))
        } else {
            let message =
                json!({"session_id": SESSIONS[s], "message": "watched", "on_disconnect": rule});
            ("/chat/message?stream=true".to_owned(), message)
        };
        let request = self.alice.request(Method::POST, &path).json(&body);
        let mut stream = self.alice.open(request).await;
        let id = stream.started().await;
        gate.release(1);
        let first = stream.next_but_queued().await.unwrap();
        assert_eq!(first.data["token"], "one ");
        let mut ending = reason;
        let second = (!matches!(end, End::Left)).then(|| self.alice.resume(&id, first.id));
        let second = match second {
            Some(opening) => Some(opening.await),
            None => None,
        };
        match end {
            End::Finished => gate.open(),
            End::Cancelled => assert_eq!(self.alice.cancel(&id).await.status, 202),
            End::Deleted => {
                let path = format!("/chat/sessions/{}", SESSIONS[s]);
                assert_eq!(self.alice.delete(&path).await.status, 204);
                self.talk.sessions.remove(&s);
                ending = "session_not_found";
            }
            End::Left => {}
        }
        let Some(second) = second else {
            drop(stream);
            let (alice, pairs) = (&self.alice, &self.talk.session(s).pairs);
            let (_, stays) = pairs.last().and_then(|(_, answer)| answer.as_ref()).unwrap();
            eventually(PATIENCE, "the turn that was left is cancelled", || async {
                let last = alice.history(SESSIONS[s]).await.pop()?;
                (last["finish_reason"] == stays.as_str()).then_some(())
            })
            .await;
            return;
        };
        let (own, others) = tokio::join!(rest(stream), rest(second));
        assert_eq!(own, others, "every watcher sees the same");
        let last = own.last().unwrap();
        assert!(last.data["finish_reason"] == ending || last.data["code"] == ending, "{last:?}");
        if matches!(end, End::Finished) {
            assert_eq!(text_of(&own), "two");
        }
    }

    async fn check(&self) {
        for (s, name) in SESSIONS.iter().enumerate() {
            let Some(session) = self.talk.sessions.get(&s) else {
                let path = format!("/chat/sessions/{name}/messages");
                self.alice.get(&path).await.problem(404, "session_not_found");
                continue;
            };
            let history = self.alice.history(name).await;
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let found: Vec<_> =
                history.iter().map(|m| (text(&m["content"]), text(&m["finish_reason"]))).collect();
            let wanted: Vec<_> = session
                .pairs
                .iter()
                .flat_map(|(text, answer)| {
                    std::iter::once((text.clone(), String::new())).chain(answer.clone())
                })
                .collect();
            assert_eq!(found, wanted, "session {name}");
            for pair in history.windows(2).filter(|pair| pair[1]["role"] == "assistant") {
                assert_eq!(pair[1]["reply_to"], pair[0]["message_id"]);
            }
        }
    }
}

async fn rest(mut stream: tests::EventStream) -> Vec<tests::Event> {
    stream.rest().await
}

fn told_by(reply: &Reply) -> Told {
    match reply.status {
        200 => Told::Reply(reply.json()["reply"].as_str().unwrap().to_owned()),
        status => Told::Status(status),
    }
}

fn random_talk_agrees_with_the_model(on: Backend, cases: u32) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let app = runtime.block_on(TestApp::builder(on).set("llm.ollama.breaker_failures", 0).start());
    let told = std::env::var("TEST_RANDOM_CASES").ok();
    let cases = told.and_then(|text| text.parse().ok()).unwrap_or(cases);
    let number = std::cell::Cell::new(0);
    let config =
        Config { cases, max_shrink_iters: 200, failure_persistence: None, ..Config::default() };
    let talks = prop::collection::vec(step(), 1..25);
    let checked = TestRunner::new(config).run(&talks, |steps| {
        number.set(number.get() + 1);
        let user = format!("user-{}", number.get());
        let talk = async {
            let alice = app.login(&user).await;
            let mut test = Scenario { app: &app, alice, talk: Talk::default() };
            for step in &steps {
                test.take(step).await;
                test.check().await;
            }
        };
        let told =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(talk)));
        told.map_err(|_| TestCaseError::fail("it does not"))
    });
    if let Err(difference) = checked {
        panic!("{difference}");
    }
}

#[test]
fn random_talk_agrees_with_the_model_in_memory() {
    random_talk_agrees_with_the_model(Backend::Memory, 64);
}

#[test]
fn random_talk_agrees_with_the_model_on_redis() {
    random_talk_agrees_with_the_model(Backend::Redis, 16);
}

//! Turns and keys seen from several instances, and after what was kept of them is gone.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Answer, Backend, Client, Gate, PATIENCE, TestApp, eventually, text_of};

async fn two(lease: &str) -> TestApp {
    TestApp::builder(Backend::Redis).chats(2).set("chat.lease", lease).start().await
}

fn body(message: &str) -> Value {
    json!({"session_id": "work", "message": message})
}

/// Forgets the turns that ended, as the store does after 5 minutes.
async fn five_minutes_pass(app: &TestApp) {
    for family in ["e", "t"] {
        let command = format!(
            "for _, key in ipairs(redis.call('KEYS', 'c:{{alice}}:0:{family}:*')) do redis.call('DEL', key) end"
        );
        app.redis().cli(&["EVAL", &command, "0"]).await;
    }
}

#[tokio::test]
async fn what_another_instance_changed_holds_for_the_next_turn() {
    let app = two("5s").await;
    let alice = app.login("alice").await;
    let there = alice.at(app.chat(1));
    alice.say("work", "one").await;
    there.patch("/chat/sessions/work", &json!({"system": "Be brief."})).await.expect(200);
    alice.say("work", "two").await;
    let asked = app.model.asked("two").messages();
    assert_eq!(asked[0], ("system".to_owned(), "Be brief.".to_owned()));
    there.say("work", "three").await;
    alice.say("work", "four").await;
    let asked = app.model.asked("four").messages();
    let texts: Vec<_> =
        asked.iter().filter(|(role, _)| role == "user").map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["one", "two", "three", "four"]);
    assert_eq!(there.delete("/chat/sessions/work").await.status, 204);
    alice.say("work", "anew").await;
    assert_eq!(app.model.asked("anew").messages().len(), 1);
}

#[tokio::test]
async fn a_session_renamed_while_it_answers_keeps_both_name_and_answer() {
    let app = two("5s").await;
    let gate = Gate::new();
    app.model.answer_to("slow", Answer::gated(["yes"], &gate));
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "slow").await;
    stream.started().await;
    for chat in [0, 1] {
        alice
            .at(app.chat(chat))
            .patch("/chat/sessions/work", &json!({"title": "Ours"}))
            .await
            .expect(200);
    }
    gate.open();
    let events = stream.rest().await;
    assert_eq!(text_of(&events), "yes");
    assert_eq!(alice.history("work").await.len(), 2);
    assert_eq!(alice.get("/chat/sessions/work").await.expect(200)["title"], "Ours");
    alice.say("work", "and then").await;
}

/// The same request with the same key, many times at once, on both instances.
async fn all_at_once(app: &TestApp, alice: &Client, message: &Value) -> Vec<Value> {
    let asking: Vec<_> = (0..16)
        .map(|number| {
            let (there, message) = (alice.at(app.chat(number % 2)), message.clone());
            tokio::spawn(async move { there.send_once("k", &message).await.expect(200) })
        })
        .collect();
    let mut answers = Vec::new();
    for answer in asking {
        answers.push(answer.await.unwrap());
    }
    answers
}

#[tokio::test]
async fn a_key_used_many_times_at_once_makes_one_turn() {
    let app = two("10s").await;
    let alice = app.login("alice").await;
    let answers = all_at_once(&app, &alice, &body("hello")).await;
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    assert_eq!((app.model.chats().len(), alice.history("work").await.len()), (1, 2));
}

#[tokio::test]
async fn a_failed_key_used_many_times_at_once_runs_once_more() {
    let app = two("10s").await;
    let alice = app.login("alice").await;
    app.model.next(Answer::partial(["half"]).error("broken"));
    alice.send_once("k", &body("hello")).await.problem(502, "llm_failed");
    let answers = all_at_once(&app, &alice, &body("hello")).await;
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    assert_eq!((app.model.chats().len(), alice.history("work").await.len()), (2, 2));
}

#[tokio::test]
async fn after_five_minutes_an_answer_is_told_as_a_whole() {
    let app = two("10s").await;
    let alice = app.login("alice").await;
    let whole = alice.send_once("k", &body("hello")).await.expect(200);
    app.model.next(Answer::partial(["half"]).error("broken"));
    let mut failed = alice.stream("work", "fails").await;
    let failed_id = failed.started().await;
    failed.rest().await;
    five_minutes_pass(&app).await;
    let id = whole["message_id"].as_str().unwrap();
    for (at, after) in [(0, 0), (1, 2), (0, 4000)] {
        let events = alice.at(app.chat(at)).resume(id, after).await.rest().await;
        let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
        assert_eq!(kinds, ["start", "token", "done"], "{events:?}");
        assert_eq!(events[0].data["reset"], true);
        assert_eq!(text_of(&events), "You said: hello");
        events[2].expect_done("stop");
        assert_eq!(events[2].data["usage"], whole["usage"]);
    }
    let events = alice.resume(&failed_id, 1).await.rest().await;
    assert_eq!(text_of(&events), "half");
    events.last().unwrap().expect_error(502, "llm_failed");
    assert_eq!(alice.cancel(id).await.status, 202);
    let mut socket = alice.socket().await;
    socket.send(&json!({"type": "resume", "message_id": id, "last_event_id": 3})).await;
    let events = socket.rest_of(id).await;
    assert_eq!((events.len(), text_of(&events).as_str()), (3, "You said: hello"));
    assert_eq!(alice.send_once("k", &body("hello")).await.expect(200)["reply"], "You said: hello");
}

#[tokio::test]
async fn a_reader_who_has_more_than_a_dead_instance_stored_gets_the_ending() {
    let app = two("1s").await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["one ", "two"], &gate));
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "count").await;
    let id = stream.started().await;
    gate.release(1);
    stream.next_but_queued().await.unwrap();
    app.chat_process(0).kill();
    let there = alice.at(app.chat(1));
    let mut watch = there.resume(&id, 40).await;
    let last = watch.next().await.unwrap();
    last.expect_error(503, "interrupted");
    assert!(last.id > 1_000_000, "above all that it can have: {}", last.id);
    assert!(watch.next().await.is_none(), "nothing follows");
    let again = there.resume(&id, 60).await.rest().await;
    assert_eq!((again.len(), again[0].id), (1, last.id));
    let path = format!("/chat/messages/{id}/stream?last_event_id={}", last.id);
    assert_eq!(there.get(&path).await.status, 204, "it has the ending");
    let mut socket = there.socket().await;
    socket.send(&json!({"type": "resume", "message_id": id, "last_event_id": last.id})).await;
    socket.silent_for(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn who_watches_an_instance_that_froze_is_told_when_it_thaws() {
    let app = two("1s").await;
    let gate = Gate::new();
    app.model.answer_to("count", Answer::gated(["one ", "two"], &gate));
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "count").await;
    let id = stream.started().await;
    let mut socket = alice.socket().await;
    socket.send(&json!({"type": "resume", "message_id": id, "last_event_id": 1})).await;
    gate.release(1);
    stream.next_but_queued().await.unwrap();
    // Its `resume` is answered: one that is read only after the thaw may find that its time for the store is over.
    socket.next_of(&id).await;
    app.chat_process(0).freeze();
    let there = alice.at(app.chat(1));
    let elsewhere = there.resume(&id, 0).await.rest().await;
    elsewhere.last().unwrap().expect_error(503, "interrupted");
    let before = there.talk("work").await;
    app.chat_process(0).thaw();
    stream.ending().await.expect_error(503, "interrupted");
    socket.ending_of(&id).await.expect_error(503, "interrupted");
    gate.open();
    assert_eq!(there.talk("work").await, before);
    for at in 0..2 {
        let there = alice.at(app.chat(at));
        assert_eq!(there.say("work", "go on").await, "You said: go on");
    }
}

#[tokio::test]
async fn an_instance_that_froze_unseen_finishes_its_answer() {
    let app = two("1s").await;
    let gate = Gate::new();
    app.model.answer_to("count", Answer::gated(["one ", "two"], &gate));
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "count").await;
    stream.started().await;
    app.chat_process(0).freeze();
    eventually(PATIENCE, "its lease lapses", || async {
        let leases = app.redis().cli(&["KEYS", "c:{alice}:0:l:*"]).await;
        (leases == redis::Value::Array(Vec::new())).then_some(())
    })
    .await;
    app.chat_process(0).thaw();
    gate.open();
    stream.ending().await.expect_done("stop");
    assert_eq!(alice.at(app.chat(1)).talk("work").await[1].1, "one two");
}

#[tokio::test]
async fn a_watcher_elsewhere_keeps_the_model_going_until_a_grace_after_it_leaves() {
    let app =
        TestApp::builder(Backend::Redis).chats(2).set("chat.disconnect_grace", "4s").start().await;
    app.model.usually(Answer::partial(["half"]).hang());
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "count").await;
    let id = stream.started().await;
    let watch = alice.at(app.chat(1)).resume(&id, 0).await;
    drop(stream);
    app.grace_passes().await;
    assert_eq!(app.model.open(), 1, "somebody watches");
    drop(watch);
    let after = app.model.left_after("count", Instant::now(), PATIENCE).await;
    assert!(after > Duration::from_millis(3900), "a grace of its own: {after:?}");
    eventually(PATIENCE, "it is kept as cancelled", || async {
        let last = alice.history("work").await.pop()?;
        (last["finish_reason"] == "cancelled").then_some(())
    })
    .await;
}

#[tokio::test]
async fn cancel_holds_for_a_watcher_elsewhere_too() {
    let app =
        TestApp::builder(Backend::Redis).chats(2).set("chat.disconnect_grace", "1s").start().await;
    app.model.usually(Answer::partial(["half"]).hang());
    let alice = app.login("alice").await;
    let asked = json!({"session_id": "work", "message": "count", "on_disconnect": "cancel"});
    let mut stream = alice.stream_body(&asked).await;
    let id = stream.started().await;
    let mut watch = alice.at(app.chat(1)).resume(&id, 0).await;
    watch.started().await;
    // Sent by the instance that runs it, which knows of the watcher by then.
    let text = watch.next_but_queued().await.unwrap();
    assert_eq!(text.data["token"], "half");
    drop(stream);
    app.grace_passes().await;
    assert_eq!(app.model.open(), 1, "somebody watches");
    drop(watch);
    let after = app.model.left_after("count", Instant::now(), PATIENCE).await;
    assert!(after < Duration::from_millis(2500), "{after:?}");
}

//! Turns that survive what happens around them: callers who leave at any moment, sessions that expire, a store that is
//! away.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use test_redis::{RedisServer, wait_until};
use tests::{
    Answer, Backend, Client, EventStream, Gate, Mode, PATIENCE, RedisOptions, TestApp, eventually,
    text_of,
};

on_both_stores!(
    an_unanswered_message_is_answered_by_regenerating,
    a_session_does_not_expire_while_it_answers,
    an_expired_session_is_gone_as_a_whole,
    callers_who_leave_the_queue_of_a_session_leave_nothing,
    messages_of_one_socket_keep_their_order,
);

fn body(session: &str, message: &str) -> Value {
    json!({"session_id": session, "message": message})
}

fn texts(talk: &[(String, String)]) -> Vec<&str> {
    talk.iter().map(|(_, text)| text.as_str()).collect()
}

async fn an_unanswered_message_is_answered_by_regenerating(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    app.model.next(Answer::refuse(500, "", r#"{"error":"no"}"#));
    alice.send("work", "hello").await.problem(502, "llm_failed");
    assert_eq!(texts(&alice.talk("work").await), ["hello"]);
    for _ in 0..2 {
        let answer = alice.post_empty("/chat/sessions/work/regenerate").await.expect(200);
        assert_eq!(answer["reply"], "You said: hello");
        assert_eq!(texts(&alice.talk("work").await), ["hello", "You said: hello"]);
    }
    assert_eq!(alice.say("work", "more").await, "You said: more");
    assert_eq!(alice.history("work").await.len(), 4);
}

async fn a_session_does_not_expire_while_it_answers(on: Backend) {
    let app = TestApp::builder(on).set("chat.session_ttl", "1s").start().await;
    let alice = app.login("alice").await;
    let pause = Duration::from_millis(900);
    app.model.usually(Answer::paced(["one ", "two ", "three"], pause));
    let mut stream = alice.stream("work", "count").await;
    stream.started().await;
    let change = json!({"title": "renamed in the middle"});
    alice.patch("/chat/sessions/work", &change).await.expect(200);
    let events = stream.rest().await;
    events.last().unwrap().expect_done("stop");
    assert_eq!(alice.talk("work").await[1].1, "one two three");
}

async fn an_expired_session_is_gone_as_a_whole(on: Backend) {
    let app = TestApp::builder(on).set("chat.session_ttl", "1s").start().await;
    let alice = app.login("alice").await;
    let answer = alice.send_once("k", &body("work", "hello")).await.expect(200);
    let id = answer["message_id"].as_str().unwrap();
    eventually(PATIENCE, "the session expires", || async {
        (alice.get("/chat/sessions/work").await.status == 404).then_some(())
    })
    .await;
    alice.get(&format!("/chat/messages/{id}/stream")).await.problem(404, "message_not_found");
    alice.cancel(id).await.problem(404, "message_not_found");
    alice.send_once("k", &body("work", "hello")).await.problem(404, "session_not_found");
    alice.get("/chat/sessions/work/messages").await.problem(404, "session_not_found");
    assert_eq!(alice.get("/chat/sessions").await.expect(200)["sessions"], json!([]));
    if let Some(redis) = &app.redis {
        let left = redis.dump().await;
        for family in [":s:work", ":m:work", ":r:"] {
            assert!(!left.contains(family), "{family} is left: {left}");
        }
    }
    alice.say("work", "anew").await;
    assert_eq!(texts(&alice.talk("work").await), ["anew", "You said: anew"]);
}

/// How many requests the rate limit still allows, once this one is counted.
async fn allowed(client: &Client) -> u64 {
    let reply = client.get("/chat/usage").await;
    let left = reply.header("ratelimit").split("r=").nth(1).unwrap();
    left.split(';').next().unwrap().parse().unwrap()
}

async fn callers_who_leave_the_queue_of_a_session_leave_nothing(on: Backend) {
    let app = TestApp::builder(on)
        .set("rate_limit.requests", 1000)
        .set("rate_limit.period", "1d")
        .start()
        .await;
    let gate = Gate::new();
    app.model.answer_to("first", Answer::gated(["slow"], &gate));
    let alice = app.login("alice").await;
    let mut first = alice.stream("work", "first").await;
    first.started().await;
    let before = allowed(&alice).await;
    let waiting: Vec<_> = (0..5)
        .map(|number| {
            let (alice, message) = (alice.at(app.chat(0)), format!("left {number}"));
            tokio::spawn(async move { alice.send("work", &message).await })
        })
        .collect();
    let last = alice.at(app.chat(0));
    let last = tokio::spawn(async move { last.say("work", "last").await });
    // A message is counted once it has its place in the queue; each look is counted, too.
    let looks = Cell::new(0);
    eventually(PATIENCE, "all of them wait", || async {
        looks.set(looks.get() + 1);
        (before - allowed(&alice).await == 6 + looks.get()).then_some(())
    })
    .await;
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    eventually(PATIENCE, "it is noticed that they left", || async {
        let left = app.measured(0, "http_requests_total", "status=\"499\"").await;
        (left >= 5.0).then_some(())
    })
    .await;
    gate.open();
    first.ending().await.expect_done("stop");
    assert_eq!(last.await.unwrap(), "You said: last");
    assert_eq!(texts(&alice.talk("work").await), ["first", "slow", "last", "You said: last"]);
}

async fn messages_of_one_socket_keep_their_order(on: Backend) {
    let app = TestApp::start(on).await;
    let mut socket = app.stranger().socket().await;
    let messages: Vec<String> = (0..30).map(|number| format!("message {number}")).collect();
    for message in &messages {
        socket.send(&json!({"user_id": "carol", "message": message, "ref": message})).await;
    }
    for message in &messages {
        let start = socket.with_ref(message).await;
        let rest = socket.rest_of(start["message_id"].as_str().unwrap()).await;
        rest.last().unwrap().expect_done("stop");
    }
    let talk = app.login("carol").await.talk("default").await;
    let asked: Vec<&str> =
        talk.iter().filter(|(role, _)| role == "user").map(|(_, text)| text.as_str()).collect();
    assert_eq!(asked, messages);
}

#[tokio::test]
async fn callers_who_leave_while_they_are_accepted_block_nobody() {
    let app = TestApp::builder(Backend::Redis).proxied().start().await;
    let alice = app.login("alice").await;
    let wire = app.store_proxy.as_ref().unwrap();
    wire.set(Mode::Delay(Duration::from_millis(20)));
    for step in 0..24 {
        let (alice, session) = (alice.at(app.chat(0)), format!("left-{step}"));
        let sending = tokio::spawn(async move { alice.send(&session, "hello").await });
        tokio::time::sleep(Duration::from_millis(10 * step)).await;
        sending.abort();
    }
    wire.set(Mode::Pass);
    for step in 0..24 {
        let (session, start) = (format!("left-{step}"), Instant::now());
        assert_eq!(alice.say(&session, "go on").await, "You said: go on");
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "left after {} ms: the session stood still for {:?}",
            10 * step,
            start.elapsed()
        );
        let talk = alice.talk(&session).await;
        assert!(texts(&talk).ends_with(&["go on", "You said: go on"]), "{talk:?}");
    }
}

#[tokio::test]
async fn garbage_where_the_open_turn_stands_blocks_no_session() {
    let app = TestApp::start(Backend::Redis).await;
    let alice = app.login("alice").await;
    alice.say("work", "hello").await;
    let key = "c:{alice}:0:s:work";
    let spoil = "local s = redis.call('GET', KEYS[1]); redis.call('SET', KEYS[1], s:sub(1, -2) .. ',\"open\":\"garbage\"}')";
    app.redis().cli(&["EVAL", spoil, "1", key]).await;
    assert_eq!(alice.say("work", "go on").await, "You said: go on");
    assert_eq!(alice.history("work").await.len(), 4);
}

#[tokio::test]
async fn a_session_that_cannot_be_read_hides_no_other_and_can_be_deleted() {
    let app = TestApp::start(Backend::Redis).await;
    let alice = app.login("alice").await;
    alice.say("work", "hello").await;
    alice.say("play", "hello").await;
    app.redis().cli(&["SET", "c:{alice}:0:s:work", "{\"v\":1,\"title\":"]).await;
    alice.send("work", "go on").await.problem(500, "internal");
    let listed = alice.get("/chat/sessions").await.expect(200);
    assert_eq!(listed["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(alice.say("play", "go on").await, "You said: go on");
    assert_eq!(alice.delete("/chat/sessions/work").await.status, 204);
    assert_eq!(alice.say("work", "anew").await, "You said: anew");
    assert_eq!(alice.history("work").await.len(), 2);
}

/// Twice the lease: while the store is down nobody can see it lapse.
const PAST_THE_LEASE: Duration = Duration::from_secs(2);

/// An answer of two words, the store killed after the first, the model done.
async fn answer_without_a_store() -> (TestApp, Client, EventStream, String) {
    let redis = RedisOptions { durable: true, ..RedisOptions::default() };
    let app = TestApp::builder(Backend::Redis)
        .redis(redis)
        .chats(2)
        .set("chat.lease", "1s")
        .start()
        .await;
    let gate = Gate::new();
    app.model.answer_to("count", Answer::gated(["one ", "two"], &gate));
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "count").await;
    let id = stream.started().await;
    gate.release(1);
    stream.next_but_queued().await.unwrap();
    app.redis().kill();
    gate.open();
    assert_eq!(stream.next().await.unwrap().data["token"], "two");
    (app, alice, stream, id)
}

#[tokio::test]
async fn who_looks_right_after_an_outage_takes_nobody_for_dead() {
    let (app, alice, mut stream, _) = answer_without_a_store().await;
    tokio::time::sleep(PAST_THE_LEASE).await;
    // Its own instance comes last to the store that is back.
    app.chat_process(0).freeze();
    app.redis().restart().await;
    let there = alice.at(app.chat(1));
    let history = || async {
        let reply = there.get("/chat/sessions/work/messages").await;
        (reply.status == 200).then(|| reply.json())
    };
    let begun = eventually(PATIENCE, "the history is read again", history).await;
    assert_eq!(begun["messages"].as_array().unwrap().len(), 1, "{begun}");
    app.chat_process(0).thaw();
    stream.next().await.unwrap().expect_done("stop");
    assert_eq!(texts(&there.talk("work").await), ["count", "one two"]);
}

#[tokio::test]
async fn an_answer_outlives_an_outage_longer_than_its_lease() {
    let (app, alice, mut stream, id) = answer_without_a_store().await;
    tokio::time::sleep(PAST_THE_LEASE).await;
    app.redis().restart().await;
    stream.next().await.unwrap().expect_done("stop");
    assert_eq!(texts(&alice.talk("work").await), ["count", "one two"]);
    let there = alice.at(app.chat(1)).resume(&id, 0).await.rest().await;
    assert_eq!(text_of(&there), "one two");
    assert_eq!(alice.say("work", "go on").await, "You said: go on");
}

#[tokio::test]
async fn an_answer_that_cannot_be_stored_for_30_s_says_so() {
    let (app, alice, mut stream, id) = answer_without_a_store().await;
    let start = Instant::now();
    let last = stream.next_within(Duration::from_secs(50)).await.unwrap();
    last.expect_error(503, "store_unavailable");
    let waited = start.elapsed();
    assert!((Duration::from_secs(27)..Duration::from_secs(36)).contains(&waited), "{waited:?}");
    app.redis().restart().await;
    let there = alice.at(app.chat(1));
    eventually(PATIENCE, "the store is back", || async {
        (there.get("/chat/sessions").await.status == 200).then_some(())
    })
    .await;
    let replayed = there.resume(&id, 0).await.rest().await;
    replayed.last().unwrap().expect_error(503, "interrupted");
    let history = there.history("work").await;
    assert!(history.len() == 1 || history[1]["finish_reason"] == "interrupted", "{history:?}");
    assert_eq!(alice.say("work", "go on").await, "You said: go on");
}

#[tokio::test]
async fn a_killed_embedded_store_lacks_no_event_that_was_seen_a_while_before() {
    // A quarter of a second is promised; the rest is for the machine.
    const LOST: Duration = Duration::from_millis(400);
    let mut app = TestApp::start(Backend::Embedded).await;
    let words: Vec<String> = (0..1000).map(|number| format!("{number} ")).collect();
    app.model.usually(Answer::paced(words, Duration::from_millis(30)));
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "count").await;
    let id = stream.started().await;
    let (begun, mut seen) = (Instant::now(), Vec::new());
    while begun.elapsed() < Duration::from_secs(2) {
        let event = stream.next_but_queued().await.unwrap();
        seen.push((Instant::now(), event));
    }
    app.chat_process(0).kill();
    let killed = Instant::now();
    app.restart_chat(0).await;
    let replayed = alice.at(app.chat(0)).resume(&id, 1).await.rest().await;
    let surely = seen.iter().filter(|(at, _)| killed - *at > LOST);
    let surely: Vec<_> = surely.map(|(_, event)| event.clone()).collect();
    assert!(surely.len() > 20, "{} events", surely.len());
    assert_eq!(replayed.get(..surely.len()), Some(&surely[..]));
    replayed.last().unwrap().expect_error(503, "interrupted");
}

/// The first try times out waiting for the replica, the second one finds the turn: that must count no sooner than the replica has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_acknowledged_only_once_a_frozen_replica_has_it() {
    let fsync = ["--appendonly", "yes", "--appendfsync", "always"];
    let master = RedisServer::start(&fsync);
    let replica = RedisServer::start(&["--replicaof", &format!("127.0.0.1 {}", master.port())]);
    wait_until(PATIENCE, "the replica follows", || {
        master.tell("INFO replication").contains("state=online")
    });
    let app = TestApp::builder(Backend::Redis).set("store.url", master.url());
    let app = app.set("store.durability", "replicated").start().await;
    app.model.usually(Answer::tokens(["yes"]).done("stop"));
    master.tell("CONFIG SET appendfsync everysec");
    let warning = ["durability", "appendfsync is everysec", "a check fails in part"];
    app.chat_process(0).log_line(&warning).await;
    master.tell("CONFIG SET appendfsync always");
    let alice = app.login("alice").await;
    alice.say("work", "before").await;
    replica.freeze();
    let turns = ["one", "two", "three", "four"].map(|session| alice.send(session, "frozen"));
    let begun = Instant::now();
    for reply in futures_util::future::join_all(turns).await {
        reply.problem(503, "store_unavailable");
    }
    // A turn that was acknowledged would run, and be refused only when its answer cannot be stored for half a minute.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    replica.thaw();
    let reply = eventually(PATIENCE, "it takes messages again", || async {
        let reply = alice.send("work", "after").await;
        (reply.status == 200).then_some(reply)
    });
    reply.await;
}

//! Reads are bounded by bytes, however long the messages, prompts and answers are.

use std::time::{Duration, Instant};

use redis::Value as Found;
use serde_json::{Value, json};
use tests::{Answer, Backend, Client, Mode, PATIENCE, TestApp, eventually, text_of};

on_both_stores!(
    a_list_of_sessions_is_small_however_long_their_prompts_are,
    pages_and_exports_of_long_messages_are_bounded_and_whole,
    a_long_answer_is_replayed_exactly,
);

/// A character that takes six bytes in JSON.
const WIDE: &str = "\u{1}";

async fn app(on: Backend) -> TestApp {
    TestApp::builder(on).chats(2).set("rate_limit.requests", 100_000).start().await
}

async fn a_list_of_sessions_is_small_however_long_their_prompts_are(on: Backend) {
    const SESSIONS: usize = 100;
    let app = app(on).await;
    let alice = app.login("alice").await;
    let system = WIDE.repeat(32_768);
    for number in 0..SESSIONS {
        let body = json!({"session_id": format!("s{number}"), "system": system});
        alice.post("/chat/sessions", &body).await.expect(201);
    }
    let reply = alice.get("/chat/sessions?limit=500").await;
    let size = reply.text().len();
    assert!(size < 500 * SESSIONS, "{size} bytes");
    let list = reply.expect(200);
    let sessions = list["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), SESSIONS);
    assert!(sessions.iter().all(|session| session.get("system").is_none()), "{}", sessions[0]);
    let one = alice.get("/chat/sessions/s0").await.expect(200);
    assert_eq!(one["system"], system);
}

/// Every message of a session, page by page, and how many bytes the largest page had.
async fn pages(client: &Client, session: &str) -> (Vec<Value>, usize) {
    let base = format!("/chat/sessions/{session}/messages?limit=500");
    let (mut path, mut largest, mut all) = (base.clone(), 0, Vec::new());
    loop {
        let reply = client.get(&path).await;
        largest = largest.max(reply.text().len());
        let page = reply.expect(200);
        all.splice(0..0, page["messages"].as_array().unwrap().clone());
        let Some(cursor) = page["next_cursor"].as_str() else {
            return (all, largest);
        };
        path = format!("{base}&before={cursor}");
    }
}

async fn pages_and_exports_of_long_messages_are_bounded_and_whole(on: Backend) {
    const TURNS: usize = 12;
    let app = app(on).await;
    app.model.usually(Answer::tokens(["yes"]));
    let alice = app.login("alice").await;
    let long = WIDE.repeat(28_000);
    for number in 0..TURNS {
        alice.say("work", &format!("{number} {long}")).await;
    }
    let (messages, largest) = pages(&alice, "work").await;
    assert_eq!(messages.len(), 2 * TURNS);
    assert!(largest < 1 << 20, "a page of {largest} bytes");
    for (position, message) in messages.iter().enumerate() {
        let content = message["content"].as_str().unwrap();
        let is_right = match position % 2 {
            0 => content == format!("{} {long}", position / 2),
            _ => content == "yes",
        };
        assert!(is_right, "message {position}");
    }
    let export = alice.get("/chat/sessions/work/export").await.expect(200);
    assert_eq!(export["messages"].as_array(), Some(&messages));
    // As from an instance that knows nothing of it.
    let elsewhere = alice.at(app.chat(app.instances() - 1));
    assert_eq!(elsewhere.say("work", "hello").await, "yes");
    let asked = app.model.asked("hello").messages();
    let earlier: Vec<&str> = asked.iter().rev().map(|(_, text)| text.as_str()).collect();
    let last = format!("{} {long}", TURNS - 1);
    assert_eq!(earlier.get(..3), Some(&["hello", "yes", &last][..]));
}

async fn a_long_answer_is_replayed_exactly(on: Backend) {
    let app = app(on).await;
    let words: Vec<String> =
        (0..100).map(|number| format!("{number} {}", WIDE.repeat(600))).collect();
    app.model.usually(Answer::tokens(words.clone()));
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "count").await;
    let id = stream.started().await;
    let live = stream.rest().await;
    assert_eq!(text_of(&live), words.concat());
    let elsewhere = alice.at(app.chat(app.instances() - 1));
    let replayed = elsewhere.resume(&id, 1).await.rest().await;
    let with_ids = |events: &[tests::Event]| -> Vec<(u64, Value)> {
        let events = events.iter();
        events.map(|event| (event.id, event.data.clone())).collect()
    };
    assert_eq!(with_ids(&replayed), with_ids(&live));
}

/// How many bytes Redis has sent.
async fn sent(app: &TestApp) -> u64 {
    let info = match app.redis().cli(&["INFO", "stats"]).await {
        Found::BulkString(bytes) => String::from_utf8(bytes).unwrap(),
        Found::VerbatimString { text, .. } => text,
        other => panic!("{other:?}"),
    };
    let line = info.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:"));
    line.unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn a_short_message_reads_no_more_of_a_long_history_than_fits_its_window() {
    let app =
        TestApp::builder(Backend::Redis).chats(2).set("rate_limit.requests", 100_000).start().await;
    let alice = app.login("alice").await;
    app.model.answer_to("long", Answer::tokens(["x".repeat(1_000_000)]));
    for number in 0..4 {
        alice.send("work", &format!("long {number}")).await.expect(200);
    }
    app.model.usually(Answer::tokens(["yes"]));
    for number in 0..10 {
        alice.say("work", &format!("{number} {}", WIDE.repeat(6000))).await;
    }
    let elsewhere = alice.at(app.chat(1));
    let before = sent(&app).await;
    elsewhere.say("work", "a short message").await;
    let read = sent(&app).await - before;
    assert!(read < 1 << 20, "{read} bytes");
    let asked = app.model.asked("a short message").messages();
    assert!(asked.len() > 2, "what fits is there");
    alice.send("work", "long again").await.expect(200);
    let before = sent(&app).await;
    elsewhere.say("work", "another short message").await;
    let read = sent(&app).await - before;
    assert!(read < 100_000, "an answer that fits no window: {read} bytes");
}

#[tokio::test]
async fn ids_of_expired_sessions_leave_the_index_without_being_listed() {
    let app = TestApp::builder(Backend::Redis)
        .set("chat.session_ttl", "1s")
        .set("rate_limit.requests", 1000)
        .start()
        .await;
    let alice = app.login("alice").await;
    let create = async |number: usize| {
        let body = json!({"session_id": format!("s{number}")});
        alice.post("/chat/sessions", &body).await.expect(201);
    };
    for number in 0..20 {
        create(number).await;
    }
    eventually(PATIENCE, "all of them expire", || async {
        let sessions = app.redis().cli(&["KEYS", "c:{alice}:0:s:*"]).await;
        (sessions == Found::Array(vec![])).then_some(())
    })
    .await;
    create(20).await;
    create(21).await;
    let left = app.redis().cli(&["ZCARD", "c:{alice}:0:sessions"]).await;
    assert_eq!(left, Found::Int(2));
}

/// What one user reads is read in pieces, and on a connection of its own: nobody's small call or stream waits behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_reads_of_one_user_delay_nobody_else() {
    // A wire on which a page of a long history takes a while, and a small call twice this.
    const PIECE: Duration = Duration::from_millis(15);
    let app = TestApp::builder(Backend::Redis)
        .proxied()
        .set("rate_limit.requests", 100_000)
        .start()
        .await;
    let alice = app.login("alice").await;
    app.model.usually(Answer::tokens(["yes"]));
    for number in 0..30 {
        alice.say("work", &format!("{number} {}", WIDE.repeat(28_000))).await;
    }
    app.model.answer_to("count", Answer::endless("word ", Duration::from_millis(50)));
    let bob = app.login("bob").await;
    let mut stream = bob.stream("mine", "count").await;
    stream.started().await;
    app.store_proxy.as_ref().unwrap().set(Mode::Delay(PIECE));
    let readers = (0..8).map(|number| {
        let alice = alice.at(app.chat(0));
        tokio::spawn(async move {
            loop {
                let path = ["export", "messages?limit=500"][number % 2];
                alice.get(&format!("/chat/sessions/work/{path}")).await;
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    let watching = tokio::spawn(async move {
        let (mut longest, mut last) = (Duration::ZERO, Instant::now());
        for _ in 0..100 {
            stream.next_but_queued().await.unwrap();
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        longest
    });
    let mut took = Vec::new();
    while !watching.is_finished() {
        let asked = Instant::now();
        bob.get("/chat/sessions").await.expect(200);
        took.push(asked.elapsed());
    }
    readers.iter().for_each(tokio::task::JoinHandle::abort);
    took.sort_unstable();
    let (usual, longest) = (took[took.len() / 2], watching.await.unwrap());
    eprintln!("a list took {usual:?}, a token {longest:?} at most");
    assert!(usual < PIECE * 20, "a list took {usual:?}");
    assert!(longest < Duration::from_secs(1), "a token took {longest:?}");
}

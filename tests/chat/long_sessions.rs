//! A session of 100,000 messages is as quick as a short one.

use std::time::{Duration, Instant};

use redis::Value as Found;
use serde_json::Value;
use tests::{Backend, Client, TestApp};

const MESSAGES: usize = 100_000;

#[tokio::test]
async fn a_hundred_thousand_messages_cost_no_more_than_two() {
    let app = TestApp::start(Backend::Redis).await;
    let alice = app.login("alice").await;
    for session in ["short", "long"] {
        alice.say(session, "hello").await;
    }
    let content = |position: usize| format!("message {position}");
    fill(&app, "long", MESSAGES, content).await;
    let count = alice.get("/chat/sessions/long").await.expect(200)["message_count"].clone();
    assert_eq!(count, MESSAGES);
    // Twice, so that neither pays for being the first.
    for session in ["short", "long", "short"] {
        median(&alice, session).await;
    }
    let before = app.chat_process(0).memory();
    let (long, short) = (median(&alice, "long").await, median(&alice, "short").await);
    assert!(
        long < 5 * short + Duration::from_millis(20),
        "a turn takes {long:?} in a long session, {short:?} in a short one"
    );
    let start = Instant::now();
    let middle = alice.get("/chat/sessions/long/messages?limit=2&before=50000").await.expect(200);
    assert_eq!(middle["messages"][1]["content"], "message 49999");
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    let grown = app.chat_process(0).memory().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
}

#[tokio::test]
async fn a_page_of_long_messages_ends_before_its_limit_and_the_next_goes_on() {
    const LONG: usize = 300 * 1024;
    let app = TestApp::start(Backend::Redis).await;
    let alice = app.login("alice").await;
    alice.say("long", "hello").await;
    let content = |position: usize| format!("message {position} {}", "y".repeat(LONG));
    fill(&app, "long", 150, content).await;
    let (mut path, mut pages) = ("/chat/sessions/long/messages?limit=500".to_owned(), 0);
    let mut told = Vec::new();
    loop {
        let page = alice.get(&path).await.expect(200);
        let messages = page["messages"].as_array().unwrap();
        assert!(messages.len() * LONG < 64 << 20, "{} messages", messages.len());
        let words = messages.iter().map(|message| {
            let words: Vec<&str> = message["content"].as_str().unwrap().split(' ').collect();
            words.get(..2).map_or(String::new(), |words| words.join(" "))
        });
        told.splice(0..0, words);
        pages += 1;
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("/chat/sessions/long/messages?limit=500&before={cursor}");
    }
    assert!(pages > 1, "45 MB in one page");
    let whole: Vec<String> = (2..150).map(|position| format!("message {position}")).collect();
    assert_eq!(told.get(2..), Some(&whole[..]));
    let export = alice.get("/chat/sessions/long/export").await.expect(200);
    assert_eq!(export["messages"].as_array().unwrap().len(), 150);
}

/// How long a message and a look at the newest page take, in the middle of some.
async fn median(client: &Client, session: &str) -> Duration {
    let mut times = Vec::new();
    for _ in 0..15 {
        let start = Instant::now();
        client.say(session, "go on").await;
        let path = format!("/chat/sessions/{session}/messages?limit=20");
        client.get(&path).await.expect(200);
        times.push(start.elapsed());
    }
    times.sort();
    times[times.len() / 2]
}

/// Makes the session as long as if its first turn had been repeated.
async fn fill(app: &TestApp, session: &str, messages: usize, content: impl Fn(usize) -> String) {
    let key = format!("c:{{alice}}:0:m:{session}");
    let Found::Array(found) = app.redis().cli(&["LRANGE", &key, "0", "-1"]).await else {
        panic!("no messages");
    };
    let records: Vec<Value> = found
        .iter()
        .map(|item| match item {
            Found::BulkString(bytes) => serde_json::from_slice(bytes).unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    let at = |record: &Value, position: usize| {
        let id = record["id"].as_str().unwrap();
        let parts: Vec<&str> = id.split('-').collect();
        format!("{}-{position}-{}", parts[0], parts[2])
    };
    let lines: Vec<String> = (2..messages)
        .map(|position| {
            let mut record = records[position % 2].clone();
            record["id"] = at(&record, position).into();
            record["content"] = content(position).into();
            if position % 2 == 1 {
                record["reply_to"] = at(&records[0], position - 1).into();
            }
            record.to_string()
        })
        .collect();
    for chunk in lines.chunks(2000) {
        let mut command = vec!["RPUSH", &key];
        command.extend(chunk.iter().map(String::as_str));
        app.redis().cli(&command).await;
    }
}

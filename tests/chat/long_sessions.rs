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
    fill(&app, "long").await;
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
    let middle = alice
        .get("/chat/sessions/long/messages?limit=2&before=50000")
        .await
        .expect(200);
    assert_eq!(middle["messages"][1]["content"], "message 49999");
    assert!(
        start.elapsed() < Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
    let grown = app.chat_process(0).memory().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
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
async fn fill(app: &TestApp, session: &str) {
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
    let lines: Vec<String> = (2..MESSAGES)
        .map(|position| {
            let mut record = records[position % 2].clone();
            record["id"] = at(&record, position).into();
            record["content"] = format!("message {position}").into();
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

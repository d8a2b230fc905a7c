//! Readers of answers that another instance generates.

use std::time::Duration;

use redis::Value as Found;
use serde_json::json;
use tests::{
    Answer, Backend, EventStream, Gate, PATIENCE, RedisOptions, TestApp, eventually, text_of,
};

async fn two() -> TestApp {
    TestApp::builder(Backend::Redis).chats(2).start().await
}

/// How many commands Redis has processed.
async fn commands(app: &TestApp) -> u64 {
    let info = match app.redis().cli(&["INFO", "stats"]).await {
        Found::BulkString(bytes) => String::from_utf8(bytes).unwrap(),
        Found::VerbatimString { text, .. } => text,
        other => panic!("{other:?}"),
    };
    let line = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
    line.unwrap().trim().parse().unwrap()
}

/// Commands in 4 s.
async fn rate(app: &TestApp) -> u64 {
    let before = commands(app).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    commands(app).await - before
}

#[tokio::test]
async fn three_hundred_watchers_elsewhere_add_fewer_commands_than_one_a_second_each() {
    const WATCHERS: usize = 300;
    let app = TestApp::builder(Backend::Redis)
        .chats(2)
        .set("rate_limit.requests", 100_000)
        .set("llm.ollama.max_concurrency", WATCHERS)
        .set("server.max_connections_per_address", 5000)
        .start()
        .await;
    app.model.usually(Answer::endless("word ", Duration::from_millis(500)));
    let alice = app.login("alice").await;
    let mut streams: Vec<EventStream> = Vec::new();
    let mut ids = Vec::new();
    for number in 0..WATCHERS {
        let mut stream = alice.stream(&format!("s{number}"), "go").await;
        ids.push(stream.started().await);
        streams.push(stream);
    }
    let alone = rate(&app).await;
    let elsewhere = alice.at(app.chat(1));
    let mut watching = Vec::new();
    for id in &ids {
        watching.push(elsewhere.resume(id, 1).await);
    }
    for watch in &mut watching {
        let event = watch.next_but_queued().await.unwrap();
        assert_eq!(event.data["token"], "word ", "{event:?}");
    }
    let watched = rate(&app).await;
    let added = watched.saturating_sub(alone) / 4;
    eprintln!("{alone} commands in 4 s without watchers, {watched} with them");
    assert!(added < WATCHERS as u64, "{added} commands a second");
}

#[tokio::test]
async fn a_reader_elsewhere_sees_tokens_soon_and_the_ending_at_once() {
    let app = two().await;
    let gate = Gate::new();
    let words: Vec<String> = (0..20).map(|number| format!("{number} ")).collect();
    app.model.answer_to("count", Answer::gated(words.clone(), &gate));
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "count").await;
    let id = stream.started().await;
    let mut watch = alice.at(app.chat(1)).resume(&id, 1).await;
    for word in &words[..5] {
        gate.release(1);
        let event = watch.next_within(Duration::from_secs(2)).await.unwrap();
        assert_eq!(event.data["token"].as_str(), Some(word.as_str()));
    }
    gate.open();
    let rest = watch.rest().await;
    assert_eq!(text_of(&rest), words[5..].concat());
    rest.last().unwrap().expect_done("stop");
    let all = stream.rest().await;
    assert_eq!(all.last().unwrap().id, rest.last().unwrap().id);
}

#[tokio::test]
async fn a_reader_elsewhere_never_gets_a_shortened_answer_where_the_store_has_lost_events() {
    let app = two().await;
    let gate = Gate::new();
    let words: Vec<String> = (0..12).map(|number| format!("{number} ")).collect();
    app.model.answer_to("count", Answer::gated(words.clone(), &gate));
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "count").await;
    let id = stream.started().await;
    let mut watch = alice.at(app.chat(1)).resume(&id, 1).await;
    gate.release(1);
    watch.next().await.unwrap();
    // What the other instance is told while it cannot read is lost, and with it a part of the log: an older Redis came back.
    app.chat_process(1).freeze();
    gate.release(5);
    for _ in 0..6 {
        stream.next_but_queued().await.unwrap();
    }
    let key = format!("c:{{alice}}:0:e:{id}");
    eventually(PATIENCE, "the events are stored", || async {
        let batches = app.redis().cli(&["LLEN", &key]).await;
        matches!(batches, Found::Int(3..)).then_some(())
    })
    .await;
    app.redis().cli(&["LTRIM", &key, "0", "1"]).await;
    let lose = "for _, key in ipairs(redis.call('KEYS', 'c:*inbox')) do redis.call('DEL', key) end";
    app.redis().cli(&["EVAL", lose, "0"]).await;
    app.chat_process(1).thaw();
    gate.open();
    let rest = watch.rest().await;
    let restart = rest.iter().rposition(|event| event.kind == "start");
    let after = &rest[restart.expect("it begins anew")..];
    assert_eq!(after[0].data["reset"], true, "{after:?}");
    assert_eq!(text_of(after), words.concat());
    after.last().unwrap().expect_done("stop");
}

#[tokio::test]
async fn a_frozen_store_cancels_nothing_that_somebody_watches_elsewhere() {
    let app = two().await;
    let gate = Gate::new();
    app.model.answer_to("count", Answer::gated(["one ", "two"], &gate));
    let alice = app.login("alice").await;
    let body = json!({"session_id": "work", "message": "count", "on_disconnect": 1});
    let mut stream = alice.stream_body(&body).await;
    let id = stream.started().await;
    let mut watch = alice.at(app.chat(1)).resume(&id, 0).await;
    watch.next().await.unwrap();
    drop(stream);
    tokio::time::sleep(Duration::from_millis(500)).await;
    app.redis().freeze();
    tokio::time::sleep(Duration::from_millis(3500)).await;
    app.redis().thaw();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(app.model.open(), 1, "somebody watches");
    gate.open();
    watch.ending().await.expect_done("stop");
}

#[tokio::test]
async fn what_readers_were_told_stays_true_where_the_store_was_frozen_for_longer_than_a_finish_waits()
 {
    let options = RedisOptions { durable: true, ..RedisOptions::default() };
    let app = TestApp::builder(Backend::Redis).chats(2).redis(options).start().await;
    let gate = Gate::new();
    app.model.answer_to("count", Answer::gated(["one ", "two"], &gate));
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "count").await;
    let id = stream.started().await;
    gate.release(1);
    stream.next_but_queued().await.unwrap();
    app.redis().freeze();
    gate.open();
    let token = stream.next().await.unwrap();
    assert_eq!(token.data["token"], "two");
    let told = stream.next_within(Duration::from_secs(45)).await.unwrap();
    told.expect_error(503, "store_unavailable");
    app.redis().thaw();
    for chat in [1, 0] {
        let there = alice.at(app.chat(chat));
        eventually(PATIENCE, "the service is back", || async {
            (there.get("/chat/sessions").await.status == 200).then_some(())
        })
        .await;
        let ending = there.resume(&id, 0).await.ending().await;
        ending.expect_error(503, "interrupted");
        let history = there.history("work").await;
        assert_eq!(history[1]["finish_reason"], "interrupted", "{history:?}");
    }
    assert_eq!(alice.say("work", "go on").await, "You said: go on");
}

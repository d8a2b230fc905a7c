//! A Redis that is there but not as it should be: slow, full, forgetful, demoted, late, damaged.

use std::time::Duration;
use tests::{Backend, Mode, TestApp, eventually};

#[tokio::test]
async fn a_slow_redis_is_not_a_dead_one() {
    let app = TestApp::builder(Backend::Redis).proxied().start().await;
    let alice = app.login("alice").await;
    app.store_proxy.as_ref().unwrap().set(Mode::Delay(Duration::from_millis(40)));
    for number in 0..5 {
        alice.say("work", &format!("{number}")).await;
    }
    assert_eq!(alice.history("work").await.len(), 10);
}

#[tokio::test]
async fn a_full_redis_refuses_messages_and_lets_read() {
    let app = TestApp::start(Backend::Redis).await;
    let alice = app.login("alice").await;
    alice.say("work", "before").await;
    app.redis().cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    alice.send("work", "during").await.problem(503, "store_full");
    assert_eq!(alice.history("work").await.len(), 2, "reading goes on");
    alice.send("begun-now", "during").await.problem(503, "store_full");
    alice.post("/chat/sessions", &serde_json::json!({})).await.problem(503, "store_full");
    app.redis().cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    alice.say("work", "after").await;
    let texts: Vec<String> = alice.talk("work").await.into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["before", "You said: before", "after", "You said: after"]);
}

#[tokio::test]
async fn services_start_before_redis_and_are_ready_soon_after_it() {
    let app = TestApp::start(Backend::Redis).await;
    let redis = app.redis();
    redis.kill();
    let mut app = app;
    let number = app.start_chat().await;
    let late = app.stranger().at(app.chat(number));
    assert_eq!((late.get("/livez").await.status, late.get("/readyz").await.status), (200, 503));
    app.redis().restart().await;
    eventually(Duration::from_secs(3), "it is ready", || async {
        (late.get("/readyz").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn scripts_that_redis_has_forgotten_are_sent_again() {
    let app = TestApp::start(Backend::Redis).await;
    let alice = app.login("alice").await;
    alice.say("work", "one").await;
    app.redis().cli(&["SCRIPT", "FLUSH"]).await;
    alice.say("work", "two").await;
    app.login("bob").await;
}

#[tokio::test]
async fn a_demoted_redis_is_refused_and_a_promoted_one_taken() {
    let app = TestApp::start(Backend::Redis).await;
    let alice = app.login("alice").await;
    alice.say("work", "before").await;
    app.redis().cli(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let refused = alice.send("work", "during").await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    app.redis().cli(&["REPLICAOF", "NO", "ONE"]).await;
    eventually(Duration::from_secs(3), "messages are taken again", || async {
        (alice.send("work", "after").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_key_whose_record_cannot_be_read_is_refused_at_once() {
    let app = TestApp::start(Backend::Redis).await;
    let alice = app.login("alice").await;
    let once = || {
        let body = serde_json::json!({"session_id": "work", "message": "once"});
        let request = alice.request(reqwest::Method::POST, "/chat/message");
        alice.fetch(request.header("idempotency-key", "key").json(&body))
    };
    once().await.expect(200);
    let redis::Value::Array(keys) = app.redis().cli(&["KEYS", "c:*:k:*"]).await else {
        panic!("no list of keys");
    };
    let [redis::Value::BulkString(name)] = &keys[..] else {
        panic!("one key is remembered: {keys:?}");
    };
    let name = String::from_utf8(name.clone()).unwrap();
    for record in ["garbage", "{\"v\":9}"] {
        app.redis().cli(&["SET", &name, record]).await;
        let begun = std::time::Instant::now();
        once().await.problem(500, "internal");
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(alice.history("work").await.len(), 2);
    alice.say("work", "another").await;
}

#[tokio::test]
async fn one_damaged_record_does_not_hide_the_others() {
    let app = TestApp::start(Backend::Redis).await;
    let alice = app.login("alice").await;
    for number in 0..3 {
        alice.say("work", &format!("{number}")).await;
    }
    let damaged = damage_second_record(&app).await;
    assert!(damaged, "the history is a Redis list");
    let history = alice.get("/chat/sessions/work/messages").await.expect(200);
    assert!(history["messages"].as_array().unwrap().len() >= 4, "{history}");
    alice.say("work", "still alive").await;
}

async fn damage_second_record(app: &TestApp) -> bool {
    let redis::Value::Array(keys) = app.redis().cli(&["KEYS", "c:*"]).await else {
        return false;
    };
    for key in keys {
        let redis::Value::BulkString(name) = key else {
            continue;
        };
        let name = String::from_utf8(name).unwrap();
        let is_list = app.redis().cli(&["TYPE", &name]).await
            == redis::Value::SimpleString("list".to_owned());
        if is_list && app.redis().cli(&["LLEN", &name]).await == redis::Value::Int(6) {
            app.redis().cli(&["LSET", &name, "1", "{\"v\":1,\"torn"]).await;
            return true;
        }
    }
    false
}

//! What turns hold of a day's quota: it comes back, and is paid for, whatever happens to their sessions and instances.

use redis::Value as Found;
use serde_json::{Value, json};
use tests::{Answer, Backend, Client, Gate, PATIENCE, TestApp, eventually};

on_both_stores!(a_session_deleted_just_before_the_end_is_paid_for);

const QUOTA: u64 = 3000;

/// Prompt tokens, completion tokens, and what is left of the quota.
async fn spent(client: &Client) -> (u64, u64, u64) {
    let usage = client.get("/chat/usage").await.expect(200);
    let number = |value: &Value| value.as_u64().unwrap();
    let (today, left) = (&usage["today"], &usage["quota"]["left"]);
    (number(&today["prompt_tokens"]), number(&today["completion_tokens"]), number(left))
}

/// Waits until nothing is held any more.
async fn settled(client: &Client) -> (u64, u64) {
    eventually(PATIENCE, "nothing is held", || async {
        let (prompt, completion, left) = spent(client).await;
        (left + prompt + completion == QUOTA).then_some((prompt, completion))
    })
    .await
}

async fn a_session_deleted_just_before_the_end_is_paid_for(on: Backend) {
    let app = TestApp::builder(on).set("rate_limit.tokens_per_day", QUOTA).start().await;
    let words: Vec<String> = (0..50).map(|number| format!("{number} ")).collect();
    app.model.usually(Answer::partial(words).hang());
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "count").await;
    stream.started().await;
    for _ in 0..50 {
        stream.next_but_queued().await.unwrap();
    }
    assert_eq!(alice.delete("/chat/sessions/work").await.status, 204);
    stream.ending().await.expect_error(404, "session_not_found");
    let (prompt, completion) = settled(&alice).await;
    assert!(prompt > 0 && (50..60).contains(&completion), "{prompt} and {completion}");
}

#[tokio::test]
async fn what_a_turn_of_a_dead_instance_held_is_free_though_nobody_looks_at_its_session() {
    let app = TestApp::builder(Backend::Redis)
        .chats(2)
        .set("rate_limit.tokens_per_day", QUOTA)
        .set("chat.lease", "2s")
        .start()
        .await;
    app.model.usually(Answer::partial(["one "]).hang());
    let alice = app.login("alice").await;
    let body = |session: &str| json!({"session_id": session, "message": "count", "options": {"max_tokens": 2500}});
    let mut stream = alice.stream_body(&body("work")).await;
    stream.started().await;
    stream.next_but_queued().await.unwrap();
    let there = alice.at(app.chat(1));
    let (.., left) = spent(&there).await;
    assert!(left < 500, "{left}");
    app.chat_process(0).kill();
    let (prompt, completion) = settled(&there).await;
    assert!(prompt > 0 && prompt < 100 && completion == 0, "{prompt} and {completion}");
    app.model.usually(Answer::echo());
    there.post("/chat/message", &body("other")).await.expect(200);
}

/// The counters of a day are gone where Redis lost them, or a day long past has expired: a turn that was accepted before must not
/// begin new ones below zero, which nothing would ever take away.
#[tokio::test]
async fn a_turn_of_a_day_that_is_gone_begins_no_counter_below_zero() {
    let app =
        TestApp::builder(Backend::Redis).set("rate_limit.tokens_per_day", QUOTA).start().await;
    let gate = Gate::new();
    app.model.usually(Answer::partial(["one "]).gate(&gate).token("two").done("stop"));
    let alice = app.login("alice").await;
    let mut streams = Vec::new();
    for session in ["deleted", "finished"] {
        let body = json!({"session_id": session, "message": "go", "options": {"max_tokens": 1000}});
        let mut stream = alice.stream_body(&body).await;
        stream.started().await;
        stream.next_but_queued().await.unwrap();
        streams.push(stream);
    }
    let lose =
        "for _, key in ipairs(redis.call('KEYS', 'c:{alice}:0:u:*')) do redis.call('DEL', key) end";
    app.redis().cli(&["EVAL", lose, "0"]).await;
    assert_eq!(alice.delete("/chat/sessions/deleted").await.status, 204);
    gate.open();
    streams[0].ending().await.expect_error(404, "session_not_found");
    streams[1].ending().await.expect_done("stop");
    eventually(PATIENCE, "nothing is held", || async {
        let leases = "return #redis.call('KEYS', 'c:{alice}:0:l:*')";
        let held = app.redis().cli(&["EVAL", leases, "0"]).await;
        (held == Found::Int(0)).then_some(())
    })
    .await;
    let counters = "local all = {} for _, key in ipairs(redis.call('KEYS', 'c:{alice}:0:u:*')) do \
         for _, value in ipairs(redis.call('HVALS', key)) do table.insert(all, value) end \
         if redis.call('TTL', key) < 0 then table.insert(all, 'without expiry') end end return table.concat(all, ' ')";
    let Found::BulkString(found) = app.redis().cli(&["EVAL", counters, "0"]).await else {
        panic!("no text");
    };
    let found = String::from_utf8(found).unwrap();
    assert!(!found.contains('-') && !found.contains("without"), "{found}");
    alice.say("more", "go").await;
}

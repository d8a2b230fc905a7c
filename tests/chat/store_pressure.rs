//! A Redis under pressure: a full disk, foreign and damaged records, a slow wire, connections cut again and again.

use std::time::{Duration, Instant};

use redis::Value;
use serde_json::json;
use tests::{Auditor, Backend, Client, Mode, PATIENCE, RedisOptions, TestApp, eventually};

#[tokio::test]
async fn a_full_disk_refuses_messages_and_lets_read() {
    let options = RedisOptions {
        configuration: "appendonly yes\nappendfsync everysec\nauto-aof-rewrite-percentage 0\n"
            .into(),
        file_limit: Some(256 * 1024),
        ..RedisOptions::default()
    };
    let app = TestApp::builder(Backend::Redis).redis(options).start().await;
    let (alice, auditor) = (app.login("alice").await, Auditor::new());
    let long = "x".repeat(8000);
    let mut refused = None;
    for number in 0..200 {
        let message = format!("{number} {long}");
        let reply = alice.send("work", &message).await;
        if reply.status != 200 {
            refused = Some(reply);
            break;
        }
        let answer = reply.json()["reply"].as_str().unwrap().to_owned();
        auditor.acknowledge("work", &message, &answer);
    }
    let refused = refused.expect("the disk is full in the end");
    assert_eq!(refused.status, 503, "{}", refused.text());
    eventually(PATIENCE, "it is said to be full", || async {
        let reply = alice.send("other", "during").await;
        (reply.json()["code"] == "store_full").then_some(())
    })
    .await;
    assert!(!alice.history("work").await.is_empty(), "reading goes on");
    app.redis().give_room();
    eventually(PATIENCE, "messages are taken again", || async {
        (alice.send("other", "after").await.status == 200).then_some(())
    })
    .await;
    auditor.check(&alice).await;
}

/// The key of the only list with so many items.
async fn list_of(app: &TestApp, items: i64) -> String {
    let Value::Array(keys) = app.redis().cli(&["KEYS", "c:*"]).await else { panic!("no keys") };
    for key in keys {
        let Value::BulkString(name) = key else {
            continue;
        };
        let name = String::from_utf8(name).unwrap();
        let kind = app.redis().cli(&["TYPE", &name]).await;
        if kind == Value::SimpleString("list".to_owned())
            && app.redis().cli(&["LLEN", &name]).await == Value::Int(items)
        {
            return name;
        }
    }
    panic!("no list of {items} items");
}

#[tokio::test]
async fn damaged_and_foreign_records_are_left_out_and_counted() {
    let app = TestApp::start(Backend::Redis).await;
    let alice = app.login("alice").await;
    for number in 0..6 {
        alice.say("work", &format!("number {number}")).await;
    }
    let list = list_of(&app, 12).await;
    let huge = format!("{{\"v\":1,\"content\":\"{}\"}}", "x".repeat(10 * 1024 * 1024));
    for (at, damage) in [
        ("0", "{\"v\":1,\"id\":\"torn"),
        ("2", "{\"v\":999,\"what\":\"from the future\"}"),
        ("4", huge.as_str()),
        ("6", "\u{1}\u{2}not json at all"),
    ] {
        app.redis().cli(&["LSET", &list, at, damage]).await;
    }
    app.redis().cli(&["RPUSH", &list, "pushed by somebody else"]).await;
    let history = alice.get("/chat/sessions/work/messages").await.expect(200);
    let texts: Vec<_> = history["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["content"].as_str().unwrap().to_owned())
        .collect();
    for kept in ["You said: number 0", "number 4", "number 5", "You said: number 5"] {
        assert!(texts.iter().any(|text| text == kept), "{kept} is missing in {texts:?}");
    }
    alice.get("/chat/sessions/work/export").await.expect(200);
    alice.get("/chat/sessions/work").await.expect(200);
    assert_eq!(alice.say("work", "still alive").await, "You said: still alive");
    let metrics = app.stranger().at(app.chat_admin(0)).get("/metrics").await;
    let skipped = metrics
        .text()
        .lines()
        .find_map(|line| line.strip_prefix("history_records_skipped_total ")?.parse::<u64>().ok());
    assert!(skipped.unwrap_or(0) >= 5, "{skipped:?}");
}

async fn five_messages(alice: &Client, session: &str) -> Duration {
    let start = Instant::now();
    for number in 0..5 {
        alice.say(session, &format!("{number}")).await;
    }
    start.elapsed() / 5
}

#[tokio::test]
async fn a_slow_wire_makes_calls_slower_and_no_call_fails() {
    let app = TestApp::builder(Backend::Redis).proxied().start().await;
    let alice = app.login("alice").await;
    let wire = app.store_proxy.as_ref().unwrap();
    for (delay, session) in [(20, "slow"), (60, "slower")] {
        wire.set(Mode::Delay(Duration::from_millis(delay)));
        let each = five_messages(&alice, session).await;
        assert!(each < Duration::from_secs(3), "{delay} ms: {each:?}");
    }
    // Beyond the budget every call ends, and in time.
    wire.set(Mode::Delay(Duration::from_millis(1500)));
    for _ in 0..3 {
        let start = Instant::now();
        let reply = alice.send("late", "x").await;
        assert_eq!(reply.status, 503, "{}", reply.text());
        assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    }
    wire.set(Mode::Pass);
    eventually(Duration::from_secs(5), "it is quick again", || async {
        (alice.send("back", "x").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn messages_that_wait_on_their_socket_for_each_other_are_not_late() {
    let app = TestApp::builder(Backend::Redis).proxied().start().await;
    let alice = app.login("alice").await;
    let mut socket = alice.socket().await;
    let wire = app.store_proxy.as_ref().unwrap();
    wire.set(Mode::Delay(Duration::from_millis(40)));
    let sessions: Vec<String> = (0..30).map(|number| format!("s{number}")).collect();
    for session in &sessions {
        let message = json!({"session_id": session, "message": "hello", "ref": session});
        socket.send(&message).await;
    }
    for session in &sessions {
        let start = socket.with_ref(session).await;
        assert_eq!(start["type"], "start", "{start}");
    }
}

#[tokio::test]
async fn connections_killed_every_second_cost_nothing_and_do_not_pile_up() {
    let app = TestApp::start(Backend::Redis).await;
    let (alice, auditor) = (app.login("alice").await, Auditor::new());
    let start = Instant::now();
    let (mut killed, mut number, mut refused) = (0, 0, 0);
    // A longer run: TEST_CONNECTION_KILL_SECONDS=60 cargo test … connections_killed
    let told = std::env::var("TEST_CONNECTION_KILL_SECONDS");
    let seconds = told.map_or(8, |text| text.parse().unwrap());
    while start.elapsed() < Duration::from_secs(seconds) {
        if start.elapsed().as_secs() >= killed {
            app.redis().cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
            killed += 1;
        }
        let message = format!("message {number}");
        let reply = alice.send("work", &message).await;
        match reply.status {
            200 => auditor.acknowledge("work", &message, reply.json()["reply"].as_str().unwrap()),
            409 | 503 => refused += 1,
            other => panic!("{other}: {}", reply.text()),
        }
        number += 1;
    }
    assert!(refused * 10 < number, "{refused} of {number} were refused");
    auditor.check(&alice).await;
    let clients = app.redis().cli(&["CLIENT", "LIST"]).await;
    let text = format!("{clients:?}");
    assert!(text.matches("addr=").count() / 2 <= 12, "{text}");
}

/// Answers that the wire loses or doubles would otherwise be taken for those to other calls.
#[tokio::test]
async fn answers_lost_or_doubled_on_the_wire_show_nobody_what_is_anothers() {
    const USERS: usize = 12;
    let app = TestApp::builder(Backend::Redis)
        .proxied()
        .set("rate_limit.requests", 100_000)
        .start()
        .await;
    let mut clients = Vec::new();
    for number in 0..USERS {
        let client = app.login(&format!("user{number}")).await;
        client.say("work", &format!("secret-{number}-end")).await;
        clients.push(client);
    }
    app.store_proxy.as_ref().unwrap().set(Mode::Garble(50));
    let asking = clients.iter().enumerate().map(|(number, client)| async move {
        let mut answered = 0;
        for _ in 0..100 {
            for path in ["/chat/sessions", "/chat/sessions/work/messages", "/chat/usage"] {
                let reply = client.get(path).await;
                if reply.status != 200 {
                    assert_eq!(reply.status, 503, "{path}: {}", reply.text());
                    continue;
                }
                answered += 1;
                let text = reply.text();
                let is_own =
                    path == "/chat/usage" || text.contains(&format!("secret-{number}-end"));
                assert!(is_own, "user{number} got {path}: {text}");
            }
        }
        answered
    });
    let answered: usize = futures_util::future::join_all(asking).await.iter().sum();
    assert!(answered > USERS * 10, "{answered} answers");
    app.store_proxy.as_ref().unwrap().set(Mode::Pass);
    for (number, client) in clients.iter().enumerate() {
        eventually(PATIENCE, "the service is back", || async {
            (client.get("/chat/sessions").await.status == 200).then_some(())
        })
        .await;
        assert_eq!(client.talk("work").await[0].1, format!("secret-{number}-end"));
    }
}

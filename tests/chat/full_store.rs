//! A store that is full: whatever takes something away works, so that there can be room again.

use std::{path::Path, time::Duration};

use serde_json::json;
use tests::{Backend, PATIENCE, TestApp, eventually};

on_both_stores!(on_a_full_store_everything_can_be_ended_and_deleted);

/// Lets the store take nothing more.
async fn fill(app: &TestApp) {
    if app.redis.is_some() {
        app.redis().cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
        return;
    }
    let url = app.environment()["CHATBOT__STORE__URL"].clone();
    let folder = Path::new(url.strip_prefix("embedded:").unwrap());
    let size = std::fs::metadata(folder.join("chatbot.redb")).unwrap().len();
    app.chat_process(0).limit_files(Some(size));
}

async fn on_a_full_store_everything_can_be_ended_and_deleted(on: Backend) {
    const SESSIONS: usize = 20;
    let app = TestApp::start(on).await;
    let (alice, leaving, bob) =
        (app.login("alice").await, app.login("alice").await, app.login("bob").await);
    let key = alice.post("/auth/keys", &json!({"name": "laptop"})).await.expect(201);
    let create = async |number: usize| {
        let body = json!({"session_id": format!("s{number}"), "system": "x".repeat(30_000)});
        alice.post("/chat/sessions", &body).await
    };
    for number in 0..SESSIONS {
        create(number).await.expect(201);
    }
    alice.say("work", "before").await;
    bob.say("work", "my secret").await;
    fill(&app).await;
    let mut more = SESSIONS;
    loop {
        let reply = create(more).await;
        if reply.status != 201 {
            reply.problem(503, "store_full");
            break;
        }
        more += 1;
        assert!(more < 2000, "it is never full");
    }
    alice.send("work", "during").await.problem(503, "store_full");
    assert_eq!(alice.talk("work").await[0].1, "before", "reading goes on");
    assert_eq!(leaving.post_empty("/auth/logout").await.status, 204);
    let key = format!("/auth/keys/{}", key["id"].as_str().unwrap());
    assert_eq!(alice.delete(&key).await.status, 204);
    assert_eq!(bob.delete("/auth/account").await.status, 204);
    for number in 0..more {
        let path = format!("/chat/sessions/s{number}");
        let reply = alice.delete(&path).await;
        assert_eq!(reply.status, 204, "{path}: {}", reply.text());
    }
    if app.redis.is_some() {
        eventually(Duration::from_secs(6), "the account is erased", || async {
            (!app.redis().dump().await.contains("my secret")).then_some(())
        })
        .await;
        app.redis().cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    }
    // On the embedded store the disk is as full as before: the room is that of what was deleted.
    eventually(PATIENCE, "there is room", || async {
        (alice.send("work", "after").await.status == 200).then_some(())
    })
    .await;
    app.login("bob").await.get("/chat/sessions/work").await.problem(404, "session_not_found");
}

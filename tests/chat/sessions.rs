//! Sessions: made, named, listed page by page, exported, deleted.

use serde_json::{Value, json};
use tests::{Answer, Backend, Gate, TestApp};

on_both_stores!(
    a_session_is_made_changed_and_deleted,
    a_first_message_makes_session_and_title,
    sessions_are_listed_newest_first_page_by_page,
    a_history_is_read_page_by_page,
    bad_pages_are_refused,
    an_export_holds_the_whole_session,
    a_session_deleted_while_it_answers_stays_deleted,
    an_unused_session_expires,
    a_full_session_takes_no_more,
    bad_sessions_are_refused_with_pointers,
);

async fn a_session_is_made_changed_and_deleted(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let made = alice
        .post("/chat/sessions", &json!({"session_id": "work", "title": "Mine"}))
        .await
        .expect(201);
    assert_eq!(
        (&made["session_id"], &made["title"], &made["message_count"]),
        (&json!("work"), &json!("Mine"), &json!(0))
    );
    alice
        .post("/chat/sessions", &json!({"session_id": "work"}))
        .await
        .problem(409, "session_exists");
    let changed = alice.patch("/chat/sessions/work", &json!({"title": "Ours"})).await.expect(200);
    let nothing = alice.request(reqwest::Method::PATCH, "/chat/sessions/work");
    assert_eq!(alice.fetch(nothing).await.expect(200)["title"], "Ours");
    assert_eq!(changed["title"], "Ours");
    assert_eq!(alice.get("/chat/sessions/work").await.expect(200)["title"], "Ours");
    let told = |body: &Value| ["title", "model", "system"].map(|name| body[name].clone());
    let change = json!({"model": "gemma3:1b", "system": "Be brief."});
    let set = told(&alice.patch("/chat/sessions/work", &change).await.expect(200));
    assert_eq!(set, [json!("Ours"), json!("gemma3:1b"), json!("Be brief.")]);
    let nulls = json!({"title": null, "model": null, "system": null});
    assert_eq!(told(&alice.patch("/chat/sessions/work", &nulls).await.expect(200)), set);
    let empty = json!({"model": "", "system": ""});
    let cleared = told(&alice.patch("/chat/sessions/work", &empty).await.expect(200));
    assert_eq!(cleared, [json!("Ours"), Value::Null, Value::Null]);
    assert_eq!(alice.history("work").await, Vec::<Value>::new());
    assert_eq!(alice.delete("/chat/sessions/work").await.status, 204);
    alice.get("/chat/sessions/work").await.problem(404, "session_not_found");
    alice.delete("/chat/sessions/work").await.problem(404, "session_not_found");
    let nulls = json!({"session_id": null, "title": null, "model": null, "system": null});
    let named = alice.post("/chat/sessions", &nulls).await.expect(201);
    assert!(!named["session_id"].as_str().unwrap().is_empty(), "an id is made: {named}");
}

async fn a_first_message_makes_session_and_title(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    alice.say("work", "How do I bake bread?").await;
    let session = alice.get("/chat/sessions/work").await.expect(200);
    assert!(session["title"].as_str().unwrap().starts_with("How do I bake"), "{session}");
    assert_eq!(session["message_count"], 2);
    // Whatever the message holds, the title is one that PATCH takes.
    let odd = "\u{1b}[31mred\r\n\u{7}\u{85}\u{9b}alert\u{7f}";
    alice.say("odd", odd).await;
    let title = alice.get("/chat/sessions/odd").await.expect(200)["title"].clone();
    assert_eq!(title, "[31mred alert");
    alice.patch("/chat/sessions/odd", &json!({"title": title})).await.expect(200);
    for member in ["created_at", "updated_at"] {
        assert!(
            session[member].as_str().is_some_and(|time| time.contains('T')),
            "{member} in {session}"
        );
    }
}

async fn sessions_are_listed_newest_first_page_by_page(on: Backend) {
    let app = TestApp::start(on).await;
    let (alice, bob) = (app.login("alice").await, app.login("bob").await);
    for number in 0..5 {
        alice.say(&format!("s{number}"), "hello").await;
    }
    alice.say("s1", "again").await;
    bob.say("other", "hello").await;
    let (mut seen, mut path) = (Vec::new(), "/chat/sessions?limit=2".to_owned());
    loop {
        let page = alice.get(&path).await.expect(200);
        let sessions = page["sessions"].as_array().unwrap();
        assert!(sessions.len() <= 2);
        seen.extend(
            sessions.iter().map(|session| session["session_id"].as_str().unwrap().to_owned()),
        );
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/chat/sessions?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, ["s1", "s4", "s3", "s2", "s0"]);
}

async fn a_history_is_read_page_by_page(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    for number in 0..4 {
        alice.say("work", &format!("{number}")).await;
    }
    let page = alice.get("/chat/sessions/work/messages?limit=3").await.expect(200);
    let contents = |page: &Value| -> Vec<String> {
        page["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["content"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(contents(&page), ["You said: 2", "3", "You said: 3"]);
    let older = format!(
        "/chat/sessions/work/messages?limit=3&before={}",
        page["next_cursor"].as_str().unwrap()
    );
    alice.say("work", "in between").await;
    assert_eq!(contents(&alice.get(&older).await.expect(200)), ["1", "You said: 1", "2"]);
    assert_eq!(alice.history("work").await.len(), 10);
}

async fn bad_pages_are_refused(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    alice.say("work", "hello").await;
    for path in ["/chat/sessions", "/chat/sessions/work/messages"] {
        for limit in ["0", "-1", "501", "1000000000000", "x", ""] {
            alice.get(&format!("{path}?limit={limit}")).await.problem(422, "validation_failed");
        }
        alice.get(&format!("{path}?limit=500")).await.expect(200);
    }
    for cursor in ["garbage", "%00", "-1", "AAAA"] {
        let list = alice.get(&format!("/chat/sessions?cursor={cursor}")).await;
        assert!(matches!(list.status, 400 | 422), "{cursor}: {}", list.status);
        let page = alice.get(&format!("/chat/sessions/work/messages?before={cursor}")).await;
        assert!(matches!(page.status, 400 | 422), "{cursor}: {}", page.status);
    }
}

async fn an_export_holds_the_whole_session(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    for number in 0..120 {
        alice.say("work", &format!("{number}")).await;
    }
    let export = alice.get("/chat/sessions/work/export").await.expect(200);
    assert_eq!(export["messages"].as_array().unwrap().len(), 240);
    assert_eq!(export["messages"][239]["content"], "You said: 119");
}

async fn a_session_deleted_while_it_answers_stays_deleted(on: Backend) {
    let app = TestApp::builder(on).chats(2).start().await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["one ", "two"], &gate));
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "count").await;
    stream.started().await;
    gate.release(1);
    stream.next_but_queued().await.unwrap();
    let there = alice.at(app.chat(app.instances() - 1));
    assert_eq!(there.delete("/chat/sessions/work").await.status, 204);
    gate.open();
    stream.ending().await.expect_error(404, "session_not_found");
    alice.get("/chat/sessions/work").await.problem(404, "session_not_found");
    app.model.usually(Answer::echo());
    alice.say("work", "afresh").await;
    assert_eq!(app.model.asked("afresh").messages().len(), 1);
}

async fn an_unused_session_expires(on: Backend) {
    let app = TestApp::builder(on).set("chat.session_ttl", "2s").start().await;
    let alice = app.login("alice").await;
    alice.say("work", "hello").await;
    tests::eventually(tests::PATIENCE, "the session expires", || async {
        (alice.get("/chat/sessions/work").await.status == 404).then_some(())
    })
    .await;
    let list = alice.get("/chat/sessions").await.expect(200);
    assert_eq!(list["sessions"], json!([]));
    alice.say("work", "afresh").await;
    assert_eq!(app.model.asked("afresh").messages().len(), 1);
}

async fn a_full_session_takes_no_more(on: Backend) {
    let app = TestApp::builder(on).set("chat.max_session_messages", 4).start().await;
    let alice = app.login("alice").await;
    alice.say("work", "one").await;
    alice.say("work", "two").await;
    alice.send("work", "three").await.problem(422, "validation_failed");
    assert_eq!(alice.history("work").await.len(), 4);
}

async fn bad_sessions_are_refused_with_pointers(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    for id in ["", "a b", "a/b", "a:b", "{a}", "*", "ü", "a\r\nb", &"a".repeat(65)] {
        alice.post("/chat/sessions", &json!({"session_id": id})).await.names(&["/session_id"]);
        alice.send(id, "hello").await.names(&["/session_id"]);
    }
    alice.post("/chat/sessions", &json!({"title": "t".repeat(201)})).await.names(&["/title"]);
    alice.post("/chat/sessions", &json!({"title": "ü".repeat(200)})).await.expect(201);
    for id in ["a*", "%7Ba%7D", "a%0d%0ab", "..%2f..%2fetc"] {
        let reply = alice.get(&format!("/chat/sessions/{id}")).await;
        assert!(matches!(reply.status, 404 | 422), "{id}: {}", reply.status);
    }
}

#[tokio::test]
async fn a_deleted_session_leaves_none_of_its_text() {
    let app = TestApp::start(Backend::Redis).await;
    let alice = app.login("alice").await;
    // More than is looked at in one step, and an answer larger than others wait behind.
    for _ in 0..20 {
        alice.say("work", "word-one").await;
    }
    app.model.next(Answer::tokens(["word-two".to_owned(), "x".repeat(100_000)]).done("stop"));
    alice.say("work", "go").await;
    // Its text stands in its events alone: the good answer before it stays.
    app.model.next(Answer::partial(["word-three", " and"]).error("no"));
    alice.post_empty("/chat/sessions/work/regenerate").await.problem(502, "llm_failed");
    app.model.next(Answer::partial(["word-four"]).error("no"));
    alice.send("work", "word-five").await.problem(502, "llm_failed");
    let stored = app.redis().dump().await;
    for word in ["one", "two", "three", "four", "five"] {
        assert!(stored.contains(&format!("word-{word}")), "{word} was stored");
    }
    assert_eq!(alice.delete("/chat/sessions/work").await.status, 204);
    let left = app.redis().dump().await;
    assert!(!left.contains("word-"), "{left}");
}

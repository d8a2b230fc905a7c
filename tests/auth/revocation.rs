//! A token or key that is revoked at `auth` is worth nothing at `chat` within five seconds.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Answer, Backend, Client, Gate, TestApp, eventually};

on_both_stores!(
    a_logout_reaches_calls_streams_and_sockets,
    a_request_that_waits_ends_with_its_login,
    a_logout_of_all_ends_every_login,
    a_deleted_key_opens_nothing,
    a_deleted_account_takes_its_talks_with_it,
    a_new_password_ends_the_other_logins,
);

const LIMIT: Duration = Duration::from_secs(6);

async fn refused_soon(client: &Client) {
    eventually(LIMIT, "the token is refused", || async {
        let reply = client.get("/chat/sessions").await;
        (reply.status == 401).then(|| reply.problem(401, "token_revoked"))
    })
    .await;
}

async fn a_logout_reaches_calls_streams_and_sockets(on: Backend) {
    let app = TestApp::builder(on).chats(2).start().await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["one", "two"], &gate));
    let (alice, second) = (app.login("alice").await, app.login("alice").await);
    let elsewhere = alice.at(app.chat(app.instances() - 1));
    let mut stream = elsewhere.stream("work", "count").await;
    stream.started().await;
    let mut socket = elsewhere.socket().await;
    let mut other = second.socket().await;
    socket.say("other", "count").await;
    let start = Instant::now();
    assert_eq!(alice.post_empty("/auth/logout").await.status, 204);
    alice
        .at_auth()
        .get("/auth/validate")
        .await
        .problem(401, "token_revoked");
    assert_eq!(socket.closed(LIMIT).await.code, 4401);
    while tests::within(LIMIT, "the stream ends", stream.next())
        .await
        .is_some()
    {}
    assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
    refused_soon(&elsewhere).await;
    second.get("/chat/sessions").await.expect(200);
    other.send(&json!({"message": " ", "ref": "r"})).await;
    assert_eq!(
        other.with_ref("r").await["code"],
        "validation_failed",
        "another login goes on"
    );
}

async fn a_request_that_waits_ends_with_its_login(on: Backend) {
    let app = TestApp::builder(on).chats(2).start().await;
    app.model.usually(Answer::partial(["one", " two"]).hang());
    let (alice, leaked) = (app.login("alice").await, app.login("alice").await);
    let there = leaked.at(app.chat(app.instances() - 1));
    let answered = tokio::spawn(async move { leaked.send("a", "who pays?").await });
    eventually(LIMIT, "the model is asked", || async {
        (!app.model.chats().is_empty()).then_some(())
    })
    .await;
    // The second waits for the first, or comes when the login is over: it is refused alike.
    let second = there.clone();
    let waiting = tokio::spawn(async move { second.send("a", "and for this?").await });
    assert_eq!(there.post_empty("/auth/logout").await.status, 204);
    for request in [answered, waiting] {
        let reply = tests::within(LIMIT, "the request ends", request).await;
        reply.unwrap().problem(401, "token_revoked");
    }
    app.model.usually(Answer::tokens(["mine"]));
    let mine = tests::within(
        LIMIT,
        "the session is free again",
        alice.say("a", "and mine?"),
    );
    assert_eq!(mine.await, "mine");
}

async fn a_logout_of_all_ends_every_login(on: Backend) {
    let app = TestApp::start(on).await;
    let (first, second, bob) = (
        app.login("alice").await,
        app.login("alice").await,
        app.login("bob").await,
    );
    assert_eq!(
        first
            .post("/auth/logout", &json!({"all": true}))
            .await
            .status,
        204
    );
    refused_soon(&first).await;
    refused_soon(&second).await;
    bob.get("/chat/sessions").await.expect(200);
    app.login("alice")
        .await
        .get("/chat/sessions")
        .await
        .expect(200);
}

async fn a_deleted_key_opens_nothing(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let made = alice
        .post("/auth/keys", &json!({"name": "laptop"}))
        .await
        .expect(201);
    let key = made["key"].as_str().unwrap();
    assert!(key.starts_with("cbk_"), "{key}");
    let by_key = alice.with_token(key);
    assert_eq!(
        by_key.get("/auth/validate").await.expect(200)["user_id"],
        "alice"
    );
    by_key.say("work", "hello").await;
    assert_eq!(
        alice.history("work").await.len(),
        2,
        "one user, whatever opens the door"
    );
    by_key
        .post("/auth/keys", &json!({"name": "more"}))
        .await
        .problem(403, "forbidden");
    let id = made["id"].as_str().unwrap();
    assert_eq!(alice.delete(&format!("/auth/keys/{id}")).await.status, 204);
    refused_soon(&by_key).await;
    alice.get("/chat/sessions").await.expect(200);
}

async fn a_deleted_account_takes_its_talks_with_it(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    alice.say("work", "my secret").await;
    assert_eq!(alice.delete("/auth/account").await.status, 204);
    refused_soon(&alice).await;
    let next = app.login("alice").await;
    next.get("/chat/sessions/work")
        .await
        .problem(404, "session_not_found");
    assert_eq!(next.say("work", "hello").await, "You said: hello");
    assert_eq!(
        app.model.asked("hello").messages().len(),
        1,
        "the new one sees nothing of the old"
    );
    refused_soon(&alice).await;
    if app.redis.is_some() {
        eventually(LIMIT, "nothing of it is stored", || async {
            keys_with(&app, "my secret").await.is_empty().then_some(())
        })
        .await;
    }
}

/// An instance that has not heard yet, or a message that waits for the turns before it, can write after the erasure.
#[tokio::test]
async fn what_is_written_late_for_a_deleted_account_goes_too() {
    let app = TestApp::start(Backend::Redis).await;
    let alice = app.login("alice").await;
    alice.say("work", "my secret").await;
    let set_aside = "redis.call('COPY', key, 'late:' .. key)";
    let write = "redis.call('RENAME', key, string.sub(key, 6))";
    let run = async |lines: &str, pattern: &str| {
        let script = format!("for _, key in ipairs(redis.call('KEYS', ARGV[1])) do {lines} end");
        app.redis().cli(&["EVAL", &script, "0", pattern]).await
    };
    run(set_aside, "c:{alice}:*").await;
    assert_eq!(alice.delete("/auth/account").await.status, 204);
    let stored = async |pattern: &str| {
        let keys = app.redis().cli(&["KEYS", pattern]).await;
        keys.as_sequence().map_or(0, <[_]>::len)
    };
    eventually(LIMIT, "it is erased", || async {
        (stored("c:{alice}:0:m:*").await == 0).then_some(())
    })
    .await;
    run(write, "late:*").await;
    assert!(!keys_with(&app, "my secret").await.is_empty());
    // A minute passes.
    app.redis()
        .cli(&["ZADD", "c:erased", "XX", "0", "alice:0"])
        .await;
    eventually(LIMIT, "nothing of it is stored", || async {
        let gone = keys_with(&app, "my secret").await.is_empty();
        (gone && stored("c:erased").await == 0).then_some(())
    })
    .await;
}

/// The keys of Redis under which that text stands.
async fn keys_with(app: &TestApp, text: &str) -> Vec<String> {
    let dump = app.redis().dump().await;
    let lines = dump.lines().filter(|line| line.contains(text));
    lines
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect()
}

async fn a_new_password_ends_the_other_logins(on: Backend) {
    let app = TestApp::start(on).await;
    let somebody = app.stranger();
    let account = json!({"user_id": "alice", "password": "correct horse battery"});
    somebody.post("/auth/register", &account).await.expect(201);
    let login = async || {
        let tokens = somebody.post("/auth/login", &account).await.expect(200);
        somebody.with_token(tokens["access_token"].as_str().unwrap())
    };
    let (mine, lost) = (login().await, login().await);
    let change = json!({"current_password": "correct horse battery", "new_password": "battery horse correct"});
    let reply = mine
        .fetch(
            mine.request(reqwest::Method::PUT, "/auth/password")
                .json(&change),
        )
        .await;
    assert_eq!(reply.status, 204, "{}", reply.text());
    refused_soon(&lost).await;
    mine.get("/chat/sessions").await.expect(200);
}

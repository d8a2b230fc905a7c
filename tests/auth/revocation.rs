//! A token or key that is revoked at `auth` is worth nothing at `chat` within five seconds.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Answer, Backend, Client, Gate, Reply, TestApp, completion_of, eventually};

on_both_stores!(
    a_logout_reaches_calls_streams_and_sockets,
    a_request_that_waits_ends_with_its_login,
    nothing_begins_after_a_logout_wherever_it_is_sent,
    another_logins_logout_refuses_nothing,
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
    alice.at_auth().get("/auth/validate").await.problem(401, "token_revoked");
    assert_eq!(socket.closed(LIMIT).await.code, 4401);
    while tests::within(LIMIT, "the stream ends", stream.next()).await.is_some() {}
    assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
    refused_soon(&elsewhere).await;
    second.get("/chat/sessions").await.expect(200);
    other.send(&json!({"message": " ", "ref": "r"})).await;
    assert_eq!(other.with_ref("r").await["code"], "validation_failed", "another login goes on");
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
    let mine = tests::within(LIMIT, "the session is free again", alice.say("a", "and mine?"));
    assert_eq!(mine.await, "mine");
}

/// Asks for an answer, as a turn or as a completion.
async fn ask(client: &Client, is_turn: bool) -> Reply {
    match is_turn {
        true => client.send("work", "hello").await,
        false => client.post("/v1/chat/completions", &completion_of("hello", false)).await,
    }
}

async fn nothing_begins_after_a_logout_wherever_it_is_sent(on: Backend) {
    let app = TestApp::builder(on).chats(2).start().await;
    for is_turn in [true, false] {
        let alice = app.login("alice").await;
        let there = alice.at(app.chat(app.instances() - 1));
        // That instance has read the account just now, and goes by what it read.
        ask(&there, is_turn).await.expect(200);
        let asked = app.model.chats().len();
        assert_eq!(alice.post_empty("/auth/logout").await.status, 204);
        let refused = ask(&there, is_turn).await;
        assert_eq!(refused.status, 401, "{}", refused.text());
        assert!(refused.text().contains("token_revoked"), "{}", refused.text());
        assert_eq!(app.model.chats().len(), asked, "the model is not asked");
    }
    assert_eq!(app.login("alice").await.history("work").await.len(), 2);
}

async fn another_logins_logout_refuses_nothing(on: Backend) {
    let app = TestApp::builder(on).chats(2).start().await;
    let alice = app.login("alice").await.at(app.chat(app.instances() - 1));
    let mut socket = alice.socket().await;
    for is_turn in [true, false] {
        let other = app.login("alice").await;
        ask(&alice, is_turn).await.expect(200);
        assert_eq!(other.post_empty("/auth/logout").await.status, 204);
        ask(&alice, is_turn).await.expect(200);
        let id = socket.say("socket", "hello").await;
        socket.rest_of(&id).await.last().unwrap().expect_done("stop");
    }
}

async fn a_logout_of_all_ends_every_login(on: Backend) {
    let app = TestApp::start(on).await;
    let (first, second, bob) =
        (app.login("alice").await, app.login("alice").await, app.login("bob").await);
    assert_eq!(first.post("/auth/logout", &json!({"all": true})).await.status, 204);
    refused_soon(&first).await;
    refused_soon(&second).await;
    bob.get("/chat/sessions").await.expect(200);
    app.login("alice").await.get("/chat/sessions").await.expect(200);
}

async fn a_deleted_key_opens_nothing(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let made = alice.post("/auth/keys", &json!({"name": "laptop"})).await.expect(201);
    let key = made["key"].as_str().unwrap();
    assert!(key.starts_with("cbk_"), "{key}");
    let by_key = alice.with_token(key);
    assert_eq!(by_key.get("/auth/validate").await.expect(200)["user_id"], "alice");
    by_key.say("work", "hello").await;
    assert_eq!(alice.history("work").await.len(), 2, "one user, whichever credential is used");
    by_key.post("/auth/keys", &json!({"name": "more"})).await.problem(403, "forbidden");
    let id = made["id"].as_str().unwrap();
    assert_eq!(alice.delete(&format!("/auth/keys/{id}")).await.status, 204);
    by_key.send("work", "and now?").await.problem(401, "token_revoked");
    refused_soon(&by_key).await;
    alice.get("/chat/sessions").await.expect(200);
}

async fn a_deleted_account_takes_its_talks_with_it(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    alice.say("work", "my secret").await;
    assert_eq!(alice.delete("/auth/account").await.status, 204);
    alice.send("work", "and now?").await.problem(401, "token_revoked");
    refused_soon(&alice).await;
    let next = app.login("alice").await;
    next.get("/chat/sessions/work").await.problem(404, "session_not_found");
    assert_eq!(next.say("work", "hello").await, "You said: hello");
    assert_eq!(app.model.asked("hello").messages().len(), 1, "the new one sees nothing of the old");
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
    run("redis.call('ZADD', key, 'XX', 0, 'alice:0')", "c:erased:*").await;
    eventually(LIMIT, "nothing of it is stored", || async {
        let gone = keys_with(&app, "my secret").await.is_empty();
        (gone && stored("c:erased:*").await == 0).then_some(())
    })
    .await;
}

/// The sessions of an account are deleted many at a time, and no account waits for another one.
#[tokio::test]
async fn large_accounts_are_erased_soon_and_a_small_one_does_not_wait() {
    let app =
        TestApp::builder(Backend::Redis).chats(2).set("rate_limit.requests", 100_000).start().await;
    let accounts = [("alice", 4000), ("bob", 1000), ("carol", 0)];
    let copy = "for i = 1, tonumber(ARGV[1]) do \
         redis.call('COPY', KEYS[1] .. 's:one', KEYS[1] .. 's:n' .. i) \
         redis.call('COPY', KEYS[1] .. 'm:one', KEYS[1] .. 'm:n' .. i) \
         redis.call('ZADD', KEYS[1] .. 'sessions', i, 'n' .. i) end";
    let mut clients = Vec::new();
    for (user, sessions) in accounts {
        let client = app.login(user).await;
        client.say("one", "my secret").await;
        let base = format!("c:{{{user}}}:0:");
        app.redis().cli(&["EVAL", copy, "1", &base, &sessions.to_string()]).await;
        clients.push(client);
    }
    for client in &clients {
        assert_eq!(client.delete("/auth/account").await.status, 204);
    }
    let begun = Instant::now();
    let erased = async |user: &str| {
        let index = format!("c:{{{user}}}:0:sessions");
        eventually(LIMIT, "it is erased", || async {
            (app.redis().cli(&["EXISTS", &index]).await == redis::Value::Int(0)).then_some(())
        })
        .await;
        begun.elapsed()
    };
    let took = [erased("carol").await, erased("bob").await, erased("alice").await];
    eprintln!("accounts of 1, 1,000 and 4,000 sessions are erased after {took:?}");
    assert!(took[2] < LIMIT, "{took:?}");
    assert!(took[0] < took[2] / 2 + Duration::from_secs(1), "{took:?}");
    assert!(keys_with(&app, "my secret").await.is_empty());
}

/// The keys of Redis under which that text stands.
async fn keys_with(app: &TestApp, text: &str) -> Vec<String> {
    let dump = app.redis().dump().await;
    let lines = dump.lines().filter(|line| line.contains(text));
    lines.filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
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
    lost.say("work", "hello").await;
    let change = json!({"current_password": "correct horse battery", "new_password": "battery horse correct"});
    let reply =
        mine.fetch(mine.request(reqwest::Method::PUT, "/auth/password").json(&change)).await;
    assert_eq!(reply.status, 204, "{}", reply.text());
    lost.send("work", "and now?").await.problem(401, "token_revoked");
    refused_soon(&lost).await;
    mine.get("/chat/sessions").await.expect(200);
}

//! Each service with a Redis user of its own (`deploy/redis-acl.conf`): it may do all that it must, and nothing else.

use std::{path::Path, process::Command, time::Duration};

use serde_json::json;
use tests::{
    Answer, Backend, Client, PATIENCE, Process, RedisOptions, TestApp, eventually, free_port,
};

fn sha256(text: &str) -> String {
    let script = format!("printf %s {text} | sha256sum | cut -d' ' -f1");
    let run = Command::new("sh").args(["-c", &script]).output().unwrap();
    String::from_utf8(run.stdout).unwrap().trim().to_owned()
}

fn configuration() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/redis-acl.conf");
    let text = std::fs::read_to_string(file).unwrap();
    text.replace("AUTH_PASSWORD_SHA256", &sha256("for-auth"))
        .replace("CHAT_PASSWORD_SHA256", &sha256("for-chat"))
        // The test looks after the store.
        .replace("user default off", "")
}

/// `auth` and `chat`, each as its own user, and nobody else on that Redis.
async fn own_users(app: &TestApp) -> (Process, Process, Client) {
    app.auth_process().kill();
    app.chat_process(0).kill();
    let port = free_port();
    let mut environment = app.environment();
    let redis = app.redis().address();
    environment.insert("CHATBOT__AUTH__LISTEN".into(), format!("127.0.0.1:{port}"));
    let url = format!("http://127.0.0.1:{port}");
    environment.insert("CHATBOT__CHAT__AUTH_URL".into(), url);
    let mut as_user = |user: &str| {
        let url = format!("redis://{user}:for-{user}@{redis}/0");
        environment.insert("CHATBOT__STORE__URL".into(), url);
        Process::spawn(user, &[], &environment)
    };
    let (auth, chat) = (as_user("auth"), as_user("chat"));
    let auth_at = auth.address("auth", false).await;
    let chat_at = chat.address("chat", false).await;
    let stranger = Client::stranger(chat_at, auth_at);
    eventually(PATIENCE, "both are ready", || async {
        let chat = stranger.get("/readyz").await.status;
        let auth = stranger.at_auth().get("/readyz").await.status;
        (chat == 200 && auth == 200).then_some(())
    })
    .await;
    (auth, chat, stranger)
}

async fn everything_that_accounts_do(stranger: &Client) {
    let bob = json!({"user_id": "bob", "password": "canary-password-9"});
    stranger.post("/auth/register", &bob).await.expect(201);
    let wrong = json!({"user_id": "bob", "password": "another-word-1"});
    stranger.post("/auth/login", &wrong).await.expect(401);
    let tokens = stranger.post("/auth/login", &bob).await.expect(200);
    let refresh = json!({"refresh_token": tokens["refresh_token"]});
    let tokens = stranger.post("/auth/refresh", &refresh).await.expect(200);
    stranger.post("/auth/refresh", &refresh).await.expect(200);
    let bob = stranger.with_token(tokens["access_token"].as_str().unwrap());
    let key = bob.post("/auth/keys", &json!({"name": "k"})).await.expect(201);
    bob.get("/auth/keys").await.expect(200);
    let by_key = bob.with_token(key["key"].as_str().unwrap());
    by_key.get("/auth/validate").await.expect(200);
    by_key.say("work", "by key").await;
    let path = format!("/auth/keys/{}", key["id"].as_str().unwrap());
    assert_eq!(bob.delete(&path).await.status, 204);
    let change =
        json!({"current_password": "canary-password-9", "new_password": "canary-password-8"});
    let request = bob.request(reqwest::Method::PUT, "/auth/password").json(&change);
    assert_eq!(bob.fetch(request).await.status, 204);
    assert_eq!(bob.post("/auth/logout", &json!({"all": true})).await.status, 204);
}

async fn everything_that_conversations_do(app: &TestApp, alice: &Client) {
    alice.say("work", "canary-text").await;
    alice.stream("work", "streamed").await.rest().await;
    let mut socket = alice.socket().await;
    let id = socket.say("socket", "hello").await;
    socket.rest_of(&id).await;
    alice.resume(&id, 0).await.rest().await;
    let once = json!({"session_id": "once", "message": "x"});
    alice.send_once("key", &once).await.expect(200);
    alice.send_once("key", &once).await.expect(200);
    alice.post_empty("/chat/sessions/work/regenerate").await.expect(200);
    app.model.answer_to("hang", Answer::partial(["half"]).hang());
    let mut stream = alice.stream("cancelled", "hang").await;
    let id = stream.started().await;
    stream.next_but_queued().await.unwrap();
    assert_eq!(alice.cancel(&id).await.status, 202);
    stream.rest().await;
    for path in ["/chat/sessions", "/chat/sessions/work/export", "/chat/usage"] {
        alice.get(path).await.expect(200);
    }
    let title = json!({"title": "t"});
    alice.post("/chat/sessions", &json!({"session_id": "new"})).await.expect(201);
    alice.patch("/chat/sessions/new", &title).await.expect(200);
    assert_eq!(alice.delete("/chat/sessions/new").await.status, 204);
    assert_eq!(alice.history("work").await.len(), 4);
}

#[tokio::test]
async fn each_service_does_its_work_with_a_redis_user_of_its_own() {
    let options = RedisOptions {
        password: Some("for-operators".to_owned()),
        configuration: configuration(),
        ..RedisOptions::default()
    };
    let app = TestApp::builder(Backend::Redis)
        .redis(options)
        .set("chat.session_ttl", "1h")
        .set("llm.ollama.concurrency_scope", "shared")
        .start()
        .await;
    let (_auth, _chat, stranger) = own_users(&app).await;
    everything_that_accounts_do(&stranger).await;
    let alice = stranger.log_in("alice").await;
    everything_that_conversations_do(&app, &alice).await;
    assert_eq!(alice.delete("/auth/account").await.status, 204);
    eventually(Duration::from_secs(15), "alice's words are erased", || async {
        let stored = app.redis().dump().await;
        (!stored.contains("canary-text") && !stored.contains("i:erase")).then_some(())
    })
    .await;
    let refusals = app.redis().cli(&["ACL", "LOG"]).await;
    assert_eq!(refusals, redis::Value::Array(Vec::new()), "something was refused");
}

#[tokio::test]
async fn no_service_may_touch_what_is_not_its_own() {
    let options = RedisOptions {
        password: Some("for-operators".to_owned()),
        configuration: configuration(),
        ..RedisOptions::default()
    };
    let server = tests::Redis::start_with(options).await;
    for (user, commands) in [
        (
            "chat",
            &[
                "GET a:x",
                "SET i:x 1",
                "HSET i:{u}:state gen 9",
                "HSET i:{alice}:state revision 9",
                "KEYS *",
                "FLUSHALL",
                "CONFIG GET dir",
            ][..],
        ),
        ("auth", &["GET c:x", "RPUSH c:x 1", "KEYS *", "FLUSHALL", "CONFIG GET dir", "ACL LIST"]),
    ] {
        let url = format!("redis://{user}:for-{user}@{}/0", server.address());
        let client = redis::Client::open(url).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        for command in commands {
            let mut words = command.split(' ');
            let mut command = redis::cmd(words.next().unwrap());
            command.arg(words.collect::<Vec<_>>());
            let answer: redis::RedisResult<redis::Value> =
                command.query_async(&mut connection).await;
            let error = answer.expect_err("it is refused");
            assert_eq!(error.code(), Some("NOPERM"), "{user}: {error}");
        }
    }
}

//! Instances whose machines' clocks are a minute wrong: time is the store's.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::{Backend, Client, Process, TestApp, eventually, with_wrong_clock};

const ACCESS_TTL: u64 = 3;
const LEEWAY: u64 = 30;
/// Whole seconds on both sides, and a poll of the store's clock.
const SLACK: Duration = Duration::from_secs(3);

/// A service on a machine whose clock is wrong.
async fn wrong(
    service: &str,
    environment: BTreeMap<String, String>,
    by: i64,
) -> (Process, SocketAddr) {
    let process = Process::spawn(service, &[], &with_wrong_clock(environment, by));
    let address = process.address(service, false).await;
    (process, address)
}

/// The status of a call with that token, once the service can tell.
async fn first_answer(client: &Client, path: &str) -> u16 {
    eventually(tests::PATIENCE, "it knows keys and store", || async {
        let status = client.get(path).await.status;
        (status != 503).then_some(status)
    })
    .await
}

/// Waits until a `chat` whose store is frozen has keys. It cannot tell the time, so it refuses no token meanwhile.
async fn knows_keys_alone(client: &Client) {
    eventually(tests::PATIENCE, "it has keys", || async {
        let reply = client.get("/chat/sessions").await;
        reply.problem(503, "store_unavailable");
        let ready = client.get("/readyz").await.json();
        (ready["checks"]["keys"] == "ok").then_some(())
    })
    .await;
    let reply = client.get("/chat/sessions").await;
    reply.problem(503, "store_unavailable");
}

async fn refreshed(auth_client: &Client, tokens: &Value) -> Value {
    let refresh = json!({"refresh_token": tokens["refresh_token"]});
    eventually(tests::PATIENCE, "the refresh is decided", || async {
        let reply = auth_client.post("/auth/refresh", &refresh).await;
        (reply.status != 503).then_some(reply)
    })
    .await
    .expect(200)
}

/// Until when a token was accepted, as the time since `issued` at which the last good and the first refused call went out.
async fn accepted_until(
    client: Client,
    path: &'static str,
    issued: Instant,
) -> (Duration, Duration) {
    let mut last = Duration::ZERO;
    loop {
        let asked = issued.elapsed();
        let reply = client.get(path).await;
        match reply.status {
            200 => last = asked,
            401 => {
                reply.problem(401, "token_expired");
                return (last, issued.elapsed());
            }
            // A store that is slow on a busy machine says nothing of the token.
            503 => {}
            other => panic!("{other}: {}", reply.text()),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn clocks_a_minute_ahead_and_behind_lose_no_login_and_prolong_no_token() {
    let app = TestApp::builder(Backend::Redis)
        .set("auth.access_ttl", format!("{ACCESS_TTL}s"))
        .start()
        .await;
    let mut environment = app.environment();
    environment.insert("CHATBOT__CHAT__AUTH_URL".into(), format!("http://{}", app.auth()));
    let (_ahead, auth_ahead) = wrong("auth", environment.clone(), 60).await;
    let (_behind, auth_behind) = wrong("auth", environment.clone(), -60).await;
    let somebody = app.stranger();
    let login = |auth| {
        let auth_client = Client::stranger(app.chat(0), auth).at_auth();
        async move {
            let body = json!({"user_id": "alice"});
            eventually(tests::PATIENCE, "a login", || async {
                let reply = auth_client.post("/auth/login", &body).await;
                (reply.status == 200).then(|| reply.json())
            })
            .await
        }
    };
    // Right after their start: what they do not know yet they must not decide.
    let tokens = login(app.auth()).await;
    let token = tokens["access_token"].as_str().unwrap();
    app.redis().freeze();
    let (_chat_ahead, chat_ahead) = wrong("chat", environment.clone(), 60).await;
    let (_chat_behind, chat_behind) = wrong("chat", environment, -60).await;
    for chat in [chat_ahead, chat_behind] {
        knows_keys_alone(&somebody.with_token(token).at(chat)).await;
    }
    app.redis().thaw();
    let chats = [app.chat(0), chat_ahead, chat_behind];
    let auths = [app.auth(), auth_ahead, auth_behind];
    for chat in [chat_ahead, chat_behind] {
        let client = somebody.with_token(token).at(chat);
        assert_eq!(first_answer(&client, "/chat/sessions").await, 200);
    }
    let mut rotating = tokens.clone();
    for auth in auths {
        let issued = login(auth).await;
        assert_eq!(issued["expires_in"], ACCESS_TTL);
        let client = somebody.with_token(issued["access_token"].as_str().unwrap());
        for chat in chats {
            assert_eq!(first_answer(&client.at(chat), "/chat/sessions").await, 200);
        }
        for auth in auths {
            let auth_client =
                Client::stranger(app.chat(0), auth).with_token(client.token()).at_auth();
            assert_eq!(first_answer(&auth_client, "/auth/validate").await, 200);
            rotating = refreshed(&auth_client, &rotating).await;
        }
    }
    let issued = Instant::now();
    let fresh = refreshed(&somebody.at_auth(), &rotating).await;
    let client = somebody.with_token(fresh["access_token"].as_str().unwrap());
    let watched = chats.iter().map(|chat| (client.at(*chat), "/chat/sessions"));
    let more =
        auths.map(|auth| Client::stranger(app.chat(0), auth).with_token(client.token()).at_auth());
    let watched =
        watched.chain(more.into_iter().map(|auth_client| (auth_client, "/auth/validate")));
    let ends = watched.map(|(client, path)| accepted_until(client, path, issued));
    let end = Duration::from_secs(ACCESS_TTL + LEEWAY);
    for (accepted, refused) in futures_util::future::join_all(ends).await {
        assert!(accepted < end + SLACK, "accepted after {accepted:?}");
        assert!(refused + SLACK > end, "refused after {refused:?}");
    }
    for auth in auths {
        let auth_client = Client::stranger(app.chat(0), auth).at_auth();
        rotating =
            refreshed(&auth_client, if auth == app.auth() { &fresh } else { &rotating }).await;
        let client = somebody.with_token(rotating["access_token"].as_str().unwrap());
        for chat in chats {
            assert_eq!(first_answer(&client.at(chat), "/chat/sessions").await, 200);
        }
    }
}

//! What has ended is known to every process, whatever fails or dies between the two.

use std::time::{Duration, Instant};

use common::store::{Bytes, Op, Read, Txn};
use reqwest::Method;
use serde_json::{Value, json};

use crate::kit::{App, PASSWORD, Tokens};

/// What a process that was not asked itself may take to know of a revocation.
const SOON: Duration = Duration::from_secs(5);

/// Whether the credential is refused without a look at its own record: what `chat` knows.
async fn is_known(app: &App, credential: &str) -> bool {
    let far = Instant::now() + SOON;
    app.authenticator
        .authenticate(credential, &mut { far })
        .await
        .is_err()
}

async fn soon_known(app: &App, credential: &str) {
    let began = Instant::now();
    while !is_known(app, credential).await {
        assert!(began.elapsed() < SOON, "not refused within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Nothing can be published from now on.
async fn break_publishing(app: &App) {
    let value = Bytes::from_static(b"no index");
    let set = Op::Set {
        key: "i:revoked".into(),
        value,
        ttl: None,
    };
    app.store.commit(Txn::durable().op(set)).await.unwrap();
}

async fn mend_publishing(app: &App) {
    let delete = Op::Delete("i:revoked".into());
    app.store.commit(Txn::durable().op(delete)).await.unwrap();
}

async fn members(app: &App, key: &str) -> Vec<String> {
    let read = Read::Since {
        key: key.into(),
        score: 0,
        limit: 100,
    };
    let mut found = app.store.read(vec![read]).await.unwrap();
    found.members(0).into_iter().map(|(name, _)| name).collect()
}

#[tokio::test]
async fn what_could_not_be_published_is_done_all_the_same_and_known_when_the_store_takes_it() {
    for app in App::on_every_store(&[]).await {
        app.register("alice").await.ok(201);
        let mine = app.logged_in("alice", Some(PASSWORD)).await;
        let other = app.logged_in("alice", Some(PASSWORD)).await;
        let (bob, carol) = (
            app.logged_in("bob", None).await,
            app.logged_in("carol", None).await,
        );
        let (carol_too, dave) = (
            app.logged_in("carol", None).await,
            app.logged_in("dave", None).await,
        );
        let named = json!({"name": "k"});
        let key = app
            .call(Method::POST, "/auth/keys", &mine.access, named)
            .await
            .ok(201);
        let key_path = format!("/auth/keys/{}", key["id"].as_str().unwrap());
        let key = key["key"].as_str().unwrap();
        break_publishing(&app).await;
        let change = json!({"current_password": PASSWORD, "new_password": "loud-harbour-72"});
        let calls = [
            (Method::DELETE, key_path.as_str(), &mine, Value::Null),
            (Method::PUT, "/auth/password", &mine, change),
            (Method::POST, "/auth/logout", &bob, Value::Null),
            (Method::POST, "/auth/logout", &carol, json!({"all": true})),
            (Method::DELETE, "/auth/account", &dave, Value::Null),
        ];
        for (method, path, who, body) in calls {
            let answer = app.call(method, path, &who.access, body).await;
            assert_eq!(answer.status, 204, "{path}: {answer:?}");
        }
        // Whoever was not told, and asks again before everybody knows, is told the same.
        for (method, path, who, body) in [
            (Method::POST, "/auth/logout", &bob, Value::Null),
            (Method::POST, "/auth/logout", &carol, json!({"all": true})),
            (Method::DELETE, "/auth/account", &dave, Value::Null),
        ] {
            let answer = app.call(method, path, &who.access, body).await;
            assert_eq!(answer.status, 204, "{path} again: {answer:?}");
        }
        app.call(
            Method::POST,
            "/auth/logout",
            &other.access,
            json!({"all": true}),
        )
        .await
        .is(401, "token_revoked");
        let over = [
            &other.access,
            &bob.access,
            &carol.access,
            &carol_too.access,
            &dave.access,
        ];
        for access in over {
            assert!(!is_known(&app, access).await, "it could not be published");
        }
        mend_publishing(&app).await;
        for access in over {
            soon_known(&app, access).await;
        }
        soon_known(&app, key).await;
        app.validate(&mine.access).await.ok(200);
        app.refresh(&mine.refresh).await.ok(200);
        app.call(Method::POST, "/auth/logout", &bob.access, Value::Null)
            .await
            .is(401, "token_revoked");
        let began = Instant::now();
        while !members(&app, "a:unsaid").await.is_empty() {
            assert!(began.elapsed() < SOON, "announcements stay");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What a process leaves behind that dies when it has announced something, or committed it too.
async fn leave(app: &App, tokens: &Tokens, committed: bool, announced_at: i64) {
    let claims = tokens.claims();
    let (user, login) = (
        claims["sub"].as_str().unwrap(),
        claims["sid"].as_str().unwrap(),
    );
    let member = format!("{user}:0:login:{login}");
    let announced = Op::MemberSet("a:unsaid".into(), member, announced_at);
    app.store
        .commit(Txn::durable().op(announced))
        .await
        .unwrap();
    if committed {
        let record = format!("a:{{{user}}}:0:login:{login}");
        let ended = Op::FieldSet(record, "ended".into(), Bytes::from_static(b"logout"));
        app.store.commit(Txn::durable().op(ended)).await.unwrap();
    }
}

#[tokio::test]
async fn a_logout_whose_process_died_is_finished_by_another() {
    for app in App::on_every_store(&[]).await {
        let tokens = app.logged_in("alice", None).await;
        leave(&app, &tokens, true, 1).await;
        soon_known(&app, &tokens.access).await;
    }
}

#[tokio::test]
async fn a_logout_that_was_only_announced_ends_nothing() {
    for app in App::on_every_store(&[]).await {
        let tokens = app.logged_in("alice", None).await;
        leave(&app, &tokens, false, 1).await;
        let began = Instant::now();
        while !members(&app, "a:unsaid").await.is_empty() {
            assert!(began.elapsed() < SOON, "it is never taken back");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        app.validate(&tokens.access).await.ok(200);
        app.refresh(&tokens.refresh).await.ok(200);
    }
}

//! What has ended is refused everywhere within five seconds, and an ending that nobody was told of can be repeated.

use std::time::{Duration, Instant};

use auth::services::error::AuthError;
use common::{
    identity::{IdentityError, UserId},
    store::Read,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::kit::{App, PASSWORD};

/// What a process that was not asked itself may take to refuse what has ended.
const SOON: Duration = Duration::from_secs(5);
const NEW: &str = "loud-harbour-72";

async fn soon_refused(app: &App, credential: &str) {
    let (began, far) = (Instant::now(), Instant::now() + SOON);
    while app.authenticator.authenticate(credential, &mut { far }).await.is_ok() {
        assert!(began.elapsed() < SOON, "not refused within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn make_key(app: &App, access: &str) -> String {
    let made = app.call(Method::POST, "/auth/keys", access, json!({"name": "k"})).await.ok(201);
    made["key"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_ending_holds_for_who_only_verifies_and_can_be_repeated() {
    for app in App::on_every_store(&[]).await {
        app.register("alice").await.ok(201);
        let mine = app.logged_in("alice", Some(PASSWORD)).await;
        let other = app.logged_in("alice", Some(PASSWORD)).await;
        let (bob, carol) = (app.logged_in("bob", None).await, app.logged_in("carol", None).await);
        let (carol_too, dave) =
            (app.logged_in("carol", None).await, app.logged_in("dave", None).await);
        let over = [&other, &bob, &carol, &carol_too, &dave];
        for tokens in over {
            app.validate(&tokens.access).await.ok(200);
        }
        let change = json!({"current_password": PASSWORD, "new_password": NEW});
        let calls = [
            (Method::PUT, "/auth/password", &mine, change),
            (Method::POST, "/auth/logout", &bob, Value::Null),
            (Method::POST, "/auth/logout", &carol, json!({"all": true})),
            (Method::DELETE, "/auth/account", &dave, Value::Null),
        ];
        for (method, path, who, body) in calls {
            let answer = app.call(method, path, &who.access, body).await;
            assert_eq!(answer.status, 204, "{path}: {answer:?}");
        }
        for tokens in over {
            soon_refused(&app, &tokens.access).await;
        }
        app.validate(&mine.access).await.ok(200);
        app.refresh(&mine.refresh).await.ok(200);
    }
}

#[tokio::test]
async fn an_identity_that_is_waited_for_ends_with_its_login_and_no_other() {
    for app in App::on_every_store(&[]).await {
        let (one, two) = (app.logged_in("alice", None).await, app.logged_in("alice", None).await);
        let identify = async |access: &str| {
            let far = Instant::now() + SOON;
            app.authenticator.authenticate(access, &mut { far }).await.unwrap()
        };
        let (first, second) = (identify(&one.access).await, identify(&two.access).await);
        let mut ends = Box::pin(app.authenticator.revoked(&first));
        let mut goes_on = Box::pin(app.authenticator.revoked(&second));
        app.call(Method::POST, "/auth/logout", &one.access, Value::Null).await.ok(204);
        tokio::select! {
            error = &mut ends => assert!(matches!(error, IdentityError::Revoked), "{error}"),
            error = &mut goes_on => panic!("{error}"),
            () = tokio::time::sleep(SOON) => panic!("not told within {SOON:?}"),
        }
        let renewed = app.authenticator.recheck(&second, Instant::now() + SOON).await.unwrap();
        assert_ne!(renewed, second, "it holds at a newer revision");
    }
}

/// F19: the change takes effect after the key was made, however long it had been running.
#[tokio::test]
async fn keys_made_while_a_password_change_runs_end_with_it() {
    for app in App::on_every_store(&[]).await {
        app.register("alice").await.ok(201);
        let mine = app.logged_in("alice", Some(PASSWORD)).await;
        let change = json!({
            "current_password": PASSWORD, "new_password": NEW, "revoke_keys": true,
        });
        let change = app.call(Method::PUT, "/auth/password", &mine.access, change);
        let making = async {
            let mut keys = Vec::new();
            for _ in 0..8 {
                keys.push(make_key(&app, &mine.access).await);
            }
            keys
        };
        let before = make_key(&app, &mine.access).await;
        app.validate(&before).await.ok(200);
        let (changed, keys) = tokio::join!(change, making);
        assert_eq!(changed.status, 204, "{changed:?}");
        app.validate(&before).await.is(401, "token_revoked");
        let listed = app.call(Method::GET, "/auth/keys", &mine.access, Value::Null).await.ok(200);
        let listed = listed["keys"].as_array().unwrap().len();
        let mut good = 0;
        for key in &keys {
            good += usize::from(app.validate(key).await.status == 200);
        }
        // Those that count are listed: they were made after the change.
        assert_eq!(good, listed);
        soon_refused(&app, &before).await;
    }
}

/// F19, too: whoever knew the id could have made the keys.
#[tokio::test]
async fn keys_made_while_a_first_password_is_set_end_with_it() {
    for app in App::on_every_store(&[]).await {
        for name in ["alice", "bob"] {
            let (mine, other) = (app.logged_in(name, None).await, app.logged_in(name, None).await);
            let user = UserId::parse(name).unwrap();
            let set = async {
                if name == "alice" {
                    let body = json!({"user_id": name, "password": PASSWORD});
                    let path = "/auth/register";
                    let set = app.call(Method::POST, path, &mine.access, body).await;
                    set.ok(201);
                } else {
                    app.operator.set_password(&user, PASSWORD).await.unwrap();
                }
            };
            let make = async {
                let mut keys = Vec::new();
                for _ in 0..50 {
                    let body = json!({"name": "k"});
                    let path = "/auth/keys";
                    let made = app.call(Method::POST, path, &other.access, body).await;
                    if made.status != 201 {
                        made.is(401, "token_revoked");
                        break;
                    }
                    keys.push(made.ok(201)["key"].as_str().unwrap().to_owned());
                }
                keys
            };
            let ((), keys) = tokio::join!(set, make);
            assert!(!keys.is_empty());
            for key in keys {
                app.validate(&key).await.is(401, "token_revoked");
            }
            app.validate(&other.access).await.is(401, "token_revoked");
        }
    }
}

#[tokio::test]
async fn the_operators_first_password_ends_every_key() {
    for app in App::on_every_store(&[]).await {
        let open = app.logged_in("alice", None).await;
        let key = make_key(&app, &open.access).await;
        let alice = UserId::parse("alice").unwrap();
        app.operator.set_password(&alice, NEW).await.unwrap();
        app.validate(&key).await.is(401, "token_revoked");
        app.validate(&open.access).await.is(401, "token_revoked");
        let mine = app.logged_in("alice", Some(NEW)).await;
        let kept = make_key(&app, &mine.access).await;
        app.operator.set_password(&alice, PASSWORD).await.unwrap();
        app.validate(&kept).await.ok(200);
    }
}

/// F24: the index of accounts holds no id whose account is gone.
#[tokio::test]
async fn a_deleted_account_leaves_the_index_of_accounts() {
    for app in App::on_every_store(&[]).await {
        app.register("alice").await.ok(201);
        let bob = app.logged_in("bob", None).await;
        let listed = async || {
            let keys = (0..common::store::SHARDS).map(|n| format!("a:accounts:{{{n:02}}}"));
            let mut names = Vec::new();
            for key in keys {
                let read = Read::Since { key, score: 0, limit: 9 };
                let members = app.store.read(vec![read]).await.unwrap().members(0);
                names.extend(members.into_iter().map(|(name, _)| name));
            }
            names.sort();
            names
        };
        assert_eq!(listed().await, ["alice", "bob"]);
        app.call(Method::DELETE, "/auth/account", &bob.access, Value::Null).await.ok(204);
        assert_eq!(listed().await, ["alice"]);
        let users = app.operator.list_users().await.unwrap();
        assert_eq!(users.len(), 1);
        let bob = UserId::parse("bob").unwrap();
        let gone = app.operator.set_password(&bob, NEW).await;
        assert!(matches!(gone, Err(AuthError::NotFound)), "{gone:?}");
    }
}

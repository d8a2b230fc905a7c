//! Accounts that hold nothing are removed: with open login anybody can make any number of them.

use std::time::Duration;

use auth::{services::cleanup::Cleanup, store::AccountStore};
use common::{
    config::LoginMode,
    identity::{UserId, state},
    store::{Op, Read, Txn, shard},
};
use reqwest::Method;
use serde_json::json;

use crate::kit::{App, PASSWORD, Tokens};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn cleanup(app: &App, login: LoginMode) -> Cleanup {
    Cleanup::new(login, AccountStore::new(app.store.clone()))
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

/// Whether there is an account, whether there is a state, and whether the indexes of accounts and of idle accounts have it.
async fn traces(app: &App, name: &str) -> [bool; 4] {
    let reads =
        vec![Read::Fields(format!("a:{{{name}}}:account")), Read::Fields(state(&user(name)))];
    let mut found = app.store.read(reads).await.unwrap();
    let slot = shard(name);
    let index =
        |index: &str| Read::Since { key: format!("a:{index}:{{{slot:02}}}"), score: 0, limit: 100 };
    let indexes = vec![index("accounts"), index("idle")];
    let mut indexes = app.store.read(indexes).await.unwrap();
    let mut listed = |i| indexes.members(i).iter().any(|(member, _)| member == name);
    [!found.fields(0).is_empty(), !found.fields(1).is_empty(), listed(0), listed(1)]
}

/// As if the account had last been used long ago, on a store whose clock cannot be moved.
async fn make_idle(app: &App, name: &str) {
    let (key, slot) = (format!("a:{{{name}}}:account"), shard(name));
    let account = Op::FieldSet(key, "logins_end".into(), "1".into());
    let index = Op::MemberSet(format!("a:idle:{{{slot:02}}}"), name.into(), 1);
    for op in [account, index] {
        app.store.commit(Txn::durable().op(op)).await.unwrap();
    }
}

#[tokio::test]
async fn an_account_that_holds_nothing_is_removed() {
    for app in App::on_every_store(&[]).await {
        let bob = app.logged_in("bob", None).await;
        assert_eq!(traces(&app, "bob").await, [true; 4]);
        let carol = app.logged_in("carol", None).await;
        app.call(Method::POST, "/auth/keys", &carol.access, json!({"name": "k"})).await.ok(201);
        let dave = app.logged_in("dave", None).await;
        let body = json!({"user_id": "dave", "password": PASSWORD});
        app.call(Method::POST, "/auth/register", &dave.access, body).await.ok(201);
        for name in ["bob", "carol", "dave"] {
            make_idle(&app, name).await;
        }
        cleanup(&app, LoginMode::Open).run().await.unwrap();
        assert_eq!(traces(&app, "bob").await, [false; 4]);
        assert_eq!(traces(&app, "carol").await, [true; 4], "it has an API key");
        assert_eq!(traces(&app, "dave").await, [true, true, true, false], "it has a password");
        app.logged_in("dave", Some(PASSWORD)).await;
        app.refresh(&bob.refresh).await.is(401, "token_revoked");
        let anew = app.logged_in("bob", None).await;
        assert_eq!(anew.claims()["gen"], 0);
        app.validate(&anew.access).await.ok(200);
        assert_eq!(traces(&app, "bob").await, [true; 4]);
    }
}

#[tokio::test]
async fn where_login_is_not_open_nothing_expires() {
    let app = App::in_memory(&[]).await;
    app.logged_in("bob", None).await;
    make_idle(&app, "bob").await;
    cleanup(&app, LoginMode::Password).run().await.unwrap();
    assert_eq!(traces(&app, "bob").await, [true; 4]);
}

#[tokio::test]
async fn a_deleted_generation_is_remembered() {
    for app in App::on_every_store(&[]).await {
        let old = app.logged_in("bob", None).await;
        app.call(Method::DELETE, "/auth/account", &old.access, json!({})).await.ok(204);
        app.logged_in("bob", None).await;
        make_idle(&app, "bob").await;
        cleanup(&app, LoginMode::Open).run().await.unwrap();
        assert_eq!(traces(&app, "bob").await, [false, true, false, false]);
        app.validate(&old.access).await.is(401, "token_revoked");
        let anew = app.logged_in("bob", None).await;
        assert_eq!(anew.claims()["gen"], 1);
        app.validate(&anew.access).await.ok(200);
    }
}

#[tokio::test]
async fn an_account_lives_as_long_as_its_logins() {
    let app = App::in_memory(&[("auth.refresh_ttl", "10d")]).await;
    let cleanup = cleanup(&app, LoginMode::Open);
    let first = app.logged_in("bob", None).await;
    app.wait(DAY * 8).await;
    let second = app.logged_in("bob", None).await;
    // The first login is over, and so is the time at which the account was to be looked at first.
    app.wait(DAY * 5).await;
    cleanup.run().await.unwrap();
    assert_eq!(traces(&app, "bob").await, [true; 4]);
    app.refresh(&first.refresh).await.is(401, "invalid_token");
    let third = Tokens::of(&app.refresh(&second.refresh).await.ok(200));
    app.validate(&third.access).await.ok(200);
    app.wait(DAY * 7).await;
    cleanup.run().await.unwrap();
    assert_eq!(traces(&app, "bob").await, [false; 4]);
    assert_eq!(app.validate(&third.access).await.status, 401);
    assert!(app.operator.list_users().await.unwrap().is_empty());
}

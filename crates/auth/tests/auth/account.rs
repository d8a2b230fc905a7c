//! Changing passwords and deleting accounts.

use std::time::{Duration, Instant};

use auth::services::error::AuthError;
use common::{
    identity::UserId,
    store::{Op, Read, Txn},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::kit::{App, PASSWORD};

const NEW: &str = "loud-harbour-72";

#[tokio::test]
async fn a_new_password_ends_every_other_login_and_keys_where_asked() {
    for app in App::on_every_store(&[]).await {
        app.register("alice").await.ok(201);
        let (mine, other) = (
            app.logged_in("alice", Some(PASSWORD)).await,
            app.logged_in("alice", Some(PASSWORD)).await,
        );
        let key =
            app.call(Method::POST, "/auth/keys", &mine.access, json!({"name": "k"})).await.ok(201);
        let key = key["key"].as_str().unwrap().to_owned();
        let change = |current: &str, new: &str, more: Value| {
            let mut body = json!({"current_password": current, "new_password": new});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            app.call(Method::PUT, "/auth/password", &mine.access, body)
        };
        change("wrong-harbour-1", NEW, json!({})).await.is(401, "invalid_credentials");
        let weak = change(PASSWORD, "password1", json!({})).await;
        assert_eq!(weak.body["errors"][0]["pointer"], "/new_password", "{weak:?}");
        change(PASSWORD, NEW, json!({})).await.ok(204);
        app.validate(&mine.access).await.ok(200);
        app.refresh(&mine.refresh).await.ok(200);
        app.validate(&other.access).await.is(401, "token_revoked");
        app.refresh(&other.refresh).await.is(401, "token_revoked");
        app.validate(&key).await.ok(200);
        app.login("alice", Some(PASSWORD)).await.is(401, "invalid_credentials");
        app.logged_in("alice", Some(NEW)).await;
        change(NEW, PASSWORD, json!({"revoke_keys": true})).await.ok(204);
        app.validate(&key).await.is(401, "token_revoked");
        app.validate(&mine.access).await.ok(200);
    }
}

#[tokio::test]
async fn a_deleted_account_is_refused_everywhere_and_its_id_begins_anew() {
    for app in App::on_every_store(&[]).await {
        app.register("alice").await.ok(201);
        let (one, two) = (
            app.logged_in("alice", Some(PASSWORD)).await,
            app.logged_in("alice", Some(PASSWORD)).await,
        );
        let key =
            app.call(Method::POST, "/auth/keys", &one.access, json!({"name": "k"})).await.ok(201);
        let key = key["key"].as_str().unwrap().to_owned();
        let delete = |body: Value| app.call(Method::DELETE, "/auth/account", &one.access, body);
        delete(Value::Null).await.is(403, "password_required");
        delete(json!({"password": "wrong-harbour-1"})).await.is(401, "invalid_credentials");
        app.call(Method::DELETE, "/auth/account", &key, json!({"password": PASSWORD}))
            .await
            .is(403, "forbidden");
        delete(json!({"password": PASSWORD})).await.ok(204);
        for credential in [&one.access, &two.access, &key] {
            app.validate(credential).await.is(401, "token_revoked");
        }
        for tokens in [&one, &two] {
            assert_eq!(app.refresh(&tokens.refresh).await.status, 401);
        }
        let erase = app
            .store
            .read(vec![Read::Since {
                key: common::identity::erase_index(&UserId::parse("alice").unwrap()),
                score: 0,
                limit: 9,
            }])
            .await
            .unwrap()
            .members(0);
        assert_eq!(erase.len(), 1);
        assert_eq!(erase[0].0, "alice:0");
        let anew = app.logged_in("alice", None).await;
        assert_eq!(anew.claims()["gen"], 1);
        app.validate(&anew.access).await.ok(200);
        let keys = app.call(Method::GET, "/auth/keys", &anew.access, Value::Null).await.ok(200);
        assert_eq!(keys["keys"], json!([]));
        app.validate(&key).await.is(401, "token_revoked");
        app.call(Method::DELETE, "/auth/account", &anew.access, Value::Null).await.ok(204);
        app.register("alice").await.ok(201);
        assert_eq!(app.logged_in("alice", Some(PASSWORD)).await.claims()["gen"], 2);
    }
}

#[tokio::test]
async fn a_deletion_that_died_halfway_is_finished_for_everybody() {
    for app in App::on_every_store(&[]).await {
        let tokens = app.logged_in("alice", None).await;
        // What a process leaves behind that dies between the two steps: announced and deleted, but nobody was told.
        let index = common::identity::erase_index(&UserId::parse("alice").unwrap());
        let announced = Op::MemberSet(index, "alice:0".into(), 1);
        app.store.commit(Txn::durable().op(announced)).await.unwrap();
        let set = |field: &str, value: &'static str| {
            Op::FieldSet("i:{alice}:state".into(), field.into(), value.into())
        };
        let txn = Txn::durable()
            .op(Op::Delete("a:{alice}:account".into()))
            .op(set("gen", "1"))
            .op(set("live", "0"))
            .op(set("revision", "2"));
        app.store.commit(txn).await.unwrap();
        let (began, far) = (Instant::now(), Instant::now() + Duration::from_secs(30));
        while app.authenticator.authenticate(&tokens.access, &mut { far }).await.is_ok() {
            assert!(began.elapsed() < Duration::from_secs(5), "nobody was told");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        app.validate(&tokens.access).await.is(401, "token_revoked");
    }
}

#[tokio::test]
async fn an_account_that_is_gone_has_no_password_to_set() {
    for app in App::on_every_store(&[]).await {
        let alice = UserId::parse("alice").unwrap();
        app.register("alice").await.ok(201);
        app.operator.delete_user(&alice).await.unwrap();
        // Its state stays, and says that there was one.
        for _ in 0..2 {
            let set = app.operator.set_password(&alice, NEW).await;
            assert!(matches!(set, Err(AuthError::NotFound)), "{set:?}");
            let deleted = app.operator.delete_user(&alice).await;
            assert!(matches!(deleted, Err(AuthError::NotFound)), "{deleted:?}");
        }
        app.login("alice", Some(NEW)).await.is(401, "invalid_credentials");
        app.operator.add_user(&alice, NEW).await.unwrap();
        assert_eq!(app.logged_in("alice", Some(NEW)).await.claims()["gen"], 1);
    }
}

#[tokio::test]
async fn a_deletion_that_was_never_made_is_not_announced_for_ever() {
    let app = App::in_memory(&[]).await;
    let tokens = app.logged_in("alice", None).await;
    let announced = Op::MemberSet(
        common::identity::erase_index(&UserId::parse("alice").unwrap()),
        "alice:0".into(),
        1,
    );
    app.store.commit(Txn::durable().op(announced)).await.unwrap();
    for _ in 0..400 {
        let read = vec![Read::Since {
            key: common::identity::erase_index(&UserId::parse("alice").unwrap()),
            score: 0,
            limit: 9,
        }];
        if app.store.read(read).await.unwrap().members(0).is_empty() {
            app.validate(&tokens.access).await.ok(200);
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("still announced");
}

#[tokio::test]
async fn nothing_that_could_be_used_stands_in_the_store() {
    let app = App::on_redis(&[]).await;
    app.register("alice").await.ok(201);
    let tokens = app.logged_in("alice", Some(PASSWORD)).await;
    let next = app.refresh(&tokens.refresh).await.ok(200);
    let key =
        app.call(Method::POST, "/auth/keys", &tokens.access, json!({"name": "k"})).await.ok(201);
    let dump = app.dump();
    assert!(dump.contains("argon2id"), "the dump shows what is stored");
    let secrets = [
        PASSWORD,
        &tokens.access,
        &tokens.refresh[20..],
        key["key"].as_str().unwrap(),
        next["refresh_token"].as_str().unwrap(),
    ];
    for secret in secrets {
        assert!(!dump.contains(secret), "{secret}");
    }
}

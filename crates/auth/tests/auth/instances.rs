//! Several instances of `auth` on one store are one `auth`.

use std::time::{Duration, Instant};

use common::identity::IdentityError;
use reqwest::Method;
use serde_json::{Value, json};

use crate::kit::{App, PASSWORD, Tokens};

/// What an instance that was not asked itself may take to know of a revocation.
const SOON: Duration = Duration::from_secs(5);

/// Asks until the credential is refused without a look at its own record: what `chat` knows.
async fn known(app: &App, access: &str) {
    let (began, far) = (Instant::now(), Instant::now() + SOON);
    while app.authenticator.authenticate(access, &mut { far }).await.is_ok() {
        assert!(began.elapsed() < SOON, "not refused within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_token_of_one_instance_is_good_at_the_other_until_it_is_revoked() {
    let one = App::on_redis(&[]).await;
    let two = one.beside(&[]).await;
    let tokens = one.logged_in("alice", None).await;
    two.validate(&tokens.access).await.ok(200);
    let next = Tokens::of(&two.refresh(&tokens.refresh).await.ok(200));
    assert_eq!(Tokens::of(&one.refresh(&tokens.refresh).await.ok(200)).refresh, next.refresh);
    let key =
        one.call(Method::POST, "/auth/keys", &next.access, json!({"name": "k"})).await.ok(201);
    let (id, key) = (key["id"].as_str().unwrap(), key["key"].as_str().unwrap());
    two.validate(key).await.ok(200);
    let identity = two.authenticator.authenticate(key, &mut (Instant::now() + SOON)).await.unwrap();
    let ends = tokio::time::timeout(SOON, two.authenticator.revoked(&identity));
    one.call(Method::DELETE, &format!("/auth/keys/{id}"), &next.access, Value::Null).await.ok(204);
    assert!(matches!(ends.await.unwrap(), IdentityError::Revoked));
    known(&two, key).await;
    one.call(Method::POST, "/auth/logout", &next.access, Value::Null).await.ok(204);
    known(&two, &next.access).await;
}

#[tokio::test]
async fn deletions_and_ended_logins_are_known_everywhere_also_after_a_restart() {
    let one = App::on_redis(&[]).await;
    let two = one.beside(&[]).await;
    one.register("alice").await.ok(201);
    let (alice, bob) =
        (one.logged_in("alice", Some(PASSWORD)).await, one.logged_in("bob", None).await);
    let kept = one.logged_in("alice", Some(PASSWORD)).await;
    let change = json!({"current_password": PASSWORD, "new_password": "loud-harbour-72"});
    one.call(Method::PUT, "/auth/password", &kept.access, change).await.ok(204);
    one.call(Method::DELETE, "/auth/account", &bob.access, Value::Null).await.ok(204);
    let three = one.beside(&[]).await;
    for other in [&two, &three] {
        known(other, &alice.access).await;
        known(other, &bob.access).await;
        other.validate(&kept.access).await.ok(200);
    }
}

#[tokio::test]
async fn guesses_are_counted_over_all_instances() {
    let one = App::on_redis(&[]).await;
    let two = one.beside(&[]).await;
    one.register("alice").await.ok(201);
    for i in 0..5 {
        let app = if i % 2 == 0 { &one } else { &two };
        app.login("alice", Some("wrong-harbour-1")).await.is(401, "invalid_credentials");
    }
    one.login("alice", Some(PASSWORD)).await.is(429, "too_many_attempts");
    two.login("alice", Some(PASSWORD)).await.is(429, "too_many_attempts");
}

#[tokio::test]
async fn a_frozen_store_takes_no_good_token_from_who_only_verifies() {
    let app = App::on_redis(&[]).await;
    let tokens = app.logged_in("alice", None).await;
    let soon = || Instant::now() + Duration::from_secs(1);
    app.authenticator.authenticate(&tokens.access, &mut soon()).await.unwrap();
    app.freeze();
    for _ in 0..5 {
        app.authenticator.authenticate(&tokens.access, &mut soon()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    app.thaw();
}

#[tokio::test]
async fn a_bare_user_id_speaks_where_login_is_open_and_it_has_no_password() {
    for app in App::on_every_store(&[]).await {
        app.register("alice").await.ok(201);
        let bob = app.logged_in("bob", None).await;
        app.call(Method::DELETE, "/auth/account", &bob.access, Value::Null).await.ok(204);
        let open = |user: &str| {
            let user = common::identity::UserId::parse(user).unwrap();
            app.authenticator.open(user, Instant::now() + SOON)
        };
        let refused = open("alice").await.unwrap_err();
        assert!(matches!(refused, IdentityError::PasswordRequired));
        let bob = open("bob").await.unwrap();
        assert_eq!(bob.owner.generation, 1, "the old account's life is over");
        let again = app.authenticator.recheck(&bob, Instant::now() + SOON).await;
        assert_eq!(again.unwrap(), bob);
    }
    let closed = App::in_memory(&[("auth.login", "password")]).await;
    let user = common::identity::UserId::parse("bob").unwrap();
    let refused = closed.authenticator.open(user, Instant::now() + SOON).await;
    assert!(matches!(refused, Err(IdentityError::LoginNotOpen)));
}

//! Refresh tokens: each works once, a repeat is forgiven for ten seconds, later it is theft.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::kit::{App, Tokens};

#[tokio::test]
async fn each_works_once_and_a_repeat_gives_the_same_successor() {
    for app in App::on_every_store(&[]).await {
        let first = app.logged_in("alice", None).await;
        let second = Tokens::of(&app.refresh(&first.refresh).await.ok(200));
        let again = Tokens::of(&app.refresh(&first.refresh).await.ok(200));
        assert_eq!(second.refresh, again.refresh);
        assert_ne!(first.refresh, second.refresh);
        assert_ne!(second.claims()["jti"], again.claims()["jti"]);
        assert_eq!(first.claims()["sid"], second.claims()["sid"]);
        let third = Tokens::of(&app.refresh(&second.refresh).await.ok(200));
        app.validate(&third.access).await.ok(200);
        app.refresh(&first.refresh).await.is(401, "token_reused");
        app.refresh(&third.refresh).await.is(401, "token_reused");
        app.validate(&third.access).await.is(401, "token_revoked");
        app.logged_in("alice", None).await;
    }
}

#[tokio::test]
async fn two_tabs_at_once_get_one_successor() {
    for app in App::on_every_store(&[]).await {
        let first = app.logged_in("alice", None).await;
        let answers =
            futures_util::future::join_all((0..16).map(|_| app.refresh(&first.refresh))).await;
        let next: std::collections::HashSet<_> =
            answers.into_iter().map(|answer| Tokens::of(&answer.ok(200)).refresh).collect();
        assert_eq!(next.len(), 1);
    }
}

#[tokio::test]
async fn a_repeat_after_ten_seconds_is_theft() {
    for app in App::on_every_store(&[]).await {
        let first = app.logged_in("alice", None).await;
        let second = Tokens::of(&app.refresh(&first.refresh).await.ok(200));
        app.wait(Duration::from_millis(10_200)).await;
        app.refresh(&first.refresh).await.is(401, "token_reused");
        app.refresh(&second.refresh).await.is(401, "token_reused");
    }
}

#[tokio::test]
async fn no_login_is_refreshed_past_its_age() {
    for app in App::on_every_store(&[("auth.refresh_ttl", "3s"), ("auth.access_ttl", "1s")]).await {
        let mut tokens = app.logged_in("alice", None).await;
        for _ in 0..5 {
            tokens = Tokens::of(&app.refresh(&tokens.refresh).await.ok(200));
            app.wait(Duration::from_millis(200)).await;
        }
        app.wait(Duration::from_millis(2_500)).await;
        app.refresh(&tokens.refresh).await.is(401, "invalid_token");
    }
}

#[tokio::test]
async fn what_was_never_issued_is_refused_and_ends_nothing() {
    for app in App::on_every_store(&[]).await {
        let tokens = app.logged_in("alice", None).await;
        let mut changed = tokens.refresh.clone().into_bytes();
        for at in (4..changed.len()).step_by(3) {
            let kept = changed[at];
            changed[at] = if kept == b'A' { b'B' } else { b'A' };
            let text = String::from_utf8(changed.clone()).unwrap();
            app.refresh(&text).await.is(401, "invalid_token");
            changed[at] = kept;
        }
        for text in
            ["", "cbr_", "x", &tokens.access, &tokens.refresh[..40], &"cbr_A".repeat(10_000)]
        {
            app.refresh(text).await.is(401, "invalid_token");
        }
        app.refresh(&tokens.refresh).await.ok(200);
        let other = App::in_memory(&[]).await;
        other.logged_in("alice", None).await;
        other.refresh(&tokens.refresh).await.is(401, "invalid_token");
    }
}

#[tokio::test]
async fn logging_out_ends_one_login_or_all_of_them() {
    for app in App::on_every_store(&[]).await {
        let (one, two, three) = (
            app.logged_in("alice", None).await,
            app.logged_in("alice", None).await,
            app.logged_in("alice", None).await,
        );
        let out = app.call(Method::POST, "/auth/logout", &one.access, Value::Null).await;
        assert_eq!(out.status, 204);
        app.refresh(&one.refresh).await.is(401, "token_revoked");
        app.validate(&one.access).await.is(401, "token_revoked");
        app.validate(&two.access).await.ok(200);
        app.call(Method::POST, "/auth/logout", &two.access, json!({"all": true})).await.ok(204);
        app.validate(&two.access).await.is(401, "token_revoked");
        app.validate(&three.access).await.is(401, "token_revoked");
        app.refresh(&three.refresh).await.is(401, "token_revoked");
        let four = app.logged_in("alice", None).await;
        app.validate(&four.access).await.ok(200);
        app.call(Method::POST, "/auth/logout", &four.access, json!({"everything": true}))
            .await
            .is(422, "validation_failed");
    }
}

#[tokio::test]
async fn a_frozen_store_is_a_503_and_loses_no_login() {
    let app = App::on_redis(&[]).await;
    let tokens = app.logged_in("alice", None).await;
    app.validate(&tokens.access).await.ok(200);
    app.freeze();
    for _ in 0..3 {
        let began = Instant::now();
        let answer = app.refresh(&tokens.refresh).await;
        answer.is(503, "store_unavailable");
        assert!(answer.header("retry-after").is_some());
        assert!(began.elapsed() < Duration::from_millis(1_200), "{:?}", began.elapsed());
        app.validate(&tokens.access).await.is(503, "store_unavailable");
        app.login("alice", None).await.is(503, "store_unavailable");
    }
    app.thaw();
    let mut answer = app.refresh(&tokens.refresh).await;
    for _ in 0..100 {
        if answer.status != 503 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        answer = app.refresh(&tokens.refresh).await;
    }
    app.refresh(&Tokens::of(&answer.ok(200)).refresh).await.ok(200);
}

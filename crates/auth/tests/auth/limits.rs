//! Guessing is made slow, and calling too often is refused.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::kit::{App, PASSWORD};

fn retry_after(answer: &crate::kit::Answer) -> u64 {
    answer.header("retry-after").unwrap().parse().unwrap()
}

#[tokio::test]
async fn five_guesses_are_free_then_even_the_right_password_waits() {
    for app in App::on_every_store(&[]).await {
        app.register("alice").await.ok(201);
        for user in ["alice", "nobody"] {
            for _ in 0..5 {
                app.login(user, Some("wrong-harbour-1"))
                    .await
                    .is(401, "invalid_credentials");
            }
            let waits = app.login(user, Some(PASSWORD)).await;
            waits.is(429, "too_many_attempts");
            assert_eq!(retry_after(&waits), 1);
        }
        tokio::time::sleep(Duration::from_millis(1_050)).await;
        app.login("alice", Some("wrong-harbour-1"))
            .await
            .is(401, "invalid_credentials");
        let waits = app.login("alice", Some(PASSWORD)).await;
        waits.is(429, "too_many_attempts");
        assert_eq!(retry_after(&waits), 2);
        tokio::time::sleep(Duration::from_millis(2_050)).await;
        app.login("alice", Some(PASSWORD)).await.ok(200);
        for _ in 0..4 {
            app.login("alice", Some("wrong-harbour-1"))
                .await
                .is(401, "invalid_credentials");
        }
        app.login("alice", Some(PASSWORD)).await.ok(200);
    }
}

#[tokio::test]
async fn guesses_made_all_at_once_are_no_more_than_five() {
    for app in App::on_every_store(&[]).await {
        app.register("alice").await.ok(201);
        let guesses = futures_util::future::join_all(
            (0..20).map(|_| app.login("alice", Some("wrong-harbour-1"))),
        )
        .await;
        let judged = guesses.iter().filter(|answer| answer.status == 401).count();
        assert!(
            judged <= 6,
            "{judged} (the sixth may come after its second)"
        );
        assert!(
            guesses
                .iter()
                .all(|answer| [401, 429].contains(&answer.status))
        );
    }
}

#[tokio::test]
async fn one_address_cannot_try_everybody() {
    for app in App::on_every_store(&[]).await {
        let mut refused = 0;
        for round in 0..7 {
            let guesses = (0..20).map(|i| async move { format!("user{}", round * 20 + i) });
            for user in futures_util::future::join_all(guesses).await {
                refused += usize::from(
                    app.login(&user, Some("wrong-harbour-1")).await.code() == "too_many_attempts",
                );
            }
        }
        assert!(refused > 0, "140 guesses were all judged");
        app.logged_in("alice", None).await;
    }
}

#[tokio::test]
async fn right_passwords_cost_nothing() {
    let app = App::in_memory(&[]).await;
    app.register("alice").await.ok(201);
    for _ in 0..110 {
        app.login("alice", Some(PASSWORD)).await.ok(200);
    }
}

#[tokio::test]
async fn one_address_registers_twenty_accounts_a_minute() {
    for app in App::on_every_store(&[]).await {
        let mut answers = Vec::new();
        for i in 0..24 {
            answers.push(app.register(&format!("user{i}")).await);
        }
        assert!(answers[..20].iter().all(|answer| answer.status == 201));
        let last = answers.last().unwrap();
        last.is(429, "too_many_attempts");
        assert!(retry_after(last) >= 1);
    }
}

#[tokio::test]
async fn calls_are_counted_by_user_or_by_address_and_public_keys_are_free() {
    for app in
        App::on_every_store(&[("rate_limit.requests", "5"), ("rate_limit.period", "60s")]).await
    {
        let tokens = app.logged_in("alice", None).await;
        for _ in 0..5 {
            let answer = app.validate(&tokens.access).await;
            assert!(
                answer.header("ratelimit").is_some() && answer.header("ratelimit-policy").is_some()
            );
            answer.ok(200);
        }
        app.validate(&tokens.access).await.is(429, "rate_limited");
        app.call(Method::POST, "/auth/logout", &tokens.access, Value::Null)
            .await
            .is(429, "rate_limited");
        for _ in 0..4 {
            assert_eq!(app.validate("garbage").await.status, 401);
        }
        app.validate("garbage").await.is(429, "rate_limited");
        app.post("/auth/login", json!({"user_id": "bob"}))
            .await
            .is(429, "rate_limited");
        for path in [
            "/.well-known/jwks.json",
            "/health",
            "/livez",
            "/readyz",
            "/openapi.json",
        ] {
            for _ in 0..10 {
                app.send(app.request(Method::GET, path)).await.ok(200);
            }
        }
    }
}

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
                app.login(user, Some("wrong-harbour-1")).await.is(401, "invalid_credentials");
            }
            let waits = app.login(user, Some(PASSWORD)).await;
            waits.is(429, "too_many_attempts");
            assert_eq!(retry_after(&waits), 1);
        }
        app.wait(Duration::from_millis(1_050)).await;
        app.login("alice", Some("wrong-harbour-1")).await.is(401, "invalid_credentials");
        let waits = app.login("alice", Some(PASSWORD)).await;
        waits.is(429, "too_many_attempts");
        // The wait counts from before the hash, which takes its time.
        assert!((1..=2).contains(&retry_after(&waits)), "{waits:?}");
        app.wait(Duration::from_millis(2_050)).await;
        app.login("alice", Some(PASSWORD)).await.ok(200);
        for _ in 0..4 {
            app.login("alice", Some("wrong-harbour-1")).await.is(401, "invalid_credentials");
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
        assert!(judged <= 6, "{judged} (the sixth may come after its second)");
        assert!(guesses.iter().all(|answer| [401, 429].contains(&answer.status)));
    }
}

#[tokio::test]
async fn one_address_cannot_try_everybody() {
    for app in App::on_every_store(&[]).await {
        let (app, mut refused) = (&app, 0);
        // All at once, since what an address may try grows back by the second.
        for round in 0..2 {
            let guesses = (0..70).map(|number| async move {
                let user = format!("user{}", round * 70 + number);
                app.login(&user, Some("wrong-harbour-1")).await
            });
            let guesses = futures_util::future::join_all(guesses).await;
            refused += guesses.iter().filter(|answer| answer.code() == "too_many_attempts").count();
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
        let users: Vec<_> = (0..24).map(|number| format!("user{number}")).collect();
        // All at once, since what an address may register grows back by the second.
        let answers =
            futures_util::future::join_all(users.iter().map(|user| app.register(user))).await;
        let (refused, others): (Vec<_>, Vec<_>) =
            answers.iter().partition(|answer| answer.status == 429);
        assert!((1..=4).contains(&refused.len()), "{answers:?}");
        for answer in refused {
            answer.is(429, "too_many_attempts");
            assert!(retry_after(answer) >= 1);
        }
        // Where hashing is slow, who waits too long is put off.
        assert!(others.iter().all(|answer| [201, 503].contains(&answer.status)));
        assert!(others.iter().any(|answer| answer.status == 201));
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
        app.post("/auth/login", json!({"user_id": "bob"})).await.is(429, "rate_limited");
        for path in [
            "/.well-known/jwks.json",
            "/auth/settings",
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

//! Many callers do everything at once in the same sessions: nothing fails that should not, nothing hangs, and what is
//! left is whole.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use rand::{Rng as _, RngExt as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Answer, Backend, Client, PATIENCE, TestApp, eventually, raw};

on_both_stores!(a_crowd_leaves_whole_sessions);

const CALLERS: u64 = 8;
const CALLS: usize = 60;
const SESSIONS: [&str; 2] = ["a", "b"];

async fn a_crowd_leaves_whole_sessions(on: Backend) {
    let app = TestApp::builder(on).chats(2).start().await;
    app.model.usually(Answer::echo_every(Duration::from_millis(3)));
    let alice = app.login("alice").await;
    let seed = rand::rng().next_u64();
    eprintln!("the seed is {seed}");
    let crowd: Vec<_> = (0..CALLERS)
        .map(|number| {
            let doors = (0..app.instances()).map(|at| alice.at(app.chat(at))).collect();
            tokio::spawn(one_of_many(doors, number, seed))
        })
        .collect();
    for one in crowd {
        one.await.unwrap();
    }
    app.model.wait_idle(PATIENCE).await;
    for at in 0..app.instances() {
        nothing_runs(&app, at).await;
    }
    for session in SESSIONS {
        is_whole(&alice, session).await;
        assert_eq!(alice.say(session, "go on").await, "You said: go on");
    }
}

/// One who calls at random, on any instance.
async fn one_of_many(doors: Vec<Client>, number: u64, seed: u64) {
    let mut random: StdRng = rand::SeedableRng::seed_from_u64(seed ^ number);
    let mut known: Vec<String> = Vec::new();
    for call in 0..CALLS {
        let there = &doors[random.random_range(0..doors.len())];
        let session = SESSIONS[random.random_range(0..SESSIONS.len())];
        let message = format!("{call} of {number}");
        let start = Instant::now();
        let (what, allowed): (&str, &[u16]) = match random.random_range(0..20) {
            0..8 => ("send", &[200]),
            8..11 => ("send and leave", &[200]),
            11..13 => ("send with a key", &[200, 404, 422]),
            13..15 => ("regenerate", &[200, 404]),
            15..18 => ("resume", &[200, 204, 404]),
            18 => ("cancel", &[202, 404]),
            _ => ("delete", &[204, 404]),
        };
        let body = json!({"session_id": session, "message": message});
        let id = known.last().cloned().unwrap_or_else(|| "none".to_owned());
        let request = match what {
            "send with a key" => {
                let key = format!("key-{}", random.random_range(0..5));
                let body = json!({"session_id": session, "message": key});
                there
                    .request(Method::POST, "/chat/message")
                    .header("idempotency-key", key)
                    .json(&body)
            }
            "regenerate" => {
                there.request(Method::POST, &format!("/chat/sessions/{session}/regenerate"))
            }
            "resume" => there.request(Method::GET, &format!("/chat/messages/{id}/stream")),
            "cancel" => there.request(Method::POST, &format!("/chat/messages/{id}/cancel")),
            "delete" => there.request(Method::DELETE, &format!("/chat/sessions/{session}")),
            _ => there.request(Method::POST, "/chat/message").json(&body),
        };
        if what == "send and leave" {
            let patience = Duration::from_millis(random.random_range(0..60));
            tokio::time::timeout(patience, there.fetch(request)).await.ok();
            continue;
        }
        let reply = there.fetch(request).await;
        // Whoever's session is deleted, or whose answer is cancelled, by another of the crowd.
        let is_told = reply.status == 404 || allowed.contains(&reply.status);
        assert!(is_told, "{what}: {} {}", reply.status, reply.text());
        assert!(start.elapsed() < Duration::from_secs(30), "{what}: {:?}", start.elapsed());
        if reply.status == 200 && what != "resume" {
            known.push(reply.json()["message_id"].as_str().unwrap().to_owned());
        }
    }
}

async fn nothing_runs(app: &TestApp, at: usize) {
    eventually(PATIENCE, "no turn runs", || async {
        let request = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let reply = raw::ask(app.chat_admin(at), request).await;
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        let running = text.lines().find_map(|line| line.strip_prefix("chat_turns_running "));
        running.is_none_or(|running| running == "0").then_some(())
    })
    .await;
}

async fn is_whole(client: &Client, session: &str) {
    let found = client.get(&format!("/chat/sessions/{session}")).await;
    if found.status == 404 {
        return;
    }
    let history = client.history(session).await;
    assert_eq!(found.expect(200)["message_count"], history.len());
    let ids: HashSet<&str> = history.iter().filter_map(|m| m["message_id"].as_str()).collect();
    assert_eq!(ids.len(), history.len(), "an id stands twice");
    let mut before = &Value::Null;
    for message in &history {
        if message["role"] == "assistant" {
            assert_eq!(message["reply_to"], before["message_id"], "{before} {message}");
            assert_eq!(before["role"], "user", "{before} {message}");
            if message["finish_reason"] == "stop" {
                let said = format!("You said: {}", before["content"].as_str().unwrap());
                assert_eq!(message["content"], said);
            }
        }
        before = message;
    }
}

//! The queue before a model server, seen through the doors: who waits how long, what is told, and that nothing is left behind.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde_json::json;
use tests::{
    Answer, Backend, Client, Completion, Gate, PATIENCE, TestApp, completion_of, eventually,
};
use tokio::task::JoinSet;

on_both_stores!(
    a_hundred_waiting_requests_delay_another_user_by_one_turn,
    waiting_is_told_as_a_count_down,
    nothing_is_held_after_leaving_at_random,
);

async fn one_at_a_time(on: Backend) -> TestApp {
    TestApp::builder(on)
        .set("llm.ollama.max_concurrency", 1)
        .set("chat.disconnect_grace", "0s")
        .set("server.max_connections_per_address", 1000)
        .start()
        .await
}

async fn waiting(app: &TestApp, count: u32) {
    eventually(PATIENCE, &format!("{count} wait"), || async {
        let queued = app.measured(0, "llm_queued", "ollama").await;
        (queued == f64::from(count)).then_some(())
    })
    .await;
}

async fn a_hundred_waiting_requests_delay_another_user_by_one_turn(on: Backend) {
    let app = one_at_a_time(on).await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["done"], &gate));
    let (alice, bob) = (app.login("alice").await, app.login("bob").await);
    let mut asking = JoinSet::new();
    for i in 0..101 {
        let client = alice.clone();
        asking.spawn(async move {
            // Half by each door: they share one queue.
            if i % 2 == 0 {
                let body = completion_of("from alice", false);
                client.post("/v1/chat/completions", &body).await.expect(200);
            } else {
                client.send(&format!("s{i}"), "from alice").await.expect(200);
            }
        });
    }
    waiting(&app, 100).await;
    // The one that runs has its place, but its request may still be on its way.
    app.model.wait_chats(1).await;
    for door in ["/v1/chat/completions", "/chat/message"] {
        let text = format!("from bob by {door}");
        let begun = app.model.chats().len();
        let asked = bob.clone();
        let body = match door {
            "/chat/message" => json!({ "message": text }),
            _ => completion_of(&text, false),
        };
        let queued = app.measured(0, "llm_queued", "ollama").await;
        let bobs = tokio::spawn(async move { asked.post(door, &body).await.expect(200) });
        eventually(PATIENCE, "bob waits, too", || async {
            (app.measured(0, "llm_queued", "ollama").await > queued).then_some(())
        })
        .await;
        // The one that runs, one of alice's, then bob's.
        gate.release(3);
        tests::within(PATIENCE, "bob is answered", bobs).await.unwrap();
        let chats = app.model.chats();
        let bobs = chats.iter().position(|chat| chat.last_message() == text);
        let before = bobs.unwrap().saturating_sub(begun);
        assert!(before <= 1, "{before} of alice's began before bob's by {door}");
        // One of alice's took the place that bob's left.
        app.model.wait_chats(begun + 3).await;
    }
    gate.open();
    asking.join_all().await;
}

async fn waiting_is_told_as_a_count_down(on: Backend) {
    let app = one_at_a_time(on).await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["done"], &gate));
    let alice = app.login("alice").await;
    let mut streams = Vec::new();
    for i in 0..5 {
        let mut stream = alice.stream(&format!("s{i}"), "hello").await;
        stream.started().await;
        streams.push(stream);
    }
    waiting(&app, 4).await;
    gate.open();
    let mut last = streams.pop().unwrap();
    let events = last.rest().await;
    let told: Vec<u64> = events
        .iter()
        .filter(|event| event.kind == "queued")
        .map(|event| event.data["position"].as_u64().unwrap())
        .collect();
    assert_eq!(told.first(), Some(&3), "{told:?}");
    assert!(told.windows(2).all(|pair| pair[0] > pair[1]), "it only counts down: {told:?}");
    for mut stream in streams {
        stream.ending().await.expect_done("stop");
    }
    waiting(&app, 0).await;
}

/// One request by some door, given up at some moment.
async fn ask_and_leave(client: Client, door: u32, number: u32, patience: Duration) {
    let session = format!("s{number}");
    let ask = async {
        match door {
            0 => {
                let body = completion_of("hello", false);
                client.post("/v1/chat/completions", &body).await;
            }
            1 => {
                let body = completion_of("hello", true);
                let mut stream = Completion::open(&client, &body).await;
                stream.rest().await;
            }
            2 => {
                client.send(&session, "hello").await;
            }
            3 => {
                let mut stream = client.stream(&session, "hello").await;
                let id = stream.started().await;
                tokio::time::sleep(patience / 2).await;
                client.cancel(&id).await;
                stream.rest().await;
            }
            _ => {
                let request = client.request(Method::POST, "/chat/message?stream=true");
                let body = serde_json::json!({"session_id": session, "message": "hello", "on_disconnect": "cancel"});
                let mut stream = client.open(request.json(&body)).await;
                while stream.next().await.is_some() {}
            }
        }
    };
    let _ = tokio::time::timeout(patience, ask).await;
}

async fn nothing_is_held_after_leaving_at_random(on: Backend) {
    const SEED: u64 = 20_261_122;
    let app = TestApp::builder(on)
        .set("llm.ollama.max_concurrency", 3)
        .set("chat.disconnect_grace", "0s")
        .set("server.max_connections_per_address", 1000)
        .start()
        .await;
    app.model.usually(Answer::paced(["a ", "b ", "c ", "d"], Duration::from_millis(30)));
    let users = [app.login("alice").await, app.login("bob").await, app.login("carol").await];
    let mut random = StdRng::seed_from_u64(SEED);
    let mut asking = JoinSet::new();
    for number in 0..120 {
        let client = users[random.random_range(0..users.len())].clone();
        let patience = Duration::from_millis(random.random_range(1..1500));
        asking.spawn(ask_and_leave(client, random.random_range(0..5), number, patience));
    }
    asking.join_all().await;
    for gauge in ["llm_queued", "llm_running", "chat_turns_running", "chat_completions_running"] {
        eventually(PATIENCE, &format!("{gauge} is back at 0"), || async {
            (app.measured(0, gauge, "").await == 0.0).then_some(())
        })
        .await;
    }
    app.model.wait_idle(Duration::from_secs(2)).await;
    users[0].say("after-all", "hello").await;
}

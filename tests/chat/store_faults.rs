//! Redis dies, freezes, fills up, comes back: answers stay bounded, and nothing acknowledged is lost.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::{
    Answer, Auditor, Backend, Client, Gate, Mode, PATIENCE, RedisOptions, TestApp, eventually,
};

const BOUND: Duration = Duration::from_millis(1500);

async fn durable() -> TestApp {
    let options = RedisOptions { durable: true, ..RedisOptions::default() };
    TestApp::builder(Backend::Redis).redis(options).start().await
}

/// Every kind of call answers 503 soon.
async fn calls_are_refused_soon(client: &Client) {
    for _ in 0..3 {
        for path in ["/chat/sessions", "/chat/sessions/work/messages", "/chat/usage"] {
            let start = Instant::now();
            client.get(path).await.problem(503, "store_unavailable");
            assert!(start.elapsed() < BOUND, "{path} took {:?}", start.elapsed());
        }
        let start = Instant::now();
        client.send("other", "refused").await.problem(503, "store_unavailable");
        assert!(start.elapsed() < BOUND, "a message took {:?}", start.elapsed());
    }
}

async fn service_is_back(client: &Client) {
    eventually(Duration::from_secs(3), "the service is back", || async {
        (client.get("/chat/sessions").await.status == 200).then_some(())
    })
    .await;
}

/// A turn runs; the store goes away in its middle and comes back: the answer is finished and stored.
async fn a_running_answer_outlives(gone: impl AsyncFn(&TestApp), back: impl AsyncFn(&TestApp)) {
    let (app, gate) = (durable().await, Gate::new());
    app.model.answer_to("count", Answer::gated(["one ", "two ", "three"], &gate));
    let (alice, auditor) = (app.login("alice").await, Auditor::new());
    for number in 0..3 {
        let message = format!("before {number}");
        auditor.acknowledge("before", &message, &alice.say("before", &message).await);
    }
    let mut stream = alice.stream("work", "count").await;
    stream.started().await;
    gate.release(1);
    stream.next_but_queued().await.unwrap();
    gone(&app).await;
    calls_are_refused_soon(&alice).await;
    assert_eq!(alice.get("/livez").await.status, 200);
    let not_ready = || async {
        let ready = alice.get("/readyz").await;
        (ready.status == 503).then(|| ready.text())
    };
    let missing = eventually(Duration::from_secs(3), "it is not ready", not_ready).await;
    assert!(missing.contains("store"), "{missing}");
    gate.open();
    assert_eq!(stream.next().await.unwrap().data["token"], "two ");
    assert_eq!(stream.next().await.unwrap().data["token"], "three");
    back(&app).await;
    service_is_back(&alice).await;
    stream.ending().await.expect_done("stop");
    auditor.acknowledge("work", "count", "one two three");
    auditor.check(&alice).await;
    assert_eq!(alice.history("work").await.len(), 2);
    eventually(PATIENCE, "what was refused left nothing that runs", || async {
        let reply = alice.send("other", "afterwards").await;
        (reply.status == 200).then_some(())
    })
    .await;
    assert!(
        app.model.chats().iter().all(|chat| chat.last_message() != "refused"),
        "a refused message never runs"
    );
}

#[tokio::test]
async fn a_running_answer_outlives_the_death_of_redis() {
    a_running_answer_outlives(
        async |app| app.redis().kill(),
        async |app| app.redis().restart().await,
    )
    .await;
}

#[tokio::test]
async fn a_running_answer_outlives_a_frozen_redis() {
    a_running_answer_outlives(async |app| app.redis().freeze(), async |app| app.redis().thaw())
        .await;
}

#[tokio::test]
async fn an_accept_whose_answer_was_lost_never_runs_and_never_doubles() {
    let app = TestApp::builder(Backend::Redis).proxied().start().await;
    let alice = app.login("alice").await;
    alice.say("work", "before").await;
    let wire = app.store_proxy.as_ref().unwrap();
    wire.set(Mode::Swallow);
    alice.send("work", "unknown").await.problem(503, "store_unavailable");
    wire.cut_once().await;
    service_is_back(&alice).await;
    eventually(PATIENCE, "the session takes messages again", || async {
        (alice.send("work", "after").await.status == 200).then_some(())
    })
    .await;
    assert!(app.model.chats().iter().all(|chat| chat.last_message() != "unknown"));
    let talk = alice.talk("work").await;
    assert!(talk.iter().filter(|(_, text)| text == "unknown").count() <= 1, "{talk:?}");
    assert!(talk.iter().all(|(_, text)| text != "You said: unknown"), "{talk:?}");
}

#[tokio::test]
async fn connections_cut_again_and_again_lose_nothing() {
    let app = TestApp::builder(Backend::Redis).proxied().start().await;
    let (alice, auditor) = (app.login("alice").await, Auditor::new());
    let wire = app.store_proxy.as_ref().unwrap();
    for number in 0..60 {
        if number % 5 == 4 {
            wire.cut_once().await;
        }
        let message = format!("message {number}");
        let reply = alice.send("work", &message).await;
        match reply.status {
            200 => auditor.acknowledge("work", &message, reply.json()["reply"].as_str().unwrap()),
            409 | 503 => tokio::time::sleep(Duration::from_millis(100)).await,
            other => panic!("{other}: {}", reply.text()),
        }
    }
    assert!(auditor.count() > 30, "only {} got through", auditor.count());
    auditor.check(&alice).await;
}

#[tokio::test]
async fn an_embedded_store_keeps_everything_over_a_kill() {
    let mut app = TestApp::start(Backend::Embedded).await;
    let (alice, auditor) = (app.login("alice").await, Auditor::new());
    for number in 0..10 {
        let message = format!("{number}");
        auditor.acknowledge("work", &message, &alice.say("work", &message).await);
    }
    app.model.usually(Answer::partial(["half"]).hang());
    let body = json!({"session_id": "open", "message": "count"});
    let mut stream = alice.stream_body(&body).await;
    stream.started().await;
    stream.next_but_queued().await.unwrap();
    app.chat_process(0).kill();
    app.restart_chat(0).await;
    let alice = app.stranger().with_token(alice.token());
    auditor.check(&alice).await;
    let open = alice.history("open").await;
    assert_eq!(open[0]["content"], "count");
    assert!(open.get(1).is_none_or(|answer| answer["finish_reason"] == "interrupted"), "{open:?}");
    app.model.usually(Answer::echo());
    alice.say("open", "go on").await;
}

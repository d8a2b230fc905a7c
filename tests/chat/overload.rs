//! More than an instance can do: what it cannot take is refused at once, and the rest goes on.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use serde_json::json;
use tests::{Answer, Backend, Client, PATIENCE, Process, TestApp, eventually, within};
use tokio::task::JoinSet;

/// More requests in flight than are always taken.
const STREAMS: usize = 300;

/// Lets an instance run for a third of the time: it is short of CPU on every machine, and nobody else is.
async fn starve(instance: &Process) -> Infallible {
    loop {
        instance.freeze();
        tokio::time::sleep(Duration::from_millis(100)).await;
        instance.thaw();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn read_for_ever(hog: Client, number: usize) {
    let body = json!({"session_id": format!("s{number}"), "message": "go on for ever"});
    let request = hog.request(http::Method::POST, "/chat/message?stream=true");
    let Ok(mut answer) = request.json(&body).send().await else {
        return;
    };
    while let Ok(Some(_)) = answer.chunk().await {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_instance_cannot_take_is_refused_and_the_rest_goes_on() {
    let app = TestApp::builder(Backend::Redis)
        .set("llm.ollama.max_concurrency", 2 * STREAMS)
        .set("server.max_connections_per_address", 10 * STREAMS)
        .start()
        .await;
    let endless = Answer::endless("word ", Duration::from_millis(100));
    app.model.answer_to("go on for ever", endless);
    let (hog, alice) = (app.login("hog").await, app.login("alice").await);
    let mut reading = JoinSet::new();
    for number in 0..STREAMS {
        reading.spawn(read_for_ever(hog.at(app.chat(0)), number));
    }
    let overloaded = async {
        let refused = eventually(PATIENCE, "who has most in flight is refused", || async {
            let reply = hog.get("/chat/sessions").await;
            (reply.status != 200).then_some(reply)
        })
        .await;
        refused.problem(503, "overloaded");
        assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
        alice.get("/chat/sessions").await.expect(200);
        for path in ["/livez", "/health", "/readyz"] {
            let asked = Instant::now();
            within(PATIENCE, path, alice.get(path)).await;
            let took = asked.elapsed();
            assert!(took < Duration::from_secs(1), "{path}: {took:?}");
        }
    };
    tokio::select! {
        never = starve(app.chat_process(0)) => match never {},
        () = overloaded => app.chat_process(0).thaw(),
    }
    reading.abort_all();
    eventually(PATIENCE, "all is as before", || async {
        (hog.get("/chat/sessions").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(alice.say("work", "hello").await, "You said: hello");
}

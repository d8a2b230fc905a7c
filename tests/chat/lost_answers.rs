//! Steps whose answers come late or never from the store, and what other instances do meanwhile.

use std::{net::SocketAddr, time::Duration};

use redis::Value as Found;
use reqwest::Method;
use serde_json::{Value, json};
use tests::{
    Answer, Backend, Client, EventStream, Gate, Mode, PATIENCE, Process, TestApp, eventually,
};

/// One more instance, whose wire to Redis is never disturbed, and where it listens.
async fn undisturbed(app: &TestApp) -> (Process, SocketAddr) {
    let process = app.spawn_chat_on(app.redis().url());
    let address = process.address("chat", false).await;
    let somebody = Client::stranger(address, app.auth()).log_in("somebody").await;
    eventually(PATIENCE, "the instance knows its models", || async {
        let models = somebody.get("/chat/models").await;
        (models.status == 200 && models.text().contains("gemma3")).then_some(())
    })
    .await;
    (process, address)
}

/// The store takes an answer, and its instance does not hear of it: another answer may take its place before the instance asks
/// again.
#[tokio::test]
async fn an_answer_that_was_stored_unheard_and_then_replaced_ends_as_it_was_stored() {
    let app = TestApp::builder(Backend::Redis).proxied().start().await;
    let (_process, address) = undisturbed(&app).await;
    let gate = Gate::new();
    app.model.next(Answer::gated(["one ", "two"], &gate));
    let alice = app.login("alice").await;
    let there = alice.at(address);
    let mut stream = alice.stream("work", "count").await;
    stream.started().await;
    gate.release(1);
    stream.next_but_queued().await.unwrap();
    let wire = app.store_proxy.as_ref().unwrap();
    wire.set(Mode::Swallow);
    gate.open();
    eventually(PATIENCE, "the answer is stored", || async {
        (there.history("work").await.len() == 2).then_some(())
    })
    .await;
    there.post_empty("/chat/sessions/work/regenerate").await.expect(200);
    wire.cut_once().await;
    stream.ending().await.expect_done("stop");
    let talk = there.talk("work").await;
    let texts: Vec<&str> = talk.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["count", "You said: count"]);
}

/// What Redis holds under that key, as JSON.
async fn stored(app: &TestApp, key: &str) -> Option<Value> {
    match app.redis().cli(&["GET", key]).await {
        Found::BulkString(bytes) => serde_json::from_slice(&bytes).ok(),
        _ => None,
    }
}

/// Between its acceptance and its start, a turn is known to the store alone.
#[tokio::test]
async fn a_cancel_that_comes_before_its_turn_has_started_is_not_lost() {
    const TEXT: &str = "please be quick";
    let app = TestApp::builder(Backend::Redis).proxied().start().await;
    let (_process, address) = undisturbed(&app).await;
    app.model.usually(Answer::partial(["word "]).hang());
    let alice = app.login("alice").await;
    let there = alice.at(address);
    // While a turn runs, its instance reads what others ask of it.
    let mut running = alice.stream("running", "go").await;
    running.started().await;
    let wire = app.store_proxy.as_ref().unwrap();
    for number in 0..10 {
        let session = format!("s{number}");
        wire.set(Mode::HoldAnswersTo(TEXT));
        let body = json!({"session_id": session, "message": TEXT});
        let request = alice.request(Method::POST, "/chat/message?stream=true").json(&body);
        let asking = tokio::spawn(request.send());
        let key = format!("c:{{alice}}:0:s:{session}");
        let id = eventually(PATIENCE, "it is accepted", || async {
            let session = stored(&app, &key).await?;
            session["open"]["id"].as_str().map(str::to_owned)
        })
        .await;
        there.cancel(&id).await.expect(202);
        // The cancel has been read, but for a machine on which that takes longer than accepting may.
        let read = async {
            while app.redis().cli(&["KEYS", "c:*:inbox"]).await != Found::Array(vec![]) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        };
        let is_read = tokio::time::timeout(Duration::from_millis(600), read).await.is_ok();
        wire.set(Mode::Pass);
        let response = asking.await.unwrap().unwrap();
        if is_read && response.status() == 200 {
            let ending = EventStream::open(response).await.ending().await;
            return ending.expect_done("cancelled");
        }
        wire.cut_once().await;
    }
    panic!("no turn was accepted in time");
}

//! Turns of one session run one after another, over all instances.

use std::sync::Arc;

use serde_json::json;
use tests::{Answer, Auditor, Backend, Gate, TestApp};

on_both_stores!(
    twelve_messages_at_once_end_as_twelve_pairs_in_order,
    fifty_turns_alternate,
    a_session_that_stays_busy_is_409,
    a_history_read_while_it_is_written_never_goes_back,
);

async fn twelve_messages_at_once_end_as_twelve_pairs_in_order(on: Backend) {
    let app = TestApp::builder(on).chats(2).start().await;
    let alice = app.login("alice").await;
    let auditor = Arc::new(Auditor::new());
    let mut sending = tokio::task::JoinSet::new();
    for number in 0..12 {
        let (client, auditor) =
            (alice.at(app.chat(number % app.instances())), Arc::clone(&auditor));
        sending.spawn(async move {
            let message = format!("message {number}");
            let reply = client.say("work", &message).await;
            auditor.acknowledge("work", &message, &reply);
        });
    }
    while let Some(sent) = sending.join_next().await {
        sent.unwrap();
    }
    auditor.check(&alice).await;
    let talk = alice.talk("work").await;
    assert_eq!((talk.len(), auditor.count()), (24, 12));
    assert!(talk.chunks(2).all(|pair| pair[1].1 == format!("You said: {}", pair[0].1)), "{talk:?}");
    let lengths: Vec<usize> = app.model.chats().iter().map(|chat| chat.messages().len()).collect();
    assert_eq!(
        lengths,
        (0..12).map(|turn| 2 * turn + 1).collect::<Vec<_>>(),
        "each turn saw all before it"
    );
}

async fn fifty_turns_alternate(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    for number in 0..50 {
        alice.say("work", &format!("message {number}")).await;
    }
    let history = alice.history("work").await;
    assert_eq!(history.len(), 100);
    for (number, pair) in history.chunks(2).enumerate() {
        assert_eq!(pair[0]["content"], format!("message {number}"));
        assert_eq!(pair[1]["reply_to"], pair[0]["message_id"]);
    }
}

async fn a_session_that_stays_busy_is_409(on: Backend) {
    let app = TestApp::builder(on).chats(2).start().await;
    let gate = Gate::new();
    app.model.answer_to("first", Answer::gated(["done"], &gate));
    let alice = app.login("alice").await;
    let mut running = alice.stream("work", "first").await;
    running.started().await;
    let other = alice.at(app.chat(app.instances() - 1));
    other.send("work", "second").await.problem(409, "session_busy");
    gate.open();
    running.rest().await;
    assert_eq!(alice.history("work").await.len(), 2, "the refused one left nothing");
}

async fn a_history_read_while_it_is_written_never_goes_back(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let writer = alice.clone();
    let writing = tokio::spawn(async move {
        for number in 0..20 {
            writer
                .post(
                    "/chat/message",
                    &json!({"session_id": "work", "message": format!("{number}")}),
                )
                .await
                .expect(200);
        }
    });
    let mut longest = 0;
    while !writing.is_finished() {
        let reply = alice.get("/chat/sessions/work/messages?limit=500").await;
        let read = if reply.status == 404 {
            0
        } else {
            reply.expect(200)["messages"].as_array().unwrap().len()
        };
        assert!(read >= longest, "{read} after {longest}");
        longest = read;
    }
    writing.await.unwrap();
    assert_eq!(alice.history("work").await.len(), 40);
}

//! The rate limit: exact, per user, over all instances and all wires.

use std::time::Duration;

use serde_json::json;
use tests::{Answer, Backend, Client, Mode, PATIENCE, Reply, TestApp, eventually};
use tokio::task::JoinSet;

on_both_stores!(
    exactly_as_many_as_allowed_are_admitted_over_all_instances,
    a_refused_caller_is_admitted_after_the_wait_it_was_told,
    every_wire_costs_the_same_bucket,
    every_turn_is_counted_once_and_one_too_many_leaves_nothing,
    of_turns_at_once_exactly_as_many_as_allowed_begin,
    a_refusal_of_the_limit_comes_before_any_other,
    a_repetition_costs_nothing,
    repetitions_are_free_ten_times_as_often_as_requests_are_allowed,
    health_and_documents_cost_nothing,
    a_days_tokens_run_out,
);

async fn limited(on: Backend, requests: u32, period: &str) -> TestApp {
    let app = TestApp::builder(on)
        .chats(2)
        .set("rate_limit.requests", requests)
        .set("rate_limit.period", period);
    let app = app.without_waiting().start().await;
    app.wait_up().await;
    app
}

async fn ask(client: &Client) -> Reply {
    client.get("/chat/sessions").await
}

async fn exactly_as_many_as_allowed_are_admitted_over_all_instances(on: Backend) {
    let app = limited(on, 20, "10m").await;
    let (alice, bob) = (app.login("alice").await, app.login("bob").await);
    let mut asking = JoinSet::new();
    for number in 0..100 {
        let client = alice.at(app.chat(number % app.instances()));
        asking.spawn(async move { ask(&client).await });
    }
    let replies = asking.join_all().await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 20);
    for reply in &replies {
        assert!(reply.header("ratelimit-policy").contains("q=20"), "{:?}", reply.headers);
        assert!(reply.header("ratelimit").contains("r="), "{:?}", reply.headers);
        if reply.status != 200 {
            reply.problem(429, "rate_limited");
        }
    }
    ask(&bob).await.expect(200);
}

async fn a_refused_caller_is_admitted_after_the_wait_it_was_told(on: Backend) {
    let app = limited(on, 2, "4s").await;
    let alice = app.login("alice").await;
    ask(&alice).await.expect(200);
    ask(&alice).await.expect(200);
    let refused = ask(&alice).await;
    refused.problem(429, "rate_limited");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    ask(&alice).await.problem(429, "rate_limited");
    tokio::time::sleep(Duration::from_secs(wait)).await;
    ask(&alice).await.expect(200);
}

async fn every_wire_costs_the_same_bucket(on: Backend) {
    let app = limited(on, 6, "10m").await;
    let alice = app.login("alice").await;
    ask(&alice).await.expect(200);
    alice.send("work", " ").await.problem(422, "validation_failed");
    let mut socket = alice.socket().await;
    socket.send(&json!({"message": " ", "ref": "a"})).await;
    assert_eq!(socket.with_ref("a").await["code"], "validation_failed");
    for _ in 0..4 {
        ask(&alice).await;
    }
    ask(&alice).await.problem(429, "rate_limited");
    socket.send(&json!({"message": "x", "ref": "b"})).await;
    let refused = socket.with_ref("b").await;
    assert_eq!(refused["code"], "rate_limited");
    let wait = refused["retry_after"].as_u64().unwrap();
    assert!((1..=100).contains(&wait), "{refused}");
}

/// How many more would pass, as an answer says.
fn left(reply: &Reply) -> u32 {
    let said = reply.header("ratelimit");
    let (_, left) = said.split_once(";r=").unwrap();
    left.split(';').next().unwrap().parse().unwrap()
}

async fn every_turn_is_counted_once_and_one_too_many_leaves_nothing(on: Backend) {
    let app = limited(on, 6, "1m").await;
    let alice = app.login("alice").await;
    // The first reads its session from the store, the others know it; one is another answer to the same message.
    for expected in [5, 4, 3] {
        let reply = alice.send("work", "hello").await;
        assert_eq!((reply.status, left(&reply)), (200, expected));
    }
    let body = json!({"message": "hello", "session_id": "work"});
    let streamed = alice.post("/chat/message?stream=true", &body).await;
    assert_eq!((streamed.status, left(&streamed)), (200, 2));
    let again = alice.post("/chat/sessions/work/regenerate", &json!({})).await;
    assert_eq!((again.status, left(&again)), (200, 1));
    ask(&alice).await.expect(200);
    let again = alice.post("/chat/sessions/work/regenerate", &json!({})).await;
    again.problem(429, "rate_limited");
    let refused = alice.send("work", "one too many").await;
    refused.problem(429, "rate_limited");
    assert_eq!(left(&refused), 0);
    assert!(refused.header("ratelimit-policy").contains("q=6"));
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    tokio::time::sleep(Duration::from_secs(wait)).await;
    assert_eq!(alice.history("work").await.len(), 8);
    assert_eq!(app.model.chats().len(), 5);
}

async fn of_turns_at_once_exactly_as_many_as_allowed_begin(on: Backend) {
    let app = limited(on, 20, "10m").await;
    let alice = app.login("alice").await;
    // Sessions that their instances know.
    for number in 0..8 {
        let client = alice.at(app.chat(number % app.instances()));
        client.send(&format!("s{number}"), "hello").await.expect(200);
    }
    let mut asking = JoinSet::new();
    for number in 0..48 {
        let client = alice.at(app.chat(number % app.instances()));
        asking.spawn(async move { client.send(&format!("s{}", number % 8), "more").await });
    }
    let replies = asking.join_all().await;
    let good = replies.iter().filter(|reply| reply.status == 200).count();
    assert_eq!(good, 12);
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        reply.problem(429, "rate_limited");
    }
    assert_eq!(app.model.chats().len(), 20);
}

#[tokio::test]
async fn a_turn_whose_acceptance_was_not_heard_is_counted_once_and_never_refused() {
    let app = TestApp::builder(Backend::Redis).proxied();
    let app = app.set("rate_limit.requests", 5).set("rate_limit.period", "10m");
    let app = app.without_waiting().start().await;
    app.wait_up().await;
    let alice = app.login("alice").await;
    app.model.answer_to("fail", Answer::partial(["half"]).drop_connection());
    // From here on the session is known, and a turn is counted as it is accepted; and Redis knows the script.
    alice.say("work", "hello").await;
    alice.say("work", "one").await;
    for (message, expected) in [("two", 2), ("three", 1)] {
        let reply = unheard(&app, &alice, message).await;
        assert_eq!((reply.status, left(&reply)), (200, expected), "{message}");
    }
    let failed = unheard(&app, &alice, "fail").await;
    failed.problem(502, "llm_failed");
    assert_eq!(left(&failed), 0);
    alice.send("work", "one too many").await.problem(429, "rate_limited");
    assert_eq!(app.model.chats().len(), 5);
}

/// Sends a message whose acceptance the store does not get to say.
async fn unheard(app: &TestApp, client: &Client, message: &str) -> Reply {
    let wire = app.store_proxy.as_ref().unwrap();
    let accepted = async {
        eventually(PATIENCE, "it is accepted", || async {
            let keys = app.redis().cli(&["KEYS", "c:*:l:*"]).await;
            matches!(keys, redis::Value::Array(keys) if !keys.is_empty()).then_some(())
        })
        .await;
        wire.cut_once().await;
    };
    // The connection to the store is made anew after the last cut, by the thread that will use it.
    client.get("/readyz").await.expect(200);
    wire.set(Mode::Swallow);
    let (reply, ()) = tokio::join!(client.send("work", message), accepted);
    reply
}

async fn a_refusal_of_the_limit_comes_before_any_other(on: Backend) {
    let app = limited(on, 2, "10m").await;
    let alice = app.login("alice").await;
    let wrong = [
        ("/chat/message", json!({"message": " "}), 422),
        ("/chat/sessions/none/regenerate", json!({}), 404),
    ];
    for (path, body, status) in &wrong {
        assert_eq!(alice.post(path, body).await.status, *status);
    }
    for (path, body, _) in &wrong {
        alice.post(path, body).await.problem(429, "rate_limited");
    }
    alice.send_once("k", &json!({"message": "hello"})).await.problem(429, "rate_limited");
    assert!(app.model.chats().is_empty());
}

async fn a_repetition_costs_nothing(on: Backend) {
    let app = limited(on, 6, "10m").await;
    let (alice, body) = (app.login("alice").await, json!({"message": "hello"}));
    tests::eventually(tests::PATIENCE, "the model is known", || async {
        // Each look by a user of its own, since each has six calls.
        let somebody = app.login(&uuid::Uuid::new_v4().to_string()).await;
        let models = somebody.get("/chat/models").await.expect(200);
        (!models["models"].as_array()?.is_empty()).then_some(())
    })
    .await;
    alice.send_once("k", &body).await.expect(200);
    for _ in 0..20 {
        alice.send_once("k", &body).await.expect(200);
    }
    assert_eq!(app.model.chats().len(), 1);
}

async fn repetitions_are_free_ten_times_as_often_as_requests_are_allowed(on: Backend) {
    let app = limited(on, 3, "10m").await;
    let alice = app.login("alice").await;
    let body = json!({"session_id": "work", "message": "hello"});
    let mut answered = 0;
    let refused = loop {
        let reply = alice.send_once("k", &body).await;
        if reply.status != 200 {
            break reply;
        }
        answered += 1;
        assert!(answered < 50, "repetitions have no limit");
    };
    refused.problem(429, "rate_limited");
    // The first costs one, thirty repetitions nothing, two more what is left.
    assert_eq!(answered, 1 + 30 + 2);
    assert_eq!(app.model.chats().len(), 1);
}

async fn health_and_documents_cost_nothing(on: Backend) {
    let app = limited(on, 2, "10m").await;
    let somebody = app.stranger();
    for _ in 0..5 {
        for path in ["/health", "/livez", "/readyz", "/openapi.json", "/.well-known/jwks.json"] {
            assert_eq!(somebody.get(path).await.status, 200, "{path}");
        }
    }
    let counted =
        [somebody.get("/chat/sessions").await.status, somebody.get("/chat/sessions").await.status];
    assert_eq!(counted, [401, 401]);
    somebody.get("/chat/sessions").await.problem(429, "rate_limited");
}

async fn a_days_tokens_run_out(on: Backend) {
    let app = TestApp::builder(on).set("rate_limit.tokens_per_day", 3000).start().await;
    let alice = app.login("alice").await;
    let body = json!({"message": "word ".repeat(200), "options": {"max_tokens": 100}});
    let mut answered = 0;
    let refused = loop {
        let reply = alice.post("/chat/message", &body).await;
        if reply.status != 200 {
            break reply;
        }
        answered += 1;
        assert!(answered < 30, "the quota never ends");
    };
    assert!(answered > 0);
    refused.problem(429, "quota_exceeded");
    let usage = alice.get("/chat/usage").await.expect(200);
    assert_eq!(usage["today"]["requests"], answered, "{usage}");
    assert_eq!(usage["quota"]["tokens_per_day"], 3000, "{usage}");
    assert_eq!(alice.history("default").await.len(), 2 * answered);
}

//! What is used of a day: reserved before, settled after, the same for `/chat` and `/v1` and over all instances.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tests::{
    Answer, Backend, Client, Completion, Gate, Mode, PATIENCE, TestApp, completion_of, eventually,
};
use tokio::task::JoinSet;

on_both_stores!(
    what_is_used_is_told_the_same_for_both_doors,
    a_running_answer_holds_its_reservation_and_gives_back_the_rest,
    an_answer_is_limited_to_what_is_left_of_the_quota,
    a_prompt_may_leave_less_than_256_tokens_to_its_answer,
    no_more_is_begun_than_the_quota_holds_however_many_ask_at_once,
    a_refused_or_repeated_request_costs_nothing,
    a_cancelled_answer_costs_what_was_said,
    a_cancelled_answer_is_counted_as_the_server_counts,
    a_failed_answer_costs_what_was_said,
    a_caller_who_leaves_pays_for_what_was_said,
    without_a_quota_use_is_counted_and_nothing_refused,
);

async fn with_quota(on: Backend, tokens: u64) -> TestApp {
    TestApp::builder(on)
        .chats(2)
        .set("rate_limit.tokens_per_day", tokens)
        .set("chat.disconnect_grace", "0s")
        .start()
        .await
}

async fn usage(client: &Client) -> Value {
    client.get("/chat/usage").await.expect(200)
}

fn spent(usage: &Value) -> u64 {
    let today = &usage["today"];
    today["prompt_tokens"].as_u64().unwrap() + today["completion_tokens"].as_u64().unwrap()
}

/// Waits until nothing is reserved any more, and gives what was spent: with the quota, what is left says so.
async fn settled(client: &Client, quota: u64) -> Value {
    eventually(PATIENCE, "everything is settled", || async {
        let usage = usage(client).await;
        (usage["quota"]["left"].as_u64().unwrap() + spent(&usage) == quota).then_some(usage)
    })
    .await
}

fn completion(text: &str, stream: bool, max_tokens: u32) -> Value {
    let mut body = completion_of(text, stream);
    body["max_tokens"] = json!(max_tokens);
    body
}

async fn complete(client: &Client, body: &Value) -> tests::Reply {
    client.post("/v1/chat/completions", body).await
}

async fn what_is_used_is_told_the_same_for_both_doors(on: Backend) {
    let app = with_quota(on, 100_000).await;
    let alice = app.login("alice").await;
    let other = alice.at(app.chat(app.instances() - 1));
    let one = alice.send("work", "hello there").await.expect(200)["usage"].clone();
    let two =
        complete(&other, &completion("hello again", false, 50)).await.expect(200)["usage"].clone();
    let mut body = completion("and again", true, 50);
    body["stream_options"] = json!({"include_usage": true});
    let chunks = Completion::open(&other, &body).await.rest().await;
    let three = chunks.last().unwrap()["usage"].clone();
    let sum = |name: &str| -> u64 {
        [&one, &two, &three].iter().map(|usage| usage[name].as_u64().unwrap()).sum()
    };
    let told = settled(&alice, 100_000).await;
    assert_eq!(
        told["today"],
        json!({"prompt_tokens": sum("prompt_tokens"), "completion_tokens": sum("completion_tokens"), "requests": 3})
    );
    let midnight = told["quota"]["resets_at"].as_str().unwrap();
    assert!(midnight.ends_with("T00:00:00.000Z"), "{midnight}");
    assert_eq!(usage(&app.login("bob").await).await["quota"]["left"], 100_000);
}

async fn a_running_answer_holds_its_reservation_and_gives_back_the_rest(on: Backend) {
    let app = with_quota(on, 1000).await;
    let gate = Gate::new();
    app.model.answer_to("wait", Answer::gated(["done"], &gate));
    let alice = app.login("alice").await;
    let other = alice.at(app.chat(app.instances() - 1));
    let mut stream = Completion::open(&alice, &completion("wait", true, 900)).await;
    let left = usage(&other).await["quota"]["left"].as_u64().unwrap();
    assert!((1..100).contains(&left), "{left}");
    let refused = complete(&other, &completion("more", false, 200)).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (429, &json!("quota_exceeded")));
    assert_eq!((refused.header("retry-after"), refused.header("x-should-retry")), ("5", ""));
    let body = json!({"message": "more", "options": {"max_tokens": 200}});
    let refused = other.post("/chat/message", &body).await;
    assert_eq!(refused.header("retry-after"), "5");
    let told = refused.problem(429, "quota_exceeded");
    assert!(told["detail"].as_str().unwrap().starts_with("Running answers hold"), "{told}");
    gate.open();
    stream.rest().await;
    let told = settled(&alice, 1000).await;
    assert_eq!(told["today"]["requests"], 1, "{told}");
    complete(&other, &completion("more", false, 200)).await.expect(200);
    other.post("/chat/message", &body).await.expect(200);
    assert_eq!(app.model.chats().len(), 3);
}

async fn an_answer_is_limited_to_what_is_left_of_the_quota(on: Backend) {
    let app = with_quota(on, 1000).await;
    let gate = Gate::new();
    app.model.answer_to("wait", Answer::gated(["done"], &gate));
    app.model.answer_to("long", Answer::partial(["so far"]).done("length"));
    let alice = app.login("alice").await;
    let _first = Completion::open(&alice, &completion("wait", true, 600)).await;
    let left = usage(&alice).await["quota"]["left"].as_u64().unwrap();
    let turn = alice.send("work", "long one").await.expect(200);
    assert_eq!(turn["finish_reason"], "length", "{turn}");
    complete(&alice, &completion("long two", false, 5000)).await.expect(200);
    for asked in ["long one", "long two"] {
        let most = app.model.asked(asked).body["options"]["num_predict"].as_u64().unwrap();
        assert!((256..left).contains(&most), "{asked}: {most} of {left}");
    }
    let _second = Completion::open(&alice, &completion("wait", true, 150)).await;
    let told = alice.send("work", "long three").await.problem(429, "quota_exceeded");
    let holds = "Running answers hold what is left of the quota";
    assert!(told["detail"].as_str().unwrap().starts_with(holds), "{told}");
    let refused = complete(&alice, &completion("long four", false, 5000)).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (429, &json!("quota_exceeded")));
}

async fn a_prompt_may_leave_less_than_256_tokens_to_its_answer(on: Backend) {
    let app = with_quota(on, 600).await;
    let alice = app.login("alice").await;
    let body = completion(&"word ".repeat(300), false, 5000);
    complete(&alice, &body).await.expect(200);
    let most = app.model.chats()[0].body["options"]["num_predict"].as_u64().unwrap();
    assert!(most < 256, "{most}");
    let refused = complete(&alice, &completion(&"word ".repeat(3000), false, 5000)).await;
    let told = refused.expect(429)["error"]["message"].clone();
    assert!(told.as_str().unwrap().starts_with("Less is left of the quota"), "{told}");
}

async fn no_more_is_begun_than_the_quota_holds_however_many_ask_at_once(on: Backend) {
    // Each reserves about 110 of 1,000.
    let app = with_quota(on, 1000).await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["done"], &gate));
    let alice = app.login("alice").await;
    let mut asking = JoinSet::new();
    for i in 0..40 {
        let client = alice.at(app.chat(i % app.instances()));
        asking.spawn(async move {
            if i % 4 < 2 {
                let body = completion("hello", false, 100);
                let reply = complete(&client, &body).await;
                (reply.status, reply.json()["error"]["code"].clone())
            } else {
                let body = json!({"session_id": format!("s{i}"), "message": "hello", "options": {"max_tokens": 100}});
                let reply = client.post("/chat/message", &body).await;
                (reply.status, reply.json()["code"].clone())
            }
        });
    }
    let mut answers = Vec::new();
    while answers.len() < 32 {
        answers.push(asking.join_next().await.unwrap().unwrap());
    }
    assert!(
        answers.iter().all(|(status, code)| *status == 429 && code == "quota_exceeded"),
        "{answers:?}"
    );
    gate.open();
    while let Some(answer) = asking.join_next().await {
        assert_eq!(answer.unwrap().0, 200);
    }
    assert_eq!(settled(&alice, 1000).await["today"]["requests"], 8);
}

async fn a_refused_or_repeated_request_costs_nothing(on: Backend) {
    let app = with_quota(on, 5000).await;
    let alice = app.login("alice").await;
    let body = json!({"session_id": "work", "message": "hello"});
    alice.send_once("k", &body).await.expect(200);
    let before = settled(&alice, 5000).await;
    alice.send_once("k", &body).await.expect(200);
    let mut unknown = completion("hello", false, 10);
    unknown["model"] = json!("nowhere:1b");
    let long = completion(&"word ".repeat(30_000), false, 10);
    for (request, status) in [(&unknown, 404), (&long, 422), (&json!({}), 400)] {
        assert_eq!(complete(&alice, request).await.status, status, "{request}");
    }
    let stranger = app.stranger();
    assert_eq!(complete(&stranger, &completion("hello", false, 10)).await.status, 401);
    alice.send("work", " ").await.problem(422, "validation_failed");
    assert_eq!(usage(&alice).await["today"], before["today"]);
    assert_eq!(usage(&alice).await["quota"]["left"], before["quota"]["left"]);
}

async fn a_cancelled_answer_costs_what_was_said(on: Backend) {
    let app = with_quota(on, 5000).await;
    app.model.usually(Answer::partial(["one ", "two ", "three "]).hang());
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "count").await;
    let id = stream.started().await;
    for _ in 0..3 {
        stream.next_but_queued().await.unwrap();
    }
    assert_eq!(alice.cancel(&id).await.status, 202);
    let end = stream.rest().await.pop().unwrap();
    end.expect_done("cancelled");
    let told = settled(&alice, 5000).await;
    assert_eq!(
        told["today"]["completion_tokens"], end.data["usage"]["completion_tokens"],
        "{told}"
    );
    assert!(told["today"]["completion_tokens"].as_u64().unwrap() >= 3, "{told}");
}

/// An answer that is stopped comes without the server's counts: a token came with each of its lines, and how many tokens a prompt
/// has is known from those that it counted.
async fn a_cancelled_answer_is_counted_as_the_server_counts(on: Backend) {
    const TOKENS: usize = 5;
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let whole =
        r#"{"message":{"content":"fine"},"done":true,"prompt_eval_count":23,"eval_count":1}"#;
    app.model.next(Answer::new().body(whole).eof());
    let counted = alice.send("whole", "how long is it").await.expect(200)["usage"].clone();
    assert_eq!(counted["prompt_tokens"], 23);
    let token = "x".repeat(200);
    app.model.usually(Answer::partial(vec![token.clone(); TOKENS]).hang());
    let mut stream = alice.stream("stopped", "how long is it").await;
    let id = stream.started().await;
    let mut said = 0;
    while said < TOKENS * token.len() {
        said += stream.next_but_queued().await.unwrap().data["token"].as_str().unwrap().len();
    }
    assert_eq!(alice.cancel(&id).await.status, 202);
    let usage = stream.ending().await.data["usage"].clone();
    let told = ["completion_tokens", "prompt_tokens"].map(|member| &usage[member]);
    assert_eq!(told, [&json!(TOKENS), &counted["prompt_tokens"]], "{usage}");
}

async fn a_failed_answer_costs_what_was_said(on: Backend) {
    let app = with_quota(on, 5000).await;
    let alice = app.login("alice").await;
    app.model.usually(Answer::refuse(500, "", "{}"));
    assert_eq!(complete(&alice, &completion("hello", false, 10)).await.status, 502);
    alice.send("work", "hello").await.problem(502, "llm_failed");
    let told = settled(&alice, 5000).await;
    assert_eq!(told["today"], json!({"prompt_tokens": 0, "completion_tokens": 0, "requests": 2}));
    app.model.usually(Answer::partial(["one ", "two ", "three "]).reset());
    complete(&alice, &completion("hello", true, 10)).await;
    let told = settled(&alice, 5000).await;
    assert!((3..10).contains(&told["today"]["completion_tokens"].as_u64().unwrap()), "{told}");
    assert!(told["today"]["prompt_tokens"].as_u64().unwrap() > 0);
}

async fn a_caller_who_leaves_pays_for_what_was_said(on: Backend) {
    let app = with_quota(on, 5000).await;
    app.model.usually(Answer::partial(["one ", "two ", "three "]).hang());
    let alice = app.login("alice").await;
    let mut stream = Completion::open(&alice, &completion("count", true, 1000)).await;
    for _ in 0..4 {
        stream.chunk().await;
    }
    drop(stream);
    let told = settled(&alice, 5000).await;
    let said = told["today"]["completion_tokens"].as_u64().unwrap();
    assert!((3..10).contains(&said), "{told}");
    app.model.usually(Answer::new().hang());
    let request = alice
        .request(Method::POST, "/v1/chat/completions")
        .json(&completion("silence", false, 1000));
    let asking = tokio::spawn(request.send());
    app.model.wait_chats(2).await;
    asking.abort();
    let told = settled(&alice, 5000).await;
    assert_eq!(told["today"]["completion_tokens"], said, "{told}");
    assert_eq!(told["today"]["requests"], 2, "{told}");
}

#[tokio::test]
async fn what_the_store_did_not_take_in_time_is_settled_when_it_is_back() {
    let app = TestApp::builder(Backend::Redis)
        .proxied()
        .set("rate_limit.tokens_per_day", 5000)
        .start()
        .await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["one ", "two"], &gate));
    let alice = app.login("alice").await;
    let mut stream = Completion::open(&alice, &completion("count", true, 1000)).await;
    let proxy = app.store_proxy.as_ref().unwrap();
    proxy.set(Mode::Freeze);
    gate.open();
    let end = tests::within(Duration::from_secs(4), "the answer ends", stream.rest()).await;
    assert_eq!(end.last().unwrap()["choices"][0]["finish_reason"], "stop");
    let start = Instant::now();
    let refused = complete(&alice, &completion("refused", false, 10)).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (503, &json!("store_unavailable"))
    );
    assert!(start.elapsed() < Duration::from_millis(1500));
    proxy.set(Mode::Pass);
    eventually(PATIENCE, "the service is back", || async {
        (alice.get("/chat/usage").await.status == 200).then_some(())
    })
    .await;
    let told = settled(&alice, 5000).await;
    assert_eq!(told["today"]["requests"], 1, "{told}");
    assert!(spent(&told) > 0, "{told}");
}

async fn without_a_quota_use_is_counted_and_nothing_refused(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let answer = complete(&alice, &completion("hello", false, 100_000)).await.expect(200);
    let told = eventually(Duration::from_secs(5), "it is counted", || async {
        let told = usage(&alice).await;
        (spent(&told) > 0).then_some(told)
    })
    .await;
    assert_eq!(Some(spent(&told)), answer["usage"]["total_tokens"].as_u64());
    assert!(told.get("quota").is_none(), "{told}");
}

//! Completions on their way: signs of life, failures at every moment, and what ends one.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Answer, Backend, Completion, Gate, PATIENCE, TestApp, completion_of, text_of_chunks};

on_both_stores!(
    a_stream_begins_with_the_role_and_ends_with_the_finish_and_the_usage,
    thoughts_and_tool_calls_are_streamed,
    a_slow_model_is_bridged_by_signs_of_life,
    a_failure_before_the_first_token_is_a_status_while_it_can_be,
    a_late_failure_is_an_error_in_the_stream,
    a_cut_off_answer_is_an_error_in_the_stream,
    a_caller_who_leaves_before_the_first_token_stops_the_model,
    a_caller_who_leaves_the_queue_is_never_asked_for,
    a_whole_request_that_is_given_up_stops_the_model,
    a_revoked_token_ends_the_stream,
    an_endless_answer_ends_as_length,
    a_stop_lets_an_answer_end_and_then_says_so,
);

const SECOND: Duration = Duration::from_secs(1);

fn error_of(chunks: &[Value], code: &str) {
    let error = &chunks.last().expect("an error")["error"];
    assert_eq!(error["code"], code, "{chunks:?}");
    assert!(error["message"].is_string() && error["type"].is_string(), "{error}");
}

async fn a_stream_begins_with_the_role_and_ends_with_the_finish_and_the_usage(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let mut body = completion_of("Grüße 🙂\u{2028}\r\n\"x\"", true);
    body["stream_options"] = json!({"include_usage": true, "include_obfuscation": false});
    let chunks = Completion::open(&alice, &body).await.rest().await;
    let delta = |i: usize| &chunks[i]["choices"][0]["delta"];
    assert_eq!(*delta(0), json!({"role": "assistant", "content": ""}));
    assert_eq!(text_of_chunks(&chunks), "You said: Grüße 🙂\u{2028}\r\n\"x\"");
    let last = chunks.len() - 1;
    assert_eq!(*delta(last - 1), json!({}));
    for (i, chunk) in chunks.iter().enumerate() {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        for same in ["id", "created", "model"] {
            assert_eq!(chunk[same], chunks[0][same], "{same}");
        }
        assert_eq!(chunk["usage"].is_null(), i < last, "{chunk}");
        let finish = &chunk["choices"][0]["finish_reason"];
        assert_eq!(finish == "stop", i == last - 1, "{chunk}");
        assert!(
            i >= last - 1 || chunk["choices"][0]["delta"].get("role").is_some() == (i == 0),
            "{chunk}"
        );
    }
    assert_eq!(chunks[last]["choices"], json!([]));
    app.model.usually(Answer::tokens(Vec::<String>::new()));
    let empty = Completion::open(&alice, &completion_of("nothing", true)).await.rest().await;
    assert_eq!(empty.last().unwrap()["choices"][0]["finish_reason"], "stop", "{empty:?}");
    assert!(empty[0].get("usage").is_none());
}

async fn thoughts_and_tool_calls_are_streamed(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    let answer = Answer::new()
        .thinking("Hm. ")
        .thinking("Yes.")
        .tool_call("f", json!({"a": 1}))
        .tool_call("g", json!({}))
        .done("stop");
    app.model.usually(answer);
    let chunks = Completion::open(&alice, &completion_of("think", true)).await.rest().await;
    let deltas = || chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]);
    let thoughts: String =
        deltas().filter_map(|delta| delta["reasoning_content"].as_str()).collect();
    assert_eq!(thoughts, "Hm. Yes.");
    let calls: Vec<&Value> = deltas().filter_map(|delta| delta["tool_calls"].get(0)).collect();
    assert_eq!((&calls[0]["index"], &calls[1]["index"]), (&json!(0), &json!(1)));
    assert_eq!(calls[0]["function"], json!({"name": "f", "arguments": "{\"a\":1}"}));
    assert_eq!(calls[0]["type"], "function");
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
    let whole =
        alice.post("/v1/chat/completions", &completion_of("think", false)).await.expect(200);
    assert_eq!(whole["choices"][0]["message"]["reasoning_content"], "Hm. Yes.");
}

async fn a_slow_model_is_bridged_by_signs_of_life(on: Backend) {
    let app = TestApp::start(on).await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["one ", "two"], &gate));
    let alice = app.login("alice").await;
    let start = Instant::now();
    let mut stream = Completion::open(&alice, &completion_of("wait", true)).await;
    assert!(start.elapsed() < SECOND * 6, "the head does not wait");
    stream.ping_within(SECOND).await;
    let silence = stream.ping_within(SECOND * 20).await;
    assert!(silence > SECOND * 12, "{silence:?}");
    gate.release(1);
    assert_eq!(stream.chunk().await["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(stream.chunk().await["choices"][0]["delta"]["content"], "one ");
    let silence = stream.ping_within(SECOND * 20).await;
    assert!(silence > SECOND * 12, "{silence:?}");
    gate.open();
    assert_eq!(text_of_chunks(&stream.rest().await), "two");
}

async fn a_failure_before_the_first_token_is_a_status_while_it_can_be(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    for (answer, status, code) in [
        (Answer::refuse(500, "", "{}"), 502, "llm_failed"),
        (Answer::new().wait(SECOND / 2).error("no"), 502, "llm_failed"),
        (Answer::new().eof(), 502, "llm_failed"),
        (Answer::new().drop_connection(), 503, "llm_unavailable"),
        (Answer::refuse(503, "retry-after: 7\r\n", "{}"), 503, "llm_unavailable"),
    ] {
        app.model.usually(answer);
        for stream in [true, false] {
            let reply = alice.post("/v1/chat/completions", &completion_of("hello", stream)).await;
            assert_eq!(
                (reply.status, &reply.json()["error"]["code"]),
                (status, &json!(code)),
                "{}",
                reply.text()
            );
        }
    }
}

async fn a_late_failure_is_an_error_in_the_stream(on: Backend) {
    let app = TestApp::start(on).await;
    app.model.usually(Answer::new().wait(SECOND * 5).error("no"));
    let alice = app.login("alice").await;
    let chunks = Completion::open(&alice, &completion_of("hello", true)).await.rest().await;
    assert_eq!(chunks.len(), 1, "{chunks:?}");
    error_of(&chunks, "llm_failed");
}

async fn a_cut_off_answer_is_an_error_in_the_stream(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    for answer in [
        Answer::partial(["half"]).eof(),
        Answer::partial(["half"]).drop_connection(),
        Answer::partial(["half"]).reset(),
        Answer::partial(["half"]).body("garbage\n"),
    ] {
        app.model.usually(answer);
        let chunks = Completion::open(&alice, &completion_of("hello", true)).await.rest().await;
        assert_eq!(text_of_chunks(&chunks), "half");
        error_of(&chunks, "llm_failed");
        assert!(chunks.iter().all(|chunk| chunk["choices"][0]["finish_reason"].is_null()));
        let reply = alice.post("/v1/chat/completions", &completion_of("hello", false)).await;
        assert_eq!(reply.json()["error"]["code"], "llm_failed");
        assert_eq!(reply.status, 502);
    }
}

async fn a_caller_who_leaves_before_the_first_token_stops_the_model(on: Backend) {
    let app = TestApp::start(on).await;
    app.model.usually(Answer::new().hang());
    let alice = app.login("alice").await;
    // Once while the status is held back, once after the stream has begun.
    for (message, begun) in [("early", false), ("later", true)] {
        let request =
            alice.request(Method::POST, "/v1/chat/completions").json(&completion_of(message, true));
        let (has_begun, begins) = tokio::sync::oneshot::channel();
        let asking = tokio::spawn(async move {
            let mut answer = request.send().await.unwrap();
            has_begun.send(()).unwrap();
            while answer.chunk().await.unwrap().is_some() {}
        });
        app.model.wait_chats(1).await;
        tests::eventually(PATIENCE, "it is asked", || async {
            let chats = app.model.chats();
            chats.iter().any(|chat| chat.last_message() == message).then_some(())
        })
        .await;
        if begun {
            begins.await.unwrap();
        }
        asking.abort();
        let after = app.model.left_after(message, Instant::now(), PATIENCE).await;
        assert!(after < SECOND, "{message}: {after:?}");
    }
}

async fn a_caller_who_leaves_the_queue_is_never_asked_for(on: Backend) {
    let app = TestApp::builder(on).set("llm.ollama.max_concurrency", 1).start().await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["done"], &gate));
    let alice = app.login("alice").await;
    let mut first = alice.stream("work", "first").await;
    first.started().await;
    app.model.wait_chats(1).await;
    let mut waiting = Vec::new();
    for stream in [true, false] {
        let request = alice
            .request(Method::POST, "/v1/chat/completions")
            .json(&completion_of("second", stream));
        waiting.push(tokio::spawn(async move { request.send().await.is_ok() }));
    }
    let queued = |count: f64| {
        let app = &app;
        async move {
            tests::eventually(PATIENCE, "the queue's length", || async {
                (app.measured(0, "llm_queued", "ollama").await == count).then_some(())
            })
            .await;
        }
    };
    queued(2.0).await;
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    queued(0.0).await;
    gate.open();
    first.ending().await.expect_done("stop");
    let mut third = Completion::open(&alice, &completion_of("third", true)).await;
    third.chunk().await;
    let asked: Vec<String> =
        app.model.chats().iter().map(tests::ChatRequest::last_message).collect();
    assert_eq!(asked, ["first", "third"]);
}

async fn a_whole_request_that_is_given_up_stops_the_model(on: Backend) {
    let app = TestApp::start(on).await;
    app.model.usually(Answer::partial(["one "]).hang());
    let alice = app.login("alice").await;
    let request =
        alice.request(Method::POST, "/v1/chat/completions").json(&completion_of("count", false));
    let asking = tokio::spawn(request.send());
    app.model.wait_chats(1).await;
    asking.abort();
    let after = app.model.left_after("count", Instant::now(), PATIENCE).await;
    assert!(after < SECOND, "{after:?}");
}

async fn a_revoked_token_ends_the_stream(on: Backend) {
    let app = TestApp::builder(on).chats(2).start().await;
    let gate = Gate::new();
    app.model.usually(Answer::gated(["one", "two"], &gate));
    let alice = app.login("alice").await;
    let elsewhere = alice.at(app.chat(app.instances() - 1));
    let mut stream = Completion::open(&elsewhere, &completion_of("count", true)).await;
    let (asking, body) = (elsewhere.clone(), completion_of("whole", false));
    let whole = tokio::spawn(async move { asking.post("/v1/chat/completions", &body).await });
    app.model.wait_chats(2).await;
    assert_eq!(alice.post_empty("/auth/logout").await.status, 204);
    let chunks = tests::within(SECOND * 6, "the stream ends", stream.rest()).await;
    error_of(&chunks, "token_revoked");
    let whole = tests::within(SECOND * 6, "the answer comes", whole).await.unwrap();
    assert_eq!(whole.status, 401);
    assert_eq!(whole.json()["error"]["code"], "token_revoked");
    app.model.wait_idle(SECOND).await;
}

async fn an_endless_answer_ends_as_length(on: Backend) {
    let app = TestApp::start(on).await;
    app.model.usually(Answer::endless(&"x".repeat(4096), Duration::ZERO));
    let alice = app.login("alice").await;
    let answer =
        alice.post("/v1/chat/completions", &completion_of("on and on", false)).await.expect(200);
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(text.len(), 1024 * 1024);
    let chunks = Completion::open(&alice, &completion_of("on and on", true)).await.rest().await;
    assert_eq!(text_of_chunks(&chunks).len(), 1024 * 1024);
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "length");
    app.model.wait_idle(SECOND).await;
}

async fn a_stop_lets_an_answer_end_and_then_says_so(on: Backend) {
    let app = TestApp::builder(on).set("server.drain_timeout", "3s").start().await;
    let gate = Gate::new();
    app.model.answer_to("ends", Answer::gated(["in time"], &gate));
    app.model.answer_to("hangs", Answer::partial(["half"]).hang());
    let alice = app.login("alice").await;
    let mut ends = Completion::open(&alice, &completion_of("ends", true)).await;
    let mut hangs = Completion::open(&alice, &completion_of("hangs", true)).await;
    app.chat_process(0).terminate();
    tests::eventually(PATIENCE, "new work is refused", || async {
        let reply = alice.post("/v1/chat/completions", &completion_of("new", false)).await;
        (reply.status == 503).then(|| {
            assert_eq!(reply.json()["error"]["code"], "shutting_down");
        })
    })
    .await;
    gate.open();
    assert_eq!(text_of_chunks(&ends.rest().await), "in time");
    let chunks = tests::within(SECOND * 8, "it is interrupted", hangs.rest()).await;
    assert_eq!(text_of_chunks(&chunks), "half");
    error_of(&chunks, "interrupted");
    assert_eq!(app.chat_process(0).wait_exit(SECOND * 10).await, Some(0));
}

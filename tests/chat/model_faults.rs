//! Model servers that refuse, stall, lie and break: each has its code, and what was said is kept.

use std::time::Duration;

use serde_json::json;
use tests::{Answer, Backend, Builder, TestApp, completion_of, fixture, text_of, thinking_of};

on_both_stores!(
    every_fault_has_its_code_and_keeps_what_was_said,
    a_refusal_is_tried_once_more_and_only_before_the_first_token,
    bytes_cut_anywhere_give_the_same_text,
    a_server_that_lies_about_its_tokens_spoils_no_answer,
    an_answer_has_an_end_even_if_the_model_has_none,
    an_endless_line_ends_the_answer,
    thoughts_are_kept_beside_the_answer,
    an_answer_without_a_word_is_an_answer,
    thoughts_without_an_answer_are_in_the_history,
);

pub(super) fn impatient(on: Backend) -> Builder {
    let app = TestApp::builder(on).set("llm.ollama.first_token_timeout", "1s");
    app.set("llm.ollama.idle_timeout", "1s").set("llm.ollama.breaker_failures", 0)
}

async fn every_fault_has_its_code_and_keeps_what_was_said(on: Backend) {
    let app = impatient(on).start().await;
    let said = || Answer::partial(["half", " said"]);
    let error = r#"{"error":"the runner at 10.0.0.7:4000 has crashed"}"#;
    let faults: Vec<(&str, Answer, u16, &str)> = vec![
        ("hangs before", Answer::new().hang(), 504, "llm_timeout"),
        ("hangs after", said().hang(), 504, "llm_timeout"),
        ("resets after", said().reset(), 502, "llm_failed"),
        ("drops after", said().drop_connection(), 502, "llm_failed"),
        ("ends early", said().eof(), 502, "llm_failed"),
        ("ends at once", Answer::new().eof(), 502, "llm_failed"),
        ("error line", said().error("the runner at 10.0.0.7:4000 has crashed"), 502, "llm_failed"),
        ("error line first", Answer::new().error("crashed"), 502, "llm_failed"),
        ("garbage after", said().body("<html>\u{0}\n").done("stop"), 502, "llm_failed"),
        (
            "bad bytes",
            said().body(b"{\"message\":{\"content\":\"\xff\xfe\"}}\n").done("stop"),
            502,
            "llm_failed",
        ),
        ("withheld", said().done("content_filter"), 502, "llm_failed"),
        ("internal", Answer::refuse(500, "", error), 502, "llm_failed"),
        ("unauthorized", Answer::refuse(401, "", error), 502, "llm_failed"),
        ("busy", Answer::refuse(503, "retry-after: 0\r\n", error), 503, "llm_unavailable"),
        ("bad gateway", Answer::refuse(502, "", "<html>"), 503, "llm_unavailable"),
        (
            "cannot do",
            Answer::refuse(400, "", r#"{"error":"\"m\" does not support thinking"}"#),
            400,
            "unsupported_by_model",
        ),
        (
            "lost model",
            Answer::refuse(404, "", r#"{"error":"model 'gemma3:1b' not found"}"#),
            404,
            "model_not_found",
        ),
    ];
    for (name, answer, _, _) in &faults {
        app.model.answer_to(name, answer.clone());
    }
    let alice = app.login("alice").await;
    for (number, (name, answer, status, code)) in faults.iter().enumerate() {
        let keeps = format!("{answer:?}").contains("half");
        let (whole, streamed) = (format!("w{number}"), format!("s{number}"));
        let problem = alice.send(&whole, name).await.problem(*status, code).to_string();
        assert!(!problem.contains("10.0.0.7") && !problem.contains("crashed"), "{problem}");
        let mut stream = alice.stream(&streamed, name).await;
        stream.started().await;
        let events = stream.rest().await;
        events.last().unwrap().expect_error(*status, code);
        assert_eq!(text_of(&events), if keeps { "half said" } else { "" }, "{name}");
        for session in [whole, streamed] {
            let history = alice.history(&session).await;
            assert_eq!(history.len(), if keeps { 2 } else { 1 }, "{name}");
            if let Some(answer) = history.get(1) {
                assert_eq!(
                    (&answer["content"], &answer["finish_reason"]),
                    (&json!("half said"), &json!("error")),
                    "{name}"
                );
            }
        }
    }
    alice.say("w1", "go on").await;
    let texts: Vec<String> =
        app.model.asked("go on").messages().into_iter().map(|(_, text)| text).collect();
    assert_eq!(
        texts,
        ["hangs after", "half said", "go on"],
        "the partial answer is part of the next prompt"
    );
}

async fn a_refusal_is_tried_once_more_and_only_before_the_first_token(on: Backend) {
    let app = impatient(on).start().await;
    let alice = app.login("alice").await;
    app.model.next(Answer::refuse(503, "retry-after: 0\r\n", "{}"));
    assert_eq!(alice.say("work", "one").await, "You said: one");
    assert_eq!((app.model.chats().len(), alice.history("work").await.len()), (2, 2));
    app.model.next(Answer::partial(["x"]).reset());
    alice.send("work", "two").await.problem(502, "llm_failed");
    assert_eq!(app.model.chats().len(), 3);
    app.model.answer_to("three", Answer::refuse(502, "", "{}"));
    alice.send("work", "three").await.problem(503, "llm_unavailable");
    assert_eq!(app.model.chats().len(), 5, "twice and no more");
    app.model.answer_to("four", Answer::refuse(503, "retry-after: 20\r\n", "{}"));
    let refused = alice.send("work", "four").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "20"));
    let events = alice.stream("work", "four").await.rest().await;
    assert_eq!(events.last().unwrap().data["retry_after"], 20, "{events:?}");
}

async fn bytes_cut_anywhere_give_the_same_text(on: Backend) {
    let app = TestApp::start(on).await;
    let alice = app.login("alice").await;
    for file in [
        "ollama/01-chat-happy.http",
        "ollama/11-split-utf8.http",
        "ollama/11b-two-lines-one-chunk.http",
    ] {
        let bytes = fixture(file);
        app.model.next(Answer::recorded(&bytes, bytes.len()));
        let whole = alice.say("whole", "x").await;
        assert!(!whole.is_empty() && !whole.contains('\u{fffd}'), "{file}: {whole:?}");
        for cut in [1, 2, 3, 7, 50] {
            app.model.next(Answer::recorded(&bytes, cut));
            assert_eq!(
                alice.say(&format!("cut{cut}"), "x").await,
                whole,
                "{file} in pieces of {cut}"
            );
        }
    }
}

async fn a_server_that_lies_about_its_tokens_spoils_no_answer(on: Backend) {
    let app = TestApp::start(on).await;
    let lie = r#"{"message":{"content":"Hello"},"done":true,"prompt_eval_count":9223372036854775807,"eval_count":9223372036854775808}"#;
    app.model.usually(Answer::new().body(lie).eof());
    let alice = app.login("alice").await;
    for _ in 0..2 {
        let answer = alice.send("work", "hi").await.expect(200);
        assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() < 1000);
        let body = completion_of("hi", false);
        alice.post("/v1/chat/completions", &body).await.expect(200);
    }
    let usage = alice.get("/chat/usage").await.expect(200);
    assert_eq!(usage["today"]["requests"], 4);
    assert!(usage["today"]["completion_tokens"].as_u64().unwrap() < 1000);
}

async fn an_answer_has_an_end_even_if_the_model_has_none(on: Backend) {
    let app = TestApp::start(on).await;
    // As fast as a reader who reads can follow: a burst past the unsent bytes of a watcher would cut it.
    let token = "0123456789abcdef".repeat(256);
    app.model.usually(Answer::endless(&token, Duration::from_millis(3)));
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "go").await;
    stream.started().await;
    stream.ending().await.expect_done("length");
    app.model.wait_idle(Duration::from_secs(5)).await;
    let content = alice.history("work").await[1]["content"].as_str().unwrap().len();
    assert!(content > 900_000 && content <= 1 << 20, "{content}");
}

async fn an_endless_line_ends_the_answer(on: Backend) {
    let app = TestApp::start(on).await;
    let line = (0..40).fold(Answer::partial(["x"]), |answer, _| answer.body("a".repeat(1 << 18)));
    app.model.usually(line.hang());
    let alice = app.login("alice").await;
    alice.send("work", "go").await.problem(502, "llm_failed");
    app.model.wait_idle(Duration::from_secs(5)).await;
}

async fn thoughts_are_kept_beside_the_answer(on: Backend) {
    let app = TestApp::start(on).await;
    app.model.usually(Answer::new().thinking("Let me ").thinking("see.").token("42").done("stop"));
    let alice = app.login("alice").await;
    let whole = alice.send("work", "go").await.expect(200);
    assert_eq!(
        (whole["reply"].as_str(), whole["thinking"].as_str()),
        (Some("42"), Some("Let me see."))
    );
    let mut stream = alice.stream("work", "again").await;
    stream.started().await;
    let events = stream.rest().await;
    assert_eq!(
        (text_of(&events), thinking_of(&events)),
        ("42".to_owned(), "Let me see.".to_owned())
    );
    assert_eq!(alice.history("work").await[3]["thinking"], "Let me see.");
    assert_eq!(app.model.asked("again").messages()[1].1, "42", "thoughts are not sent again");
}

async fn an_answer_without_a_word_is_an_answer(on: Backend) {
    let app = TestApp::start(on).await;
    app.model.next(Answer::new().done("stop"));
    let alice = app.login("alice").await;
    let mut stream = alice.stream("work", "go").await;
    let id = stream.started().await;
    stream.ending().await.expect_done("stop");
    let history = alice.history("work").await;
    assert_eq!((&history[1]["message_id"], &history[1]["content"]), (&json!(id), &json!("")));
    alice.say("work", "next").await;
    assert_eq!(app.model.asked("next").messages().len(), 1);
}

async fn thoughts_without_an_answer_are_in_the_history(on: Backend) {
    let app = TestApp::start(on).await;
    let thinks = || Answer::new().thinking("Let me ").thinking("see.");
    app.model.answer_to("long", thinks().done("length"));
    app.model.answer_to("broken", thinks().reset());
    let alice = app.login("alice").await;
    let whole = alice.send("long", "long").await.expect(200);
    assert_eq!((&whole["reply"], &whole["finish_reason"]), (&json!(""), &json!("length")));
    let mut stream = alice.stream("broken", "broken").await;
    let id = stream.started().await;
    stream.ending().await.expect_error(502, "llm_failed");
    let told = [("long", whole["message_id"].clone(), "length"), ("broken", json!(id), "error")];
    for (session, id, reason) in told {
        let history = alice.history(session).await;
        assert_eq!(history.len(), 2, "{history:?}");
        let kept = ["message_id", "content", "thinking", "finish_reason"].map(|m| &history[1][m]);
        assert_eq!(kept, [&id, &json!(""), &json!("Let me see."), &json!(reason)], "{session}");
        alice.say(session, "next").await;
        let asked = app.model.asked("next").messages();
        assert!(asked.iter().all(|(role, _)| role == "user"), "{asked:?}");
    }
}

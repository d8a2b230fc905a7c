//! Answers that are easy to get wrong: emoji cut in half, tool calls in odd parts, errors that quote the request.

use std::time::Duration;

use common::config::ProviderKind::{self, Ollama, OpenAi};

use crate::{
    server::{Action, DONE, Server, piece, response, stream_head},
    support::{Answer, Service, settings},
};

/// The answer whose body comes in these pieces.
async fn answer_of(kind: ProviderKind, pieces: &[String]) -> Answer {
    let mut actions = vec![Action::Send(stream_head())];
    actions.extend(pieces.iter().map(|text| Action::Send(piece(text))));
    actions.push(Action::Send(piece("")));
    let server = Server::chatting(move |_| actions.clone()).await;
    let service = Service::probed(&settings(&[(kind, &server.url)])).await;
    service.ask().await
}

fn delta(delta: &str) -> String {
    format!("data: {{\"choices\":[{{\"delta\":{delta}}}]}}\n\n")
}

fn call_parts(parts: &[&str]) -> Vec<String> {
    let frame = |part: &&str| delta(&format!("{{\"tool_calls\":[{part}]}}"));
    let end = "data: [DONE]\n\n".to_owned();
    parts.iter().map(frame).chain([end]).collect()
}

#[tokio::test]
async fn halves_of_an_emoji_are_joined_in_text_and_thoughts() {
    let line = |text| format!(r#"{{"message":{{"thinking":"{text}","content":"{text}"}}}}"#) + "\n";
    let mut lines: Vec<_> = ["ok ", r"\ud83d", r"\ude00", r"\ud83d"].map(line).into();
    lines.push(DONE.to_owned());
    let answer = answer_of(Ollama, &lines).await;
    assert_eq!(
        (answer.text.as_str(), answer.thinking.as_str()),
        ("ok 😀\u{fffd}", "ok 😀\u{fffd}")
    );

    let frame = |text| delta(&format!(r#"{{"reasoning":"{text}","content":"{text}"}}"#));
    let mut frames: Vec<_> = ["ok ", r"\ud83d", r"\ude00"].map(frame).into();
    frames.push("data: [DONE]\n\n".to_owned());
    let answer = answer_of(OpenAi, &frames).await;
    assert_eq!(answer.summary(), "think=\"ok 😀\" text=\"ok 😀\" Stop ?");

    let call =
        r#"{"message":{"tool_calls":[{"function":{"name":"f","arguments":{"x":"\ud83d"}}}]}}"#;
    let answer = answer_of(Ollama, &[format!("{call}\n"), DONE.to_owned()]).await;
    assert_eq!(answer.summary(), r#"f({"x":"\ufffd"}) ToolCalls 3+2"#);
}

#[tokio::test]
async fn calls_that_share_an_index_are_two_and_a_changed_id_makes_no_new_one() {
    let two = call_parts(&[
        r#"{"index":0,"function":{"name":"f","arguments":"{\"x\""}}"#,
        r#"{"index":0,"function":{"arguments":":1}"}}"#,
        r#"{"index":0,"function":{"name":"g","arguments":"{}"}}"#,
    ]);
    let answer = answer_of(OpenAi, &two).await;
    assert_eq!(answer.summary(), r#"f({"x":1}) g({}) ToolCalls ?"#);
    let blank = call_parts(&[r#"{"index":0,"function":{"name":"f","arguments":" "}}"#]);
    assert_eq!(answer_of(OpenAi, &blank).await.summary(), "f({}) ToolCalls ?");
    for id in [r#""""#, r#"" ""#, r#""other""#, "null", "7"] {
        let part = format!(r#"{{"index":0,"id":{id},"function":{{"arguments":":1}}"}}}}"#);
        let first = r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\""}}"#;
        let answer = answer_of(OpenAi, &call_parts(&[first, &part])).await;
        assert_eq!(answer.summary(), r#"f({"x":1}) ToolCalls ?"#, "{id}");
    }
}

#[tokio::test]
async fn arguments_of_a_call_without_a_name_fail_the_answer() {
    let mut frames = call_parts(&[
        r#"{"index":0,"function":{"name":"f","arguments":"{}"}}"#,
        r#"{"index":1,"function":{"arguments":"{}"}}"#,
    ]);
    let finish = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n";
    frames.insert(2, finish.to_owned());
    assert_eq!(answer_of(OpenAi, &frames).await.summary(), "Failed");
}

#[tokio::test]
async fn arguments_that_stream_are_output_and_have_a_limit() {
    let part = |arguments: &str| {
        delta(&format!(
            r#"{{"tool_calls":[{{"index":0,"function":{{"arguments":"{arguments}"}}}}]}}"#
        ))
    };
    let first = delta(r#"{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{"}}]}"#);
    let mut actions = vec![Action::Send([stream_head(), piece(&first)].concat())];
    for _ in 0..12 {
        actions.extend([Action::Wait(Duration::from_millis(50)), Action::Send(piece(&part(" ")))]);
    }
    let last = part("}") + "data: [DONE]\n\n";
    actions.push(Action::Send([piece(&last), piece("")].concat()));
    let server = Server::chatting(move |_| actions.clone()).await;
    let mut settings = settings(&[(OpenAi, &server.url)]);
    settings.openai.first_token_timeout = Duration::from_millis(300);
    let answer = Service::probed(&settings).await.ask().await;
    assert_eq!(answer.summary(), format!("f({{{}}}) ToolCalls ?", " ".repeat(12)));

    let endless = vec![
        Action::Send([stream_head(), piece(&first)].concat()),
        Action::Flood(piece(&part(&"x".repeat(60_000)))),
    ];
    let server = Server::chatting(move |_| endless.clone()).await;
    settings.openai.base_url = server.url.clone();
    let answer = Service::probed(&settings).await.ask().await;
    assert_eq!(answer.summary(), "Length ?");
    server.saw_closed(1, Duration::from_secs(2)).await;
}

#[tokio::test]
async fn an_error_that_quotes_the_key_and_the_prompt_is_masked() {
    let body = r#"{"error":{"message":"bad key sesame-42 for the prompt 'Hi there my friend'","input":"Hi there my friend"}}"#;
    for status in
        ["400 Bad Request", "401 Unauthorized", "500 Internal Server Error", "502 Bad Gateway"]
    {
        let in_stream = format!("data: {body}\n\n");
        for actions in [
            vec![Action::Send(response(status, "", body))],
            vec![Action::Send([stream_head(), piece(&in_stream), piece("")].concat())],
        ] {
            let server = Server::chatting(move |_| actions.clone()).await;
            let mut settings = settings(&[(OpenAi, &server.url)]);
            settings.openai.api_key = Some("sesame-42".to_owned().into());
            let service = Service::probed(&settings).await;
            let error = service.ask_for("Hi there my friend").await.error.unwrap().to_string();
            for secret in ["sesame", "friend"] {
                assert!(!error.contains(secret), "{status}: {error}");
            }
            assert!(error.contains("[...]"), "{error}");
        }
    }
}

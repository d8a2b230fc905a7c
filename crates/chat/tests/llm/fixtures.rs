//! What real servers put on the wire, replayed byte for byte, and what we make of it.

use std::{fs, path::PathBuf, time::Duration};

use common::config::ProviderKind::{self, Ollama, OpenAi};
use serde_json::Value;

use crate::{
    kit::{Models, settings},
    server::{Act, Server},
};

/// Waits of recorded plans are shortened by this much.
const HASTE: u64 = 100;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(name)
}

/// The recorded answer, with the waits of its plan; one that stops before its end drops the connection there.
fn recorded(path: &str) -> Vec<Act> {
    let bytes = fs::read(folder(path)).unwrap();
    let plan: Vec<Value> = fs::read(folder(&format!("{path}.plan.json")))
        .map_or(vec![], |plan| serde_json::from_slice(&plan).unwrap());
    let mut acts = Vec::new();
    let mut sent = 0;
    for step in plan {
        if let Some(chunks) = step["after_chunk"].as_u64() {
            let end = end_of_chunk(&bytes, chunks);
            acts.push(Act::Send(bytes[sent..end].to_vec()));
            sent = end;
        }
        acts.push(Act::Wait(Duration::from_millis(
            step["wait_ms"].as_u64().unwrap() / HASTE,
        )));
    }
    acts.push(Act::Send(bytes[sent..].to_vec()));
    acts.push(Act::Close);
    acts
}

/// Where that many HTTP chunks have ended.
fn end_of_chunk(bytes: &[u8], count: u64) -> usize {
    let find = |from: usize, what: &[u8]| {
        from + bytes[from..]
            .windows(what.len())
            .position(|w| w == what)
            .unwrap()
    };
    let mut at = find(0, b"\r\n\r\n") + 4;
    for _ in 0..count {
        let end = find(at, b"\r\n");
        let size =
            usize::from_str_radix(std::str::from_utf8(&bytes[at..end]).unwrap(), 16).unwrap();
        at = end + 2 + size + 2;
    }
    at
}

/// The same bytes, each in a write of its own.
fn dribbled(acts: Vec<Act>) -> Vec<Act> {
    let dribble = |act| match act {
        Act::Send(bytes) => Act::Dribble(bytes),
        act => act,
    };
    acts.into_iter().map(dribble).collect()
}

async fn heard(kind: ProviderKind, acts: Vec<Act>) -> String {
    let server = Server::chatting(move |_| acts.clone()).await;
    let models = Models::looked(&settings(&[(kind, &server.url)])).await;
    let heard = models.ask().await;
    models.idle().await;
    assert!(!heard.text.contains('\u{fffd}') && !heard.thinking.contains('\u{fffd}'));
    heard.brief()
}

async fn check(kind: ProviderKind, name: &str, cases: &[(&str, &str)]) {
    for (file, expected) in cases {
        let acts = recorded(&format!("{name}/{file}"));
        assert_eq!(heard(kind, acts.clone()).await, *expected, "{file}");
        assert_eq!(
            heard(kind, dribbled(acts)).await,
            *expected,
            "{file}, byte by byte"
        );
    }
    let told = |file: &str| cases.iter().any(|(known, _)| file == *known);
    for entry in fs::read_dir(folder(name)).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            !file.ends_with(".http") || told(&file) || NOT_CHATS.contains(&file.as_str()),
            "{file} is not told"
        );
    }
}

/// Answers to calls that are not chats.
const NOT_CHATS: &[&str] = &[
    "19-tags.http",
    "19b-tags-empty.http",
    "20-show.http",
    "21-ps.http",
    "22-version.http",
    "25-embed.http",
    "54-models.http",
    "02-models.res.http",
    "43-models-no-key.res.http",
];

#[tokio::test]
async fn ollama_is_understood() {
    check(Ollama, "ollama", &[
        ("01-chat-happy.http", r#"text="Hello! How can I help you today?" Stop 26+10"#),
        ("02-chat-nonstream.http", r#"text="Hello! How can I help you today?" Stop 26+10"#),
        ("03-chat-thinking.http", r#"think="Okay, the user says <hi> & more.\n" text="Hello!" Stop 26+9"#),
        ("04-chat-tool-call-rendered.http", r#"get_weather({"city":"Paris","unit":"celsius"}) get_time({"tz":"Europe/Paris"}) ToolCalls 26+40"#),
        ("05-chat-tool-call-native.http", r#"get_weather({"city":"Paris","unit":"celsius"}) get_time({"tz":"Europe/Paris"}) ToolCalls 26+40"#),
        ("06-mid-stream-error.http", r#"text="Hello! How" Failed"#),
        ("07-model-missing.http", "NotFound"),
        ("07b-model-missing-at-schedule.http", "NotFound"),
        ("08-queue-full.http", "Unavailable"),
        ("09-truncated-no-done-clean.http", r#"text="Hello! How can" Failed"#),
        ("09b-truncated-connection-drop.http", r#"text="Hello! How can" Failed"#),
        ("10-slow-first-byte.http", r#"text="Hello!" Stop 26+3"#),
        ("11-split-utf8.http", r#"text="Grüße 🙂 世界" Stop 26+4"#),
        ("11b-two-lines-one-chunk.http", r#"text="Hello!" Stop 26+3"#),
        ("13-load-only.http", "Failed"),
        ("14-unload.http", "Failed"),
        ("15-length.http", r#"text="Hello! How" Length 26+3"#),
        ("16-context-overflow-nested-json.http", "ContextTooLong"),
        ("17-think-unsupported.http", "Unsupported"),
        ("18-tools-unsupported.http", "Unsupported"),
        ("18b-empty-body.http", "Failed"),
        ("18c-no-model.http", "Failed"),
        ("18d-bad-json.http", "Failed"),
        ("18e-bad-think.http", "Failed"),
        ("18f-load-failed.http", "Failed"),
        ("18g-not-found-route.http", "Failed"),
        ("18h-method-not-allowed.http", "Failed"),
        ("18i-forbidden-host.http", "Failed"),
        ("29-no-metrics.http", r#"text="Hi" Stop ?"#),
        ("31-logprobs.http", r#"text="Hi" Stop 26+2"#),
        ("32-stall-mid-stream.http", r#"text="Hello!" Stop 26+3"#),
    ])
    .await;
}

#[tokio::test]
async fn openai_compatible_servers_are_understood() {
    check(
        OpenAi,
        "openai",
        &[
            (
                "01-happy.http",
                r#"text="Hello! How can I help you today?" Stop ?"#,
            ),
            (
                "02-happy-usage.http",
                r#"text="Hello! How can I help you today?" Stop 26+9"#,
            ),
            (
                "03-nonstream.http",
                r#"text="Hello! How can I help you today?" Stop 26+9"#,
            ),
            (
                "04-thinking-reasoning_content.http",
                r#"think="Let me see." text="42" Stop ?"#,
            ),
            (
                "05-thinking-reasoning.http",
                r#"think="Let me see." text="42" Stop ?"#,
            ),
            (
                "06-thinking-inline-tags.http",
                r#"text="<think>Let me see.</think>\n\n42" Stop ?"#,
            ),
            (
                "07-tool-calls.http",
                r#"get_weather({"city":"Paris"}) get_time({}) ToolCalls ?"#,
            ),
            (
                "10-error-mid-llama-server.http",
                r#"text="Hello! How" Failed"#,
            ),
            ("11-error-mid-vllm.http", r#"text="Hello! How" Failed"#),
            ("12-error-mid-tgi.http", r#"text="Hello! How" Failed"#),
            ("15-error-mid-ollama-v1.http", r#"text="Hello" Failed"#),
            (
                "16-truncated-no-done-clean.http",
                r#"text="Hello! How can" Failed"#,
            ),
            (
                "16b-finish-no-done.http",
                r#"text="Hello! How can I help you today?" Stop ?"#,
            ),
            (
                "16c-truncated-connection-drop.http",
                r#"text="Hello! How can" Failed"#,
            ),
            ("17-slow-first-byte.http", r#"text="Hello!" Stop ?"#),
            ("18-keepalive-comments.http", r#"text="Hello!" Stop ?"#),
            ("19-split-utf8.http", r#"text="Grüße 🙂 世界" Stop ?"#),
            ("21-crlf.http", r#"text="Hello!" Stop ?"#),
            ("22-no-space.http", r#"text="Hello!" Stop ?"#),
            ("23-multi-line-data.http", r#"text="Hi" Stop ?"#),
            ("24-other-fields.http", r#"text="Hello" Stop ?"#),
            ("28-n2-interleaved.http", r#"text="B" Length ?"#),
            (
                "29-tgi-style.http",
                r#"text="Hello! How can I help you today?" Stop ?"#,
            ),
            ("30-vllm-usage-every-chunk.http", r#"text="Hi" Stop 26+9"#),
            ("31-garbage-after-done.http", r#"text="Hello" Stop ?"#),
            (
                "33-content-filter-and-refusal.http",
                r#"text="I can't" ContentFilter ?"#,
            ),
            ("40-model-missing-openai.http", "NotFound"),
            ("41-model-missing-vllm.http", "NotFound"),
            ("42-model-missing-ollama-v1.http", "NotFound"),
            ("43-loading-llama-server.http", "Unavailable"),
            ("44-queue-full-ollama-v1.http", "Unavailable"),
            ("45-rate-limit.http", "Busy"),
            ("46-overloaded-tgi.http", "Busy"),
            ("47-validation-tgi.http", "ContextTooLong"),
            ("48-bad-key.http", "Failed"),
            ("49-context-length-openai.http", "ContextTooLong"),
            ("50-context-length-llama-server.http", "ContextTooLong"),
            ("51-html-502.http", "Unavailable"),
        ],
    )
    .await;
}

#[tokio::test]
async fn llama_server_is_understood() {
    check(OpenAi, "llama-server", &[
        ("03-chat-nonstream.res.http", r#"text=" hell w5w who look ar made6W seh" Length 25+12"#),
        ("04-chat-stream.res.http", r#"text=" hell w5w who look ar made6W seh" Length ?"#),
        ("05-chat-stream-usage.res.http", r#"text=" hell w5w who look ar made" Length 25+8"#),
        ("06-chat-stream-stop-word.res.http", r#"text=" hell w5w who " Stop ?"#),
        ("09-json-schema-nonstream.res.http", r#"text="{\"ok\":true, \"n\":9 }" Stop 25+32"#),
        ("10-err-bad-json.res.http", "Failed"),
        ("11-err-no-messages.res.http", "Failed"),
        ("13-err-bad-type.res.http", "Failed"),
        ("14-unknown-model.res.http", r#"text="7 m" Length 21+2"#),
        ("16-err-context-overflow-stream.res.http", "ContextTooLong"),
        ("17-err-context-overflow-nonstream.res.http", "ContextTooLong"),
        ("18-utf8-bytes-stream.res.http", r#"text="界é" Stop ?"#),
        ("19-n2-stream.res.http", r#"text=" hell w5w" Length ?"#),
        ("21-logprobs-stream.res.http", r#"text=" hell w5" Length ?"#),
        ("30-scripted-hello-stream.res.http", r#"text="Hello! I am a scripted test model." Stop 21+9"#),
        ("31-scripted-hello-nonstream.res.http", r#"text="Hello! I am a scripted test model." Stop 21+9"#),
        ("32-scripted-think-stream.res.http", r#"think="The user asks me to think; I do.\n" text="The answer is 42." Stop 24+16"#),
        ("33-scripted-think-nonstream.res.http", r#"think="The user asks me to think; I do.\n" text="The answer is 42." Stop 24+16"#),
        ("34-scripted-tool-stream.res.http", r#"get_weather({"city": "Paris", "unit": "celsius"}) ToolCalls 338+23"#),
        ("35-scripted-tool-nonstream.res.http", r#"get_weather({"city": "Paris", "unit": "celsius"}) ToolCalls 338+23"#),
        ("36-scripted-after-tool-stream.res.http", r#"text="It is 18 °C in Paris now." Stop ?"#),
        ("37-scripted-utf8-stream.res.http", r#"text="Smile: 🙂 and 世界 — größe, 你好!" Stop ?"#),
        ("38-scripted-markdown-stream.res.http", r##"text="# Title\n\n- **bold** item\n- `code`\n\n```rust\nfn main() {}\n```\n\n<b>&amp;</b> \"quoted\" \\ back\tslash\n" Stop ?"##),
        ("39-scripted-empty-stream.res.http", "Stop ?"),
        ("40-scripted-length-stream.res.http", r#"text="word0000 word0001 word0002 word0003 word0004" Length ?"#),
        ("41-err-401-no-key.res.http", "Failed"),
        ("42-err-401-bad-key.res.http", "Failed"),
        ("44-scripted-stop-sequence.res.http", r#"text="Hello! I am a " Stop ?"#),
        ("50-loading-503-try1.res.http", "Unavailable"),
        ("54-long-prefill-stream-progress.res.http", r#"text="Hello! I am a s" Length ?"#),
        ("55-long-prefill-stream.res.http", r#"text="Hello! I am a s" Length ?"#),
        ("61-killed-mid-stream.res.http", r#"text="word0000 word0001 word0002 word0003 word0004 word0005 word0006 word0007 word0008 word0009 word0010 word0011 word0012 word0013 word0014 word0015 word0016 word0017 word0018 word0019 word0020 word0021 word0022 word0023 word0024 word0025 word0026 word0027 word0028 word0029 word0030 word0031 word0032 word0033 word0034 word0035 word0036 word0037 word0038 word0039 word0040 word0041 word0042 word0043" Failed"#),
    ])
    .await;
}

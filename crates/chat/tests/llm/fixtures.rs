//! Recorded answers of real servers, replayed byte for byte.

use std::{fs, path::PathBuf, time::Duration};

use common::config::ProviderKind::{self, Ollama, OpenAi};
use serde_json::Value;

use crate::{
    server::{Action, Server},
    support::{Service, settings},
};

/// Waits of recorded plans are shortened by this much.
const HASTE: u64 = 100;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

/// The recorded answer, with the waits of its plan; one that stops before its end drops the connection there.
pub fn recorded(path: &str) -> Vec<Action> {
    let bytes = fs::read(folder(path)).unwrap();
    let plan: Vec<Value> = fs::read(folder(&format!("{path}.plan.json")))
        .map_or(vec![], |plan| serde_json::from_slice(&plan).unwrap());
    let mut actions = Vec::new();
    let mut sent = 0;
    for step in plan {
        if let Some(chunks) = step["after_chunk"].as_u64() {
            let end = end_of_chunk(&bytes, chunks);
            actions.push(Action::Send(bytes[sent..end].to_vec()));
            sent = end;
        }
        actions
            .push(Action::Wait(Duration::from_millis(step["wait_ms"].as_u64().unwrap() / HASTE)));
    }
    actions.push(Action::Send(bytes[sent..].to_vec()));
    actions.push(Action::Close);
    actions
}

/// Where that many HTTP chunks have ended.
fn end_of_chunk(bytes: &[u8], count: u64) -> usize {
    let find = |from: usize, what: &[u8]| {
        from + bytes[from..].windows(what.len()).position(|w| w == what).unwrap()
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
fn dribbled(actions: Vec<Action>) -> Vec<Action> {
    let dribble = |act| match act {
        Action::Send(bytes) => Action::Dribble(bytes),
        act => act,
    };
    actions.into_iter().map(dribble).collect()
}

async fn summary_of(kind: ProviderKind, actions: Vec<Action>) -> String {
    let server = Server::chatting(move |_| actions.clone()).await;
    let mut settings = settings(&[(kind, &server.url)]);
    // A busy server is asked again until then.
    settings.ollama.first_token_timeout = Duration::from_secs(1);
    settings.openai.first_token_timeout = Duration::from_secs(1);
    let service = Service::probed(&settings).await;
    let answer = service.ask().await;
    service.idle().await;
    assert!(!answer.text.contains('\u{fffd}') && !answer.thinking.contains('\u{fffd}'));
    answer.summary()
}

/// What every recorded answer of that server says: `tests/fixtures/EXPECTED.tsv`.
fn expected(name: &str) -> Vec<(String, String)> {
    let table = fs::read_to_string(folder("EXPECTED.tsv")).unwrap();
    let row = |line: &str| {
        let (path, said) = line.split_once('\t')?;
        let file = path.strip_prefix(name)?.strip_prefix('/')?;
        Some((file.to_owned(), said.to_owned()))
    };
    table.lines().filter_map(row).collect()
}

async fn check(kind: ProviderKind, name: &str) {
    let cases = expected(name);
    let mut wrong = Vec::new();
    for (file, expected) in &cases {
        let actions = recorded(&format!("{name}/{file}"));
        for actions in [actions.clone(), dribbled(actions)] {
            let summary = summary_of(kind, actions).await;
            if summary != *expected {
                wrong.push(format!("{name}/{file}\t{summary}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let is_expected = |file: &str| cases.iter().any(|(known, _)| file == known);
    for entry in fs::read_dir(folder(name)).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            !file.ends_with(".http") || is_expected(&file) || NOT_CHATS.contains(&file.as_str()),
            "{file} is not in EXPECTED.tsv"
        );
    }
}

/// Answers to calls that are not chats.
const NOT_CHATS: &[&str] = &[
    "21-foreign-host.http",
    "22-tags.http",
    "23-show.http",
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
    check(Ollama, "ollama").await;
}

#[tokio::test]
async fn a_real_ollama_is_understood() {
    check(Ollama, "ollama-real").await;
}

#[tokio::test]
async fn openai_compatible_servers_are_understood() {
    check(OpenAi, "openai").await;
}

#[tokio::test]
async fn llama_server_is_understood() {
    check(OpenAi, "llama-server").await;
}

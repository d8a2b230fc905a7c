//! What real servers put on the wire, replayed byte for byte, and what we make of it.

use std::{fs, path::PathBuf, time::Duration};

use common::config::ProviderKind::{self, Ollama, OpenAi};
use serde_json::Value;

use crate::{
    server::{Act, Server},
    support::{Models, settings},
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
    heard.truncate()
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
    for (file, expected) in &cases {
        let acts = recorded(&format!("{name}/{file}"));
        assert_eq!(heard(kind, acts.clone()).await, *expected, "{file}");
        assert_eq!(
            heard(kind, dribbled(acts)).await,
            *expected,
            "{file}, byte by byte"
        );
    }
    let told = |file: &str| cases.iter().any(|(known, _)| file == known);
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
    check(Ollama, "ollama").await;
}

#[tokio::test]
async fn openai_compatible_servers_are_understood() {
    check(OpenAi, "openai").await;
}

#[tokio::test]
async fn llama_server_is_understood() {
    check(OpenAi, "llama-server").await;
}
